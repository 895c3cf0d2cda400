//! All routes in one tree, and the steps common to every request: token, limits, body, and containing panics.
//!
//! Routing uses `matchit` inside one default appservice, because actix-web tries its routes one after the other.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse};
use actors::runtime::clock::Stopwatch;
use actors::runtime::{lengths, requests, trace};
use actors::wire::Name;
use futures_util::FutureExt;

use super::caller::{Caller, RequestParts, dialect};
use super::current::Current;
use super::door::Door;
use super::error::{Error, Result};
use super::incoming::{Incoming, decode, names_nul, query};
use super::limits::Limits;
use super::origin::{is_own, kept};
use super::recording::Recording;
use super::registry::{Route, Routes};
use super::{address, body, request_id};
use crate::state::App;

/// The template of a path, and the routes of its methods.
type FoundRoute = (Arc<str>, BTreeMap<&'static str, Route>);

/// All routes in one tree. Clones are cheap.
#[derive(Clone)]
pub struct Router {
    tree: Rc<matchit::Router<FoundRoute>>,
    current: Current,
    door: Arc<Door>,
    limits: Arc<Limits>,
    asserted_device: Option<Name>,
    errors: Rc<[Name]>,
}

impl Router {
    /// A router over these routes that applies these limits.
    pub(crate) fn new(
        routes: Routes,
        current: Current,
        door: Arc<Door>,
        limits: Arc<Limits>,
    ) -> Router {
        let mut tree = matchit::Router::new();
        for (path, methods) in routes.all {
            // Two routes can clash only by a mistake in this program, and then every start fails.
            tree.insert(path.as_str(), (Arc::from(path.as_str()), methods))
                .expect("paths do not clash");
        }
        Router {
            tree: Rc::new(tree),
            current,
            door,
            limits,
            asserted_device: routes.asserted_device,
            errors: routes.errors.into(),
        }
    }

    /// Answer a request: find its route, authenticate the caller, read the body, parse, handle, and turn the outcome into a
    /// response.
    pub(crate) async fn serve(&self, http: HttpRequest, mut payload: Payload) -> HttpResponse {
        let answer = self.answer(&http, &mut payload).await;
        let answer = request_id::answered(&http, answer);
        body::close_unless_read(&http, answer, payload)
    }

    /// Clause: cs.api.unknown-path, cs.api.unknown-method
    async fn answer(&self, http: &HttpRequest, payload: &mut Payload) -> HttpResponse {
        let own_origin = self.is_of_own_origin(http);
        if http.method() == actix_web::http::Method::OPTIONS && !own_origin {
            return cors(HttpResponse::Ok().finish());
        }
        let allowed = if own_origin {
            is_own(http, &self.door.hosts)
        } else {
            Ok(())
        };
        let answer = match allowed.and_then(|()| self.find(http)) {
            Ok(RoutedRequest {
                template,
                route,
                incoming,
            }) => self.run(&template, route, incoming, payload).await,
            Err(error) => Ok(self.refuse(http, &error).await),
        };
        let answer = answer.unwrap_or_else(|error| self.shown(http, &error));
        if own_origin {
            kept(answer)
        } else {
            cors(answer)
        }
    }

    /// Whether the path is reserved, with any method, for pages of the server's own origin.
    fn is_of_own_origin(&self, http: &HttpRequest) -> bool {
        let found = self.tree.at(http.uri().path());
        found.is_ok_and(|found| found.value.1.values().any(|route| route.terms.own_origin))
    }

    fn find(&self, http: &HttpRequest) -> Result<RoutedRequest> {
        let raw = http.uri().path();
        let unknown = || Error::Request(404, "M_UNRECOGNIZED", "unknown endpoint".to_owned());
        let found = self.tree.at(raw).map_err(|_| unknown())?;
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
        let mut path = found
            .params
            .iter()
            .map(|(_, v)| decode(v))
            .collect::<Result<Vec<_>>>()?;
        let mut variables = found.params.iter().zip(&path);
        let refused = variables.find_map(|((name, _), value)| {
            let refused = lengths::check_variable(name, value);
            refused.err().map(Error::from)
        });
        if route.ends_empty {
            path.push(String::new());
        }
        Ok(RoutedRequest {
            template: Arc::clone(template),
            route: route.clone(),
            incoming: Incoming {
                http: http.clone(),
                body: Bytes::new(),
                path,
                query: query(http.query_string())?,
                changed_query: None,
                refused,
            },
        })
    }

    /// The answer to a request that is refused.
    fn shown(&self, http: &HttpRequest, error: &Error) -> HttpResponse {
        let names = query(http.query_string()).unwrap_or_default();
        let dialect = dialect(&names, self.asserted_device);
        error.response(dialect, &self.errors)
    }

    /// Answer a request that has no route, or may not use it.
    async fn refuse(&self, http: &HttpRequest, error: &Error) -> HttpResponse {
        let since = Stopwatch::start();
        let (app, answer) = (
            self.current.get().await.app().clone(),
            self.shown(http, error),
        );
        let id = request_id::given(http);
        let (method, status) = (http.method(), answer.status().as_u16());
        let cause = app.next_request(method.as_str(), NO_ENDPOINT, id);
        let figures = app.figures();
        figures.request(known(method), &Arc::from(NO_ENDPOINT), status, since);
        // The path as it was sent: this is what somebody looks for who tries a client. Its query may have a token.
        let route = (method, http.uri().path());
        log(&cause, route, status, since, Some(error));
        match Recording::of(&app, &cause, http) {
            Some(recording) => recording.answer(answer),
            None => answer,
        }
    }

    /// Answer a request that has a route. The request is counted and traced, and a panic fails this request alone.
    async fn run(
        &self,
        template: &Arc<str>,
        route: Route,
        incoming: Incoming,
        payload: &mut Payload,
    ) -> Result<HttpResponse> {
        let since = Stopwatch::start();
        let used = self.current.get().await;
        let app = used.app().clone();
        let _in_use = (!route.terms.replaces).then_some(used);
        let _place = app
            .enter()
            .ok_or(Error::Busy("too many requests are in progress"))?;
        let _busy = app.actors.env.trace.busy();
        let method = incoming.http.method().clone();
        let id = request_id::given(&incoming.http);
        let cause = app.next_request(method.as_str(), template, id);
        let name = Arc::clone(&cause);
        let recording = Recording::of(&app, &cause, &incoming.http);
        let figures = app.figures().clone();
        let handle = self.handle(app, route, incoming, payload, recording.as_ref());
        let handled = trace::caused_by(cause, AssertUnwindSafe(handle).catch_unwind()).await;
        let answer = handled.unwrap_or_else(|_| {
            tracing::error!(request = %name, "a request panicked; it is answered 500 and other requests continue");
            Err(Error::Request(500, "M_UNKNOWN", "the server failed; its log says why".to_owned()))
        });
        let status = answer
            .as_ref()
            .map_or_else(|error| error.code().0, |answer| answer.status().as_u16());
        figures.request(known(&method), template, status, since);
        log(
            &name,
            (&method, template),
            status,
            since,
            answer.as_ref().err(),
        );
        match recording {
            Some(recording) => {
                let answer = answer.unwrap_or_else(|error| self.shown(recording.http(), &error));
                Ok(recording.answer(answer))
            }
            None => answer,
        }
    }

    // ANCHOR: handle
    /// The token is checked first, then the rate limit, and then the body is read: the body of a refused request is not read, and
    /// a bad token is answered 401 whatever the body contains. A slowly arriving body does not count against the request limit
    /// ([`DOOR`](crate::state::DOOR)).
    async fn handle(
        &self,
        app: App,
        route: Route,
        mut incoming: Incoming,
        payload: &mut Payload,
        recording: Option<&Recording>,
    ) -> Result<HttpResponse> {
        let caller = self.caller(&app, &route, &incoming).await?;
        caller.limit(route.terms.cost)?;
        if let Some(refused) = incoming.refused.take() {
            return Err(refused);
        }
        let limit = route.terms.body_for(caller.is_anonymous());
        let mut reserved = caller.reserve_body();
        if limit > 0 {
            let read = body::read(&app, &incoming.http, payload, limit, &mut reserved);
            incoming.body = app.outside(read).await?;
        }
        if let Some(recording) = recording {
            recording.request(&caller, &incoming.body);
        }
        if !(incoming.body.is_empty() && route.terms.empty) {
            body::is_object(&incoming.body)?;
        }
        if !route.terms.content && names_nul(&incoming.body) {
            let why = "U+0000 is allowed only in content".to_owned();
            return Err(Error::Request(400, "M_BAD_JSON", why));
        }
        (route.handler)(app, caller, incoming).await
    }
    // ANCHOR_END: handle

    async fn caller(&self, app: &App, route: &Route, incoming: &Incoming) -> Result<Caller> {
        let http = &incoming.http;
        let header = http.headers().get("authorization");
        let peer = http.peer_addr().map(|socket| socket.ip());
        let trusted = &self.door.trusted_proxies;
        let asked = RequestParts {
            path: http.uri().path(),
            // Tokens consist of visible ASCII, so a header with other characters has no token.
            header: header.map(|value| value.to_str().unwrap_or_default()),
            query: &incoming.query,
            device: self.asserted_device,
            ip: peer.map(|peer| address::client(peer, http.headers(), trusted)),
        };
        Caller::find(app, Arc::clone(&self.limits), route.auth, &asked).await
    }
}

/// The method as a label of metrics. No route has another one.
fn known(method: &actix_web::http::Method) -> &'static str {
    let all = ["GET", "PUT", "POST", "DELETE", "HEAD"];
    all.into_iter()
        .find(|known| method == known)
        .unwrap_or("other")
}

/// The line of a request in the log. Errors of the server are always logged.
fn log(
    cause: &str,
    (method, route): (&actix_web::http::Method, &str),
    status: u16,
    since: Stopwatch,
    error: Option<&Error>,
) {
    let (request, micros) = (requests::id(cause), since.micros());
    match error {
        Some(error) if status == 500 => {
            tracing::error!(request, %method, route, status, micros, %error, "a request failed");
        }
        _ => {
            tracing::debug!(target: requests::TARGET, request, %method, route, status, micros, "request");
        }
    }
}

/// What stands for the route of a request that has none, or may not use it.
const NO_ENDPOINT: &str = "(no endpoint)";

/// A request and its route.
struct RoutedRequest {
    template: Arc<str>,
    route: Route,
    incoming: Incoming,
}

/// Add the CORS headers that let web clients of any origin read the response, errors included. ([spec]) Clause: cs.api.cors
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
