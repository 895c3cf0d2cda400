//! All routes in one tree, and what happens to a request whatever its route: who asks, how often, what a panic is.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse};
use actors::{lengths, trace};
use futures_util::FutureExt;

use super::origin::{is_own, kept};
use super::translate::{cors, decode, names_nul, query};
use super::{Incoming, Route, body};
use crate::address;
use crate::app::App;
use crate::caller::{Asked, Caller, dialect};
use crate::error::{Error, Result};
use crate::questions::outside;

pub(super) type Found = (Rc<str>, BTreeMap<&'static str, Route>);

/// All routes in one tree.
#[derive(Clone)]
pub struct Router(pub(super) Rc<matchit::Router<Found>>);

impl Router {
    /// Answer a request: find its route, authenticate the caller, read the body, parse, handle, and turn whatever happens into a response.
    pub async fn serve(&self, app: App, http: HttpRequest, mut payload: Payload) -> HttpResponse {
        let answer = self.answer(app, &http, &mut payload).await;
        body::close_unless_read(&http, answer, payload)
    }

    async fn answer(&self, app: App, http: &HttpRequest, payload: &mut Payload) -> HttpResponse {
        let own_origin = self.is_of_own_origin(http);
        if http.method() == actix_web::http::Method::OPTIONS && !own_origin {
            return cors(HttpResponse::Ok().finish());
        }
        let allowed = if own_origin {
            is_own(http, &app.door().hosts)
        } else {
            Ok(())
        };
        let answer = match allowed.and_then(|()| self.find(http)) {
            Ok(Match {
                template,
                route,
                incoming,
            }) => run(app, &template, route, incoming, payload).await,
            Err(error) => Err(error),
        };
        let answer = answer.unwrap_or_else(|error| {
            let spoken = query(http.query_string()).unwrap_or_default();
            error.response(dialect(&spoken))
        });
        if own_origin {
            kept(answer)
        } else {
            cors(answer)
        }
    }

    /// Whether the path, with any method, is for pages of the server's own origin only.
    fn is_of_own_origin(&self, http: &HttpRequest) -> bool {
        let found = self.0.at(http.uri().path());
        found.is_ok_and(|found| found.value.1.values().any(|route| route.terms.own_origin))
    }

    fn find(&self, http: &HttpRequest) -> Result<Match> {
        let raw = http.uri().path();
        let unknown = || Error::Request(404, "M_UNRECOGNIZED", "unknown endpoint".to_owned());
        let found = self.0.at(raw).map_err(|_| unknown())?;
        let (template, methods) = found.value;
        let method = if http.method() == actix_web::http::Method::HEAD {
            "GET"
        } else {
            http.method().as_str()
        };
        let Some(route) = methods.get(method) else {
            let known = methods.keys().copied().collect::<Vec<_>>().join(", ");
            return Err(Error::Request(
                405,
                "M_UNRECOGNIZED",
                format!("this endpoint takes {known}"),
            ));
        };
        let path = found
            .params
            .iter()
            .map(|(_, v)| decode(v))
            .collect::<Result<Vec<_>>>()?;
        let mut variables = found.params.iter().zip(&path);
        let refused = variables.find_map(|((name, _), value)| {
            let refused = lengths::check_variable(name, value);
            refused.err().map(Error::from)
        });
        Ok(Match {
            template: Rc::clone(template),
            route: route.clone(),
            incoming: Incoming {
                http: http.clone(),
                body: Bytes::new(),
                path,
                query: query(http.query_string())?,
                refused,
            },
        })
    }
}

/// A request and its route.
struct Match {
    template: Rc<str>,
    route: Route,
    incoming: Incoming,
}

/// Answer a request that has a route: counted, traced, and a panic is its own request's alone.
async fn run(
    app: App,
    template: &str,
    route: Route,
    incoming: Incoming,
    payload: &mut Payload,
) -> Result<HttpResponse> {
    let _place = app
        .enter()
        .ok_or(Error::Busy("too many requests are under way"))?;
    let _busy = app.actors.env.trace.busy();
    let cause = app.next_request(incoming.http.method().as_str(), template);
    let name = std::sync::Arc::clone(&cause);
    let handled = trace::caused_by(
        cause,
        AssertUnwindSafe(handle(app, route, incoming, payload)).catch_unwind(),
    )
    .await;
    handled.unwrap_or_else(|_| {
        tracing::error!(request = %name, "a request panicked; it is answered 500 and nothing else is touched");
        Err(Error::Request(500, "M_UNKNOWN", "the server failed; its log says why".to_owned()))
    })
}

// ANCHOR: handle
/// The token is checked first, then the rate limit, then the body is read: a refused request's body is not read, and a bad token is
/// 401 whatever the body holds. A body that comes slowly takes no place at the door.
async fn handle(
    app: App,
    route: Route,
    mut incoming: Incoming,
    payload: &mut Payload,
) -> Result<HttpResponse> {
    let caller = caller(&app, &route, &incoming).await?;
    app.limit(&caller, route.terms.cost)?;
    if let Some(refused) = incoming.refused.take() {
        return Err(refused);
    }
    let limit = route.terms.body_for(caller.is_anonymous());
    let mut reserved = app.reserve_body(&caller);
    if limit > 0 {
        let read = body::read(&app, &incoming.http, payload, limit, &mut reserved);
        incoming.body = outside(&app, read).await?;
    }
    if !(incoming.body.is_empty() && route.terms.empty) {
        body::is_object(&incoming.body)?;
    }
    if !route.terms.content && names_nul(&incoming.body) {
        let why = "U+0000 is allowed only in contents".to_owned();
        return Err(Error::Request(400, "M_BAD_JSON", why));
    }
    (route.handler)(app, caller, incoming).await
}
// ANCHOR_END: handle

async fn caller(app: &App, route: &Route, incoming: &Incoming) -> Result<Caller> {
    let http = &incoming.http;
    let header = http.headers().get("authorization");
    let peer = http.peer_addr().map(|socket| socket.ip());
    let asked = Asked {
        path: http.uri().path(),
        // A token is of visible characters: what is none is not one.
        header: header.map(|value| value.to_str().unwrap_or_default()),
        query: &incoming.query,
        ip: peer.map(|peer| address::client(peer, http.headers(), &app.door().trusted_proxies)),
    };
    Caller::find(app, route.auth, &asked).await
}
