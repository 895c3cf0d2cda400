//! The one adapter between actix-web, which speaks `http` 0.2, and ruma, which speaks `http` 1: it turns a function over ruma's
//! types into a route, with its paths, its method and its kind of token from ruma's metadata.
//!
//! Routing is `matchit` in one default service: actix-web tries its routes one after the other.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use ::ruma::api::auth_scheme::{
    AccessToken, AccessTokenOptional, AppserviceToken, AppserviceTokenOptional, AuthScheme,
    NoAccessToken, NoAuthentication,
};
use ::ruma::api::error::{DeserializationError, FromHttpRequestError};
use ::ruma::api::path_builder::PathBuilder;
use ::ruma::api::{
    IncomingRequest, IncomingRequestExt, Metadata, OutgoingResponse, OutgoingResponseExt,
};
use actix_web::http::StatusCode;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use actors::trace;
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use percent_encoding::percent_decode_str;

use crate::app::App;
use crate::caller::{Auth, Caller, dialect};
use crate::error::{Error, Result};

/// ruma's kinds of authentication, as values.
pub trait Scheme: AuthScheme {
    /// What the caller must prove.
    const AUTH: Auth;
}

macro_rules! schemes {
    ($($scheme:ty => $auth:ident),* $(,)?) => { $(impl Scheme for $scheme { const AUTH: Auth = Auth::$auth; })* };
}
schemes! {
    NoAuthentication => None,
    NoAccessToken => None,
    AccessToken => User,
    AccessTokenOptional => Optional,
    AppserviceToken => Appservice,
    AppserviceTokenOptional => Optional,
}

/// A request of ruma's that a client may send.
pub trait Endpoint:
    IncomingRequest<OutgoingResponse: 'static> + Metadata<Authentication: Scheme> + 'static
{
}

impl<R> Endpoint for R where
    R: IncomingRequest<OutgoingResponse: 'static> + Metadata<Authentication: Scheme> + 'static
{
}

/// An answer that is JSON already.
#[derive(Debug, Clone)]
pub struct Json(pub String);

impl Json {
    /// Write an answer.
    ///
    /// # Errors
    /// When a value in it cannot be JSON.
    pub fn write<T: serde::Serialize>(answer: &T) -> Result<Json> {
        let text = serde_json::to_string(answer).map_err(actors::Error::from)?;
        Ok(Json(text))
    }
}

/// A variable of the path, counted from 0, as it was asked. Event types are read here: where ruma knows two names of a type it
/// writes the one that it prefers, and `m.beacon` would be stored under the name that it had as a proposal.
#[must_use]
pub fn variable(path: Vec<String>, index: usize) -> String {
    path.into_iter().nth(index).unwrap_or_default()
}

/// A request to an endpoint that ruma does not have.
#[derive(Debug)]
pub struct Raw {
    /// The values of the path's variables, decoded, in order.
    pub path: Vec<String>,
    /// The query's pairs, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Raw {
    /// The body as JSON; an empty one is `{}`.
    ///
    /// # Errors
    /// `M_NOT_JSON`, or `M_BAD_JSON` for another shape.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        let text: &[u8] = if self.body.is_empty() {
            b"{}"
        } else {
            &self.body
        };
        serde_json::from_slice(text).map_err(|e| json_error(&e))
    }

    /// A pair of the query.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

/// What the adapter hands to a route.
struct Incoming {
    http: HttpRequest,
    body: Bytes,
    path: Vec<String>,
    query: Vec<(String, String)>,
}

type Handler = Rc<dyn Fn(App, Incoming) -> LocalBoxFuture<'static, Result<HttpResponse>>>;

/// Every route: path → method → what its caller must prove, and the handler.
#[derive(Clone, Default)]
pub struct Routes(BTreeMap<String, BTreeMap<&'static str, (Auth, Handler)>>);

impl Routes {
    /// `.on(whoami)`: one line for each endpoint.
    #[must_use]
    pub fn on<R, F, Fut>(self, handler: F) -> Routes
    where
        R: Endpoint,
        F: Fn(App, Caller, R) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<R::OutgoingResponse>> + 'static,
    {
        self.on_path(move |app, caller, _, request| handler(app, caller, request))
    }

    /// The same for an endpoint that must see its path as it was asked: where ruma knows two names of a type, it keeps one.
    #[must_use]
    pub fn on_path<R, F, Fut>(self, handler: F) -> Routes
    where
        R: Endpoint,
        F: Fn(App, Caller, Vec<String>, R) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<R::OutgoingResponse>> + 'static,
    {
        self.add::<R, _, _, _>(handler, |answer| ruma_response(answer, None))
    }

    /// The same for an endpoint whose success has more than one status.
    #[must_use]
    pub fn on_status<R, F, Fut>(self, handler: F) -> Routes
    where
        R: Endpoint,
        F: Fn(App, Caller, R) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<(StatusCode, R::OutgoingResponse)>> + 'static,
    {
        let handler = move |app, caller, _, request| handler(app, caller, request);
        self.add::<R, _, _, _>(handler, |(status, answer)| {
            ruma_response(answer, Some(status))
        })
    }

    /// The same for an endpoint that writes its JSON itself.
    #[must_use]
    pub fn on_json<R, F, Fut>(self, handler: F) -> Routes
    where
        R: Endpoint,
        F: Fn(App, Caller, R) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<Json>> + 'static,
    {
        let handler = move |app, caller, _, request| handler(app, caller, request);
        self.add::<R, _, _, _>(handler, |Json(text)| Ok(json_response(text)))
    }

    /// An endpoint that ruma does not have; `path` with `{variables}`.
    #[must_use]
    pub fn raw<F, Fut>(mut self, method: &'static str, path: &str, auth: Auth, handler: F) -> Routes
    where
        F: Fn(App, Caller, Raw) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<Json>> + 'static,
    {
        let route: Handler = Rc::new(move |app, incoming| {
            Box::pin(async move {
                let caller = caller(&app, auth, &incoming).await?;
                let Incoming {
                    body, path, query, ..
                } = incoming;
                handler(app, caller, Raw { path, query, body })
                    .await
                    .map(|Json(text)| json_response(text))
            })
        });
        self.insert(path, method, auth, route);
        self
    }

    fn add<R, F, Fut, T>(mut self, handler: F, respond: fn(T) -> Result<HttpResponse>) -> Routes
    where
        R: Endpoint,
        F: Fn(App, Caller, Vec<String>, R) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<T>> + 'static,
        T: 'static,
    {
        let route: Handler = Rc::new(move |app, incoming| {
            Box::pin(async move {
                // Who asks comes first: a bad token is 401 whatever the body holds.
                let caller = caller(&app, R::Authentication::AUTH, &incoming).await?;
                let request = parse::<R>(&incoming)?;
                respond(handler(app, caller, incoming.path, request).await?)
            })
        });
        let method = ["GET", "PUT", "POST", "DELETE"]
            .into_iter()
            .find(|m| R::METHOD == *m)
            .unwrap_or("GET");
        let auth = R::Authentication::AUTH;
        for path in R::PATH_BUILDER.all_paths() {
            self.insert(path, method, auth, Rc::clone(&route));
            // An empty last segment matches no variable: the empty state key has paths of its own.
            if let Some(base) = path.strip_suffix("/{state_key}") {
                for empty in [base.to_owned(), format!("{base}/")] {
                    let route = Rc::clone(&route);
                    let with_empty: Handler = Rc::new(move |app, mut incoming| {
                        incoming.path.push(String::new());
                        route(app, incoming)
                    });
                    self.insert(&empty, method, auth, with_empty);
                }
            }
        }
        self
    }

    fn insert(&mut self, path: &str, method: &'static str, auth: Auth, handler: Handler) {
        let twice = self
            .0
            .entry(path.to_owned())
            .or_default()
            .insert(method, (auth, handler));
        assert!(twice.is_none(), "{method} {path} is registered twice");
    }

    /// Every method and path, and what its caller must prove, in order.
    pub fn list(&self) -> impl Iterator<Item = (&str, &str, Auth)> {
        self.0.iter().flat_map(|(path, methods)| {
            let one = move |(method, (auth, _)): (&&'static str, &(Auth, Handler))| {
                (*method, path.as_str(), *auth)
            };
            methods.iter().map(one)
        })
    }

    /// The routes as one tree.
    #[must_use]
    pub fn router(self) -> Router {
        let mut tree = matchit::Router::new();
        for (path, methods) in self.0 {
            // A clash is a mistake in this program, found by whoever starts it first.
            tree.insert(path.as_str(), (Rc::from(path.as_str()), methods))
                .expect("paths do not clash");
        }
        Router(Rc::new(tree))
    }
}

type Found = (Rc<str>, BTreeMap<&'static str, (Auth, Handler)>);

/// All routes in one tree.
#[derive(Clone)]
pub struct Router(Rc<matchit::Router<Found>>);

impl Router {
    /// Answer a request: find its route, prove who asks, parse, handle, and turn whatever happens into a response.
    pub async fn serve(
        &self,
        app: App,
        http: HttpRequest,
        body: Result<Bytes, actix_web::Error>,
    ) -> HttpResponse {
        if http.method() == actix_web::http::Method::OPTIONS {
            return cors(HttpResponse::Ok().finish());
        }
        let answer = match self.find(&http, body) {
            Ok((template, handler, incoming)) => run(app, &template, handler, incoming).await,
            Err(error) => Err(error),
        };
        cors(answer.unwrap_or_else(|error| {
            let spoken = query(http.query_string()).unwrap_or_default();
            error.response(dialect(&spoken))
        }))
    }

    fn find(
        &self,
        http: &HttpRequest,
        body: Result<Bytes, actix_web::Error>,
    ) -> Result<(Rc<str>, Handler, Incoming)> {
        let raw = http.uri().path();
        let unknown = || Error::Request(404, "M_UNRECOGNIZED", "unknown endpoint".to_owned());
        let found = self.0.at(raw).map_err(|_| unknown())?;
        let (template, methods) = found.value;
        let method = if http.method() == actix_web::http::Method::HEAD {
            "GET"
        } else {
            http.method().as_str()
        };
        let Some((_, handler)) = methods.get(method) else {
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
        let query = query(http.query_string())?;
        let body = body.map_err(|e| Error::Request(413, "M_TOO_LARGE", e.to_string()))?;
        if names_nul(&body) {
            let why = "U+0000 cannot be stored, in no text".to_owned();
            return Err(Error::Request(400, "M_BAD_JSON", why));
        }
        Ok((
            Rc::clone(template),
            Rc::clone(handler),
            Incoming {
                http: http.clone(),
                body,
                path,
                query,
            },
        ))
    }
}

/// Run a handler: counted, traced, and a panic is its own request's alone.
async fn run(
    app: App,
    template: &str,
    handler: Handler,
    incoming: Incoming,
) -> Result<HttpResponse> {
    let _place = app
        .enter()
        .ok_or_else(|| Error::Actor(schema::Error::Busy.into()))?;
    let _busy = app.actors.env.trace.busy();
    let cause = app.next_request(incoming.http.method().as_str(), template);
    let name = std::sync::Arc::clone(&cause);
    let handled = trace::caused_by(
        cause,
        AssertUnwindSafe(handler(app, incoming)).catch_unwind(),
    )
    .await;
    handled.unwrap_or_else(|_| {
        tracing::error!(request = %name, "a request panicked; it is answered 500 and nothing else is touched");
        Err(Error::Request(500, "M_UNKNOWN", "the server failed; its log says why".to_owned()))
    })
}

async fn caller(app: &App, auth: Auth, incoming: &Incoming) -> Result<Caller> {
    let header = incoming
        .http
        .headers()
        .get("authorization")
        .map(|v| v.to_str().map_err(|_| Error::missing_token()))
        .transpose()?;
    let ip = incoming.http.peer_addr().map(|a| a.ip().to_string());
    let caller = Caller::find(
        app,
        auth,
        incoming.http.uri().path(),
        header,
        &incoming.query,
        ip,
    )
    .await?;
    app.limit(
        &caller,
        incoming.http.method().as_str(),
        incoming.http.uri().path(),
    )?;
    Ok(caller)
}

/// Whether a JSON text has an escape for U+0000: PostgreSQL stores it in no text, and one statement that tries takes its whole
/// batch down. Deviation: refused everywhere, also where it would only be content.
fn names_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(escape) = rest.iter().position(|byte| *byte == b'\\') {
        rest = &rest[escape + 1..];
        if rest.starts_with(b"u0000") {
            return true;
        }
        // Whatever is escaped is not an escape itself.
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// One percent-decoding of one segment, which must be UTF-8 without U+0000.
fn decode(segment: &str) -> Result<String> {
    let text = percent_decode_str(segment)
        .decode_utf8()
        .map(Cow::into_owned);
    match text {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(Error::invalid_param(
            "the path must be UTF-8 without U+0000",
        )),
    }
}

fn query(text: &str) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for pair in text.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let text = |part: &str| {
            decode(&part.replace('+', " "))
                .map_err(|_| Error::invalid_param("the query must be UTF-8 without U+0000"))
        };
        pairs.push((text(name)?, text(value)?));
    }
    Ok(pairs)
}

fn parse<R: Endpoint>(incoming: &Incoming) -> Result<R> {
    let uri = incoming.http.uri();
    let mut builder = http::Request::builder()
        .method(incoming.http.method().as_str())
        .uri(uri.path_and_query().map_or("/", |p| p.as_str()));
    for (name, value) in incoming.http.headers() {
        builder = builder.header(name.as_str(), value.as_bytes());
    }
    // Clients leave out a body in which everything is optional; some of ruma's parsers do not know that.
    let absent =
        incoming.body.is_empty() && incoming.http.method() == actix_web::http::Method::POST;
    let body: &[u8] = if absent { b"{}" } else { &incoming.body };
    let request = builder
        .body(body)
        .map_err(|e| Error::Request(400, "M_UNKNOWN", e.to_string()))?;
    let path: Vec<&str> = incoming.path.iter().map(String::as_str).collect();
    R::try_from_http_request(request, &path).map_err(|e| request_error(&e))
}

fn request_error(error: &FromHttpRequestError) -> Error {
    match error {
        FromHttpRequestError::Deserialization(DeserializationError::Json(e)) => json_error(e),
        FromHttpRequestError::MethodMismatch { .. } => {
            Error::Request(405, "M_UNRECOGNIZED", error.to_string())
        }
        _ => Error::invalid_param(error.to_string()),
    }
}

/// Which of three errors a body has: no JSON, something missing, or the wrong shape. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#common-error-codes
fn json_error(error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let code = if error.is_data() {
        if text.starts_with("missing field") {
            "M_MISSING_PARAM"
        } else {
            "M_BAD_JSON"
        }
    } else {
        "M_NOT_JSON"
    };
    Error::Request(400, code, text)
}

fn ruma_response<T: OutgoingResponse>(
    answer: T,
    status: Option<StatusCode>,
) -> Result<HttpResponse> {
    let answer = answer.try_into_http_response::<Vec<u8>>().map_err(|e| {
        tracing::error!(error = %e, "an answer could not be written");
        Error::Request(
            500,
            "M_UNKNOWN",
            "the server failed; its log says why".to_owned(),
        )
    })?;
    let code = status.unwrap_or_else(|| {
        StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::OK)
    });
    let mut response = HttpResponse::build(code);
    for (name, value) in answer.headers() {
        response.append_header((name.as_str(), value.as_bytes()));
    }
    Ok(response.body(answer.into_body()))
}

fn json_response(text: String) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(text)
}

/// Web clients may ask from anywhere, errors included. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients
fn cors(mut response: HttpResponse) -> HttpResponse {
    use actix_web::http::header::{HeaderName, HeaderValue};
    const CORS: [(&str, &str); 3] = [
        ("access-control-allow-origin", "*"),
        (
            "access-control-allow-methods",
            "GET, POST, PUT, DELETE, OPTIONS, HEAD",
        ),
        (
            "access-control-allow-headers",
            "X-Requested-With, Content-Type, Authorization",
        ),
    ];
    for (name, value) in CORS {
        response.headers_mut().insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_for_nul_is_found_and_nothing_else_is() {
        let cases: [(&[u8], bool); 6] = [
            (br#"{"a\u0000":1}"#, true),
            (br#"{"a":"\\u0000"}"#, false),
            (br#"{"a":"\\\u0000"}"#, true),
            (br#"{"a":"u0000 \u0001"}"#, false),
            (b"\\", false),
            (b"", false),
        ];
        for (json, expected) in cases {
            assert_eq!(
                names_nul(json),
                expected,
                "{}",
                String::from_utf8_lossy(json)
            );
        }
    }
}
