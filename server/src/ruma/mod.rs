//! The one adapter between actix-web, which speaks `http` 0.2, and ruma, which speaks `http` 1: it turns a function over ruma's
//! types into a route, with its paths, its method and its kind of token from ruma's metadata.
//!
//! Routing is `matchit` in one default service: actix-web tries its routes one after the other.

mod body;
mod origin;
mod router;
mod translate;

use std::collections::BTreeMap;
use std::rc::Rc;

use ::ruma::api::auth_scheme::{
    AccessToken, AccessTokenOptional, AppserviceToken, AppserviceTokenOptional, AuthScheme,
    NoAccessToken, NoAuthentication,
};
use ::ruma::api::path_builder::PathBuilder;
use ::ruma::api::{IncomingRequest, Metadata};
use actix_web::http::StatusCode;
use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use futures_util::future::LocalBoxFuture;
use futures_util::stream::LocalBoxStream;

use crate::app::App;
use crate::caller::{Auth, Caller};
use crate::error::{Error, Result};
use crate::limits::{Cost, Terms};
use translate::{json_error, json_response, parse, ruma_response};

pub use router::Router;

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

/// An answer that is JSON already, in one piece or in several that are made while it is sent.
pub enum Pieces {
    /// The whole answer.
    Whole(String),
    /// Its pieces. An error ends the connection, so that the caller sees that the answer is not whole.
    Stream(LocalBoxStream<'static, std::result::Result<Bytes, actors::Error>>),
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

    /// A value of the query; an empty one is as if absent.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(n, value)| n == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }
}

/// What the adapter hands to a route.
struct Incoming {
    http: HttpRequest,
    body: Bytes,
    path: Vec<String>,
    query: Vec<(String, String)>,
    /// A variable of the path is too long. Reported only after the caller is authenticated.
    refused: Option<Error>,
}

type Handler = Rc<dyn Fn(App, Caller, Incoming) -> LocalBoxFuture<'static, Result<HttpResponse>>>;

/// What is registered for a method of a path.
#[derive(Clone)]
struct Route {
    auth: Auth,
    terms: Terms,
    handler: Handler,
}

/// Every route: path → method → what its caller must prove, what it takes, and the handler.
#[derive(Clone, Default)]
pub struct Routes {
    all: BTreeMap<String, BTreeMap<&'static str, Route>>,
    /// The paths of the endpoint that was added last, with its method: its terms may be changed.
    last: Vec<(String, &'static str)>,
}

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

    /// The same for an endpoint whose answer can be large: it is sent while it is read.
    #[must_use]
    pub fn on_pieces<R, F, Fut>(self, handler: F) -> Routes
    where
        R: Endpoint,
        F: Fn(App, Caller, R) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<Pieces>> + 'static,
    {
        let handler = move |app, caller, _, request| handler(app, caller, request);
        self.add::<R, _, _, _>(handler, |pieces| {
            Ok(match pieces {
                Pieces::Whole(text) => json_response(text),
                Pieces::Stream(pieces) => HttpResponse::Ok()
                    .content_type("application/json")
                    .streaming(pieces),
            })
        })
    }

    /// An endpoint that ruma does not have; `path` with `{variables}`.
    #[must_use]
    pub fn raw<F, Fut>(mut self, method: &'static str, path: &str, auth: Auth, handler: F) -> Routes
    where
        F: Fn(App, Caller, Raw) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<Json>> + 'static,
    {
        let route: Handler = Rc::new(move |app, caller, incoming| {
            Box::pin(async move {
                let Incoming {
                    body, path, query, ..
                } = incoming;
                handler(app, caller, Raw { path, query, body })
                    .await
                    .map(|Json(text)| json_response(text))
            })
        });
        self.last.clear();
        self.insert(path, method, auth, route);
        self
    }

    /// The endpoint that was added last only reads, whatever its method.
    #[must_use]
    pub fn reads(self) -> Routes {
        self.terms(|terms| terms.cost = Cost::Read)
    }

    /// The endpoint that was added last takes bodies of so many bytes.
    #[must_use]
    pub fn takes(self, bytes: usize) -> Routes {
        self.terms(|terms| terms.body = bytes)
    }

    /// Everything in the body of the endpoint that was added last is optional, and so is the body.
    #[must_use]
    pub fn empty(self) -> Routes {
        self.terms(|terms| terms.empty = true)
    }

    /// The body of the endpoint that was added last carries content that is stored as JSON text. It may hold U+0000, and what is
    /// decoded from it into a column is checked where that is done.
    #[must_use]
    pub fn content(self) -> Routes {
        self.terms(|terms| terms.content = true)
    }

    /// The endpoint that was added last is for pages of the server's own origin, and for programs.
    #[must_use]
    pub fn own_origin(self) -> Routes {
        self.terms(|terms| terms.own_origin = true)
    }

    fn terms(mut self, change: impl Fn(&mut Terms)) -> Routes {
        for (path, method) in &self.last {
            let route = self
                .all
                .get_mut(path)
                .and_then(|methods| methods.get_mut(method));
            if let Some(route) = route {
                change(&mut route.terms);
            }
        }
        self
    }

    fn add<R, F, Fut, T>(mut self, handler: F, respond: fn(T) -> Result<HttpResponse>) -> Routes
    where
        R: Endpoint,
        F: Fn(App, Caller, Vec<String>, R) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<T>> + 'static,
        T: 'static,
    {
        let route: Handler = Rc::new(move |app, caller, incoming| {
            Box::pin(async move {
                let request = parse::<R>(&incoming)?;
                respond(handler(app, caller, incoming.path, request).await?)
            })
        });
        let method = ["GET", "PUT", "POST", "DELETE"]
            .into_iter()
            .find(|m| R::METHOD == *m)
            .unwrap_or("GET");
        let auth = R::Authentication::AUTH;
        self.last.clear();
        for path in R::PATH_BUILDER.all_paths() {
            self.insert(path, method, auth, Rc::clone(&route));
            // An empty last segment matches no variable: the empty state key has paths of its own.
            if let Some(base) = path.strip_suffix("/{state_key}") {
                for empty in [base.to_owned(), format!("{base}/")] {
                    let route = Rc::clone(&route);
                    let with_empty: Handler = Rc::new(move |app, caller, mut incoming| {
                        incoming.path.push(String::new());
                        route(app, caller, incoming)
                    });
                    self.insert(&empty, method, auth, with_empty);
                }
            }
        }
        self
    }

    fn insert(&mut self, path: &str, method: &'static str, auth: Auth, handler: Handler) {
        let terms = Terms::of(method);
        let route = Route {
            auth,
            terms,
            handler,
        };
        let twice = self
            .all
            .entry(path.to_owned())
            .or_default()
            .insert(method, route);
        self.last.push((path.to_owned(), method));
        assert!(twice.is_none(), "{method} {path} is registered twice");
    }

    /// Every method and path, and what its caller must prove, in order.
    pub fn list(&self) -> impl Iterator<Item = (&str, &str, Auth)> {
        self.all.iter().flat_map(|(path, methods)| {
            let one = move |(method, route): (&&'static str, &Route)| {
                (*method, path.as_str(), route.auth)
            };
            methods.iter().map(one)
        })
    }

    /// The routes as one tree.
    #[must_use]
    pub fn router(self) -> Router {
        let mut tree = matchit::Router::new();
        for (path, methods) in self.all {
            // A clash is a mistake in this program, found by whoever starts it first.
            tree.insert(path.as_str(), (Rc::from(path.as_str()), methods))
                .expect("paths do not clash");
        }
        Router(Rc::new(tree))
    }
}
