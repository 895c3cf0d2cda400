//! The registry of all endpoints: a function over a typed request becomes a route.

use std::collections::BTreeMap;
use std::rc::Rc;

use ::ruma::api::path_builder::PathBuilder;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse};
use actors::wire::Name;

use super::answer::{Json, Pieces, json_response};
use super::around::{Answer, Handler, Next, Seen, call, fixed_variables, shape};
use super::caller::{Auth, Caller};
use super::error::Result;
use super::incoming::{Incoming, Raw};
use super::limits::{Cost, Terms};
use super::ruma::endpoint::{Endpoint, Scheme};
use super::ruma::translate::{parse, ruma_response};
use crate::state::App;

/// The handler and terms of one method of a path.
#[derive(Clone)]
pub(super) struct Route {
    /// The first path of the endpoint. Its further paths are other spellings: of other versions, and for an empty state key.
    endpoint: Rc<str>,
    /// Whether the path leaves out the last variable, which is then empty.
    pub(super) ends_empty: bool,
    pub(super) auth: Auth,
    pub(super) terms: Terms,
    pub(super) handler: Handler,
}

/// All routes: path → method → required token, terms and handler.
#[derive(Clone, Default)]
pub struct Routes {
    pub(super) all: BTreeMap<String, BTreeMap<&'static str, Route>>,
    /// The paths and the method of the endpoint that was added last. The methods below change the terms of that endpoint.
    last: Vec<(String, &'static str)>,
    /// The query parameter by which an appservice names the device it acts as, if it can.
    pub(super) asserted_device: Option<Name>,
    /// The error codes that have an unstable form.
    pub(super) errors: Vec<Name>,
}

impl Routes {
    /// Register an endpoint: `.on(whoami)`.
    #[must_use]
    pub fn on<R, F, Fut>(self, handler: F) -> Routes
    where
        R: Endpoint,
        F: Fn(App, Caller, R) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<R::OutgoingResponse>> + 'static,
    {
        self.on_path(move |app, caller, _, request| handler(app, caller, request))
    }

    /// Like [`Routes::on`], for an endpoint that needs the path as the client wrote it: where ruma knows two names for a type, it
    /// keeps only one.
    #[must_use]
    pub fn on_path<R, F, Fut>(self, handler: F) -> Routes
    where
        R: Endpoint,
        F: Fn(App, Caller, Vec<String>, R) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<R::OutgoingResponse>> + 'static,
    {
        self.add::<R, _, _, _>(handler, |answer| ruma_response(answer, None))
    }

    /// Like [`Routes::on`], for an endpoint whose success has more than one status.
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

    /// Like [`Routes::on`], for an endpoint that serialises its answer itself.
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

    /// Like [`Routes::on`], for an endpoint whose answer can be large and is streamed.
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

    /// Register an endpoint that ruma does not define; `path` may contain `{variables}`.
    #[must_use]
    pub fn raw<F, Fut>(self, method: &'static str, path: &str, auth: Auth, handler: F) -> Routes
    where
        F: Fn(App, Caller, Raw) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<Json>> + 'static,
    {
        self.raw_http(method, path, auth, move |app, caller, _, raw| {
            let answer = handler(app, caller, raw);
            async move { answer.await.map(|Json(text)| json_response(text)) }
        })
    }

    /// Like [`Routes::raw`], for an endpoint that looks at the headers or whose answer is not JSON.
    #[must_use]
    pub(crate) fn raw_http<F, Fut>(
        mut self,
        method: &'static str,
        path: &str,
        auth: Auth,
        handler: F,
    ) -> Routes
    where
        F: Fn(App, Caller, HttpRequest, Raw) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<HttpResponse>> + 'static,
    {
        let route: Handler = Rc::new(move |app, caller, incoming| {
            let Incoming {
                http,
                body,
                path,
                query,
                ..
            } = incoming;
            Box::pin(handler(app, caller, http, Raw { path, query, body }))
        });
        self.last.clear();
        self.insert(path, method, false, (&Rc::from(path), auth, &route));
        self
    }

    /// Put code around an existing endpoint, in all spellings of its path: of every version, under an older name, and without the
    /// last segment where a state key is empty. `path` is one of them, and may leave out the part up to the version. It may have a
    /// fixed segment where the endpoint has a variable: `/profile/{user_id}/displayname` means the endpoint
    /// `/profile/{user_id}/{field}` for this field alone.
    ///
    /// # Panics
    /// There is no such endpoint, which is a mistake in the program.
    #[must_use]
    pub fn around<F, Fut>(mut self, method: &str, path: &str, around: F) -> Routes
    where
        F: Fn(App, Caller, Seen, Next) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<Answer>> + 'static,
    {
        let wanted = shape(path);
        let fits = |(path, methods): (&String, &BTreeMap<&'static str, Route>)| {
            let route = methods.get(method)?;
            let shape = shape(path);
            let mut fixed = fixed_variables(&shape, &wanted)?;
            let is_exact = fixed.is_empty();
            if route.ends_empty {
                fixed.push((shape.matches("{}").count(), String::new()));
            }
            Some((Rc::clone(&route.endpoint), is_exact, fixed))
        };
        let mut found: Vec<_> = self.all.iter().filter_map(fits).collect();
        // An endpoint of exactly this path takes precedence over one with a variable in the place of a fixed segment.
        if found.iter().any(|(_, is_exact, _)| *is_exact) {
            found.retain(|(_, is_exact, _)| *is_exact);
        }
        assert!(!found.is_empty(), "there is no endpoint {method} {path}");
        let routes = self.all.values_mut().filter_map(|m| m.get_mut(method));
        for route in routes {
            let meant = found.iter().find(|(of, ..)| *of == route.endpoint);
            let Some((.., fixed)) = meant.cloned() else {
                continue;
            };
            let handler = Rc::clone(&route.handler);
            route.handler = Rc::new(move |app, caller, incoming| {
                let is_meant = |(at, text): &(usize, String)| incoming.path.get(*at) == Some(text);
                if !fixed.iter().all(is_meant) {
                    return handler(app, caller, incoming);
                }
                Box::pin(call(around, Rc::clone(&handler), (app, caller, incoming)))
            });
        }
        self
    }

    /// Let an appservice name the device it acts as, by this query parameter on every endpoint. The stable form counts if both are
    /// present.
    #[must_use]
    pub fn asserts_device(mut self, parameter: Name) -> Routes {
        self.asserted_device = Some(parameter);
        self
    }

    /// Answer with the unstable form of this error code where a request asks for unstable names.
    #[must_use]
    pub fn error(mut self, code: Name) -> Routes {
        self.errors.push(code);
        self
    }

    /// Count the endpoint that was added last as reading, whatever its method.
    #[must_use]
    pub fn reads(self) -> Routes {
        self.terms(|terms| terms.cost = Cost::Read)
    }

    /// Set the largest body, in bytes, of the endpoint that was added last.
    #[must_use]
    pub fn takes(self, bytes: usize) -> Routes {
        self.terms(|terms| terms.body = bytes)
    }

    /// Accept an absent body for the endpoint that was added last, as `{}`.
    #[must_use]
    pub fn empty(self) -> Routes {
        self.terms(|terms| terms.empty = true)
    }

    /// Accept U+0000 in the body of the endpoint that was added last, because its content is stored as JSON text. Parts that are
    /// decoded into a column are checked where that happens.
    #[must_use]
    pub fn content(self) -> Routes {
        self.terms(|terms| terms.content = true)
    }

    /// Restrict the endpoint that was added last to programs and to pages of the server's own origin.
    #[must_use]
    pub fn own_origin(self) -> Routes {
        self.terms(|terms| terms.own_origin = true)
    }

    /// Do not wait for the endpoint that was added last before the state that requests reach is replaced: it replaces it, or waits
    /// until it is replaced.
    #[must_use]
    pub(crate) fn replaces(self) -> Routes {
        self.terms(|terms| terms.replaces = true)
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
        let paths: Vec<&str> = R::PATH_BUILDER.all_paths().collect();
        let endpoint = Rc::from(paths.first().copied().unwrap_or_default());
        for path in paths {
            let route = (&endpoint, auth, &route);
            self.insert(path, method, false, route);
            // `matchit` does not match an empty last segment, so the empty state key needs paths of its own.
            if let Some(base) = path.strip_suffix("/{state_key}") {
                self.insert(base, method, true, route);
                self.insert(&format!("{base}/"), method, true, route);
            }
        }
        self
    }

    fn insert(
        &mut self,
        path: &str,
        method: &'static str,
        ends_empty: bool,
        (endpoint, auth, handler): (&Rc<str>, Auth, &Handler),
    ) {
        let route = Route {
            endpoint: Rc::clone(endpoint),
            ends_empty,
            auth,
            terms: Terms::of(method),
            handler: Rc::clone(handler),
        };
        let twice = self
            .all
            .entry(path.to_owned())
            .or_default()
            .insert(method, route);
        self.last.push((path.to_owned(), method));
        assert!(twice.is_none(), "{method} {path} is registered twice");
    }

    /// All endpoints in order: method, path and required token.
    pub fn list(&self) -> impl Iterator<Item = (&str, &str, Auth)> {
        self.all.iter().flat_map(|(path, methods)| {
            let one = move |(method, route): (&&'static str, &Route)| {
                (*method, path.as_str(), route.auth)
            };
            methods.iter().map(one)
        })
    }
}
