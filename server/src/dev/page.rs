//! The page of a development server: `GET /_understudy/` and the files that it loads.
//!
//! `server/page/` has its source. The bundle in `server/page/dist/` is committed, so that a build needs only Rust; `server/page/check`
//! proves that it comes from the source.

use std::future::ready;
use std::hash::{DefaultHasher, Hash, Hasher};

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse};

use crate::http::caller::Auth;
use crate::http::registry::Routes;

/// The page may load files and data of its own origin, and nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'";

/// A file of the page.
struct PageFile {
    content_type: &'static str,
    bytes: &'static [u8],
}

static INDEX: PageFile = PageFile {
    content_type: "text/html; charset=utf-8",
    bytes: include_bytes!("../../page/dist/index.html"),
};
static SCRIPT: PageFile = PageFile {
    content_type: "text/javascript; charset=utf-8",
    bytes: include_bytes!("../../page/dist/page.js"),
};
static STYLE: PageFile = PageFile {
    content_type: "text/css; charset=utf-8",
    bytes: include_bytes!("../../page/dist/page.css"),
};
static ICON: PageFile = PageFile {
    content_type: "image/svg+xml",
    bytes: include_bytes!("../../page/dist/icon.svg"),
};

/// The routes of the page.
pub(super) fn routes(routes: Routes) -> Routes {
    let routes = routes
        .raw_http("GET", "/_understudy", Auth::None, |_, _, _, _| {
            ready(Ok(to_the_page()))
        })
        .own_origin();
    let files = [
        ("", &INDEX),
        ("page.js", &SCRIPT),
        ("page.css", &STYLE),
        ("icon.svg", &ICON),
    ];
    files.into_iter().fold(routes, |routes, (name, file)| {
        let path = format!("/_understudy/{name}");
        routes
            .raw_http("GET", &path, Auth::None, move |_, _, http, _| {
                ready(Ok(file.answer(&http)))
            })
            .own_origin()
    })
}

/// Redirect to the path that ends in a slash, to which the names of the files are relative.
fn to_the_page() -> HttpResponse {
    HttpResponse::PermanentRedirect()
        .insert_header((header::LOCATION, "/_understudy/"))
        .finish()
}

impl PageFile {
    /// The file, or 304 without a body to a browser that has it.
    fn answer(&self, http: &HttpRequest) -> HttpResponse {
        let tag = self.tag();
        let known = http.headers().get(header::IF_NONE_MATCH);
        let has_it = known.is_some_and(|known| known.as_bytes() == tag.as_bytes());
        let status = if has_it {
            StatusCode::NOT_MODIFIED
        } else {
            StatusCode::OK
        };
        let mut answer = HttpResponse::build(status);
        answer
            .insert_header((header::ETAG, tag))
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY));
        if has_it {
            answer.finish()
        } else {
            answer.content_type(self.content_type).body(self.bytes)
        }
    }

    /// A tag that differs between builds with different bytes.
    fn tag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.bytes.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }
}
