//! All routes in one tree, and what happens to a request whatever its route: who asks, how often, what a panic is.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use actix_web::web::Bytes;
use actix_web::{HttpRequest, HttpResponse};
use actors::trace;
use futures_util::FutureExt;

use super::translate::{cors, decode, names_nul, query};
use super::{Handler, Incoming};
use crate::app::App;
use crate::caller::{Auth, Caller, dialect};
use crate::error::{Error, Result};

pub(super) type Found = (Rc<str>, BTreeMap<&'static str, (Auth, Handler)>);

/// All routes in one tree.
#[derive(Clone)]
pub struct Router(pub(super) Rc<matchit::Router<Found>>);

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

pub(super) async fn caller(app: &App, auth: Auth, incoming: &Incoming) -> Result<Caller> {
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
