//! Code around an existing endpoint: a proposal reads a request before the endpoint's handler, changes it or answers it itself, and
//! changes the answer.

use std::collections::BTreeMap;
use std::rc::Rc;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use actix_web::web::Bytes;
use actors::runtime::trace;
use futures_util::future::LocalBoxFuture;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::answer::json_error;
use super::caller::Caller;
use super::error::{Error, Result};
use super::incoming::Incoming;
use crate::state::App;

/// A request to an existing endpoint. The caller is authenticated, and the body is a JSON object.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The values of the path's variables, decoded, in order.
    pub path: Vec<String>,
    /// The query's pairs, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The body; `{}` if the request has none.
    pub body: Value,
    /// Values for the hooks of proposals in the writes that the request causes: see [`Part::carried`](actors::hooks::Part::carried).
    pub carried: BTreeMap<String, Value>,
}

impl Seen {
    /// Remove a parameter from the query. Returns its value.
    pub fn take_param(&mut self, name: &str) -> Option<String> {
        let at = self.query.iter().position(|(n, _)| n == name)?;
        Some(self.query.remove(at).1)
    }
}

/// The answer to a request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Value,
    /// The values that hooks in the writes of the request hand back: see [`Part::hand_back`](actors::hooks::Part::hand_back).
    pub handed_back: BTreeMap<String, Value>,
    /// The endpoint's own answer, if this came from it.
    endpoint: Option<Box<EndpointAnswer>>,
}

/// The answer of an endpoint, as it was before code around it.
#[derive(Debug, Clone)]
struct EndpointAnswer {
    headers: HeaderMap,
    bytes: Bytes,
    body: Value,
}

impl Answer {
    /// An answer with this status and body.
    pub fn new(status: u16, body: Value) -> Answer {
        Answer {
            status,
            body,
            handed_back: BTreeMap::new(),
            endpoint: None,
        }
    }

    /// An answer with status 200.
    pub fn ok(body: Value) -> Answer {
        Answer::new(200, body)
    }

    async fn of(response: HttpResponse) -> Result<Answer> {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = actix_web::body::to_bytes(response.into_body()).await;
        let bytes = bytes.map_err(|_| Error::Busy("the answer could not be read"))?;
        let body: Value = serde_json::from_slice(&bytes).map_err(|e| json_error(&e))?;
        let endpoint = EndpointAnswer {
            headers,
            bytes,
            body: body.clone(),
        };
        Ok(Answer {
            endpoint: Some(Box::new(endpoint)),
            ..Answer::new(status, body)
        })
    }

    /// The response: with the headers of the endpoint's own, and with its bytes if the body is unchanged.
    fn into_response(self) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponse::build(status);
        let Some(endpoint) = self.endpoint else {
            let response = response.content_type("application/json");
            return response.body(self.body.to_string());
        };
        let mut response = match endpoint.body == self.body {
            true => response.body(endpoint.bytes),
            false => response.body(self.body.to_string()),
        };
        *response.headers_mut() = endpoint.headers;
        response
    }
}

/// The handler of an endpoint.
pub(super) type Handler =
    Rc<dyn Fn(App, Caller, Incoming) -> LocalBoxFuture<'static, Result<HttpResponse>>>;

/// The rest of the way to the endpoint's handler.
pub struct Next {
    app: App,
    caller: Caller,
    handler: Handler,
    incoming: Incoming,
    seen: Seen,
}

impl Next {
    /// Let the endpoint handle the request. Of the request and of the answer, a body that is not changed keeps its bytes; in one that
    /// is changed, an integer beyond 64 bits becomes a floating-point number.
    ///
    /// # Errors
    /// Those of the endpoint; [`Error::code`] tells them apart.
    pub async fn run(mut self, request: Seen) -> Result<Answer> {
        if request.body != self.seen.body {
            self.incoming.body = Bytes::from(request.body.to_string());
        }
        if request.query != self.seen.query {
            let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            let pairs = request.query.iter();
            let pairs = pairs.map(|(name, value)| format!("{}={}", encode(name), encode(value)));
            self.incoming.changed_query = Some(pairs.collect::<Vec<_>>().join("&"));
            self.incoming.query = request.query;
        }
        self.incoming.path = request.path;
        let exchange = trace::exchange().unwrap_or_default();
        let exchange = exchange.carrying(request.carried);
        let handled = (self.handler)(self.app, self.caller, self.incoming);
        let response = trace::exchanging(exchange.clone(), handled).await?;
        let mut answer = Answer::of(response).await?;
        answer.handed_back = exchange.handed_back();
        Ok(answer)
    }
}

/// Call the code around a handler.
pub(super) async fn call<F, Fut>(
    around: F,
    handler: Handler,
    (app, caller, incoming): (App, Caller, Incoming),
) -> Result<HttpResponse>
where
    F: Fn(App, Caller, Seen, Next) -> Fut,
    Fut: Future<Output = Result<Answer>>,
{
    let body = match incoming.body.is_empty() {
        true => json!({}),
        false => serde_json::from_slice(&incoming.body).map_err(|e| json_error(&e))?,
    };
    let seen = Seen {
        path: incoming.path.clone(),
        query: incoming.query.clone(),
        body,
        carried: BTreeMap::new(),
    };
    let next = Next {
        app: app.clone(),
        caller: caller.clone(),
        handler,
        incoming,
        seen: seen.clone(),
    };
    let answer = around(app, caller, seen, next).await?;
    Ok(answer.into_response())
}

/// A path without its version and without the names of its variables, so that it can be compared: `/profile/{}/displayname`.
pub(super) fn shape(path: &str) -> String {
    let rest = path.strip_prefix("/_matrix/client/").map(|rest| {
        let (version, rest) = rest.split_once('/').unwrap_or((rest, ""));
        match version {
            "versions" => "/versions".to_owned(),
            _ => format!("/{rest}"),
        }
    });
    let path = rest.as_deref().unwrap_or(path);
    let segments = path
        .split('/')
        .map(|segment| match segment.starts_with('{') {
            true => "{}",
            false => segment,
        });
    segments.collect::<Vec<_>>().join("/")
}

/// Whether the shape of an endpoint covers a shape. If so, the variables for which the latter has fixed texts, by number.
pub(super) fn fixed_variables(endpoint: &str, wanted: &str) -> Option<Vec<(usize, String)>> {
    let (endpoint, wanted): (Vec<_>, Vec<_>) =
        (endpoint.split('/').collect(), wanted.split('/').collect());
    let (mut fixed, mut variable) = (Vec::new(), 0);
    if endpoint.len() != wanted.len() {
        return None;
    }
    for (own, wanted) in endpoint.into_iter().zip(wanted) {
        if own != wanted && own != "{}" {
            return None;
        }
        if own != wanted {
            fixed.push((variable, wanted.to_owned()));
        }
        variable += usize::from(own == "{}");
    }
    Some(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_all_versions_have_one_shape() {
        for path in [
            "/_matrix/client/v3/profile/{user_id}/displayname",
            "/_matrix/client/r0/profile/{userId}/displayname",
            "/profile/{user}/displayname",
        ] {
            assert_eq!(shape(path), "/profile/{}/displayname");
        }
        assert_eq!(shape("/_matrix/client/versions"), "/versions");
    }

    #[actix_web::test]
    async fn an_answer_keeps_its_status_and_headers_and_a_body_that_is_not_changed_its_bytes() {
        let text = r#"{"n": 123456789012345678901234567890}"#;
        let own = || {
            let mut created = HttpResponse::Created();
            created.insert_header(("X-Own", "1")).body(text)
        };
        let sent = async |answer: Answer| {
            let response = answer.into_response();
            assert_eq!(response.status(), StatusCode::CREATED);
            assert_eq!(response.headers().get("X-Own").map(|h| h.len()), Some(1));
            let bytes = actix_web::body::to_bytes(response.into_body()).await;
            bytes.expect("a body")
        };
        let mut answer = Answer::of(own()).await.expect("an answer");
        assert_eq!(sent(answer.clone()).await, text);
        answer.body = json!({"n": 1});
        assert_eq!(sent(answer).await, r#"{"n":1}"#);
    }

    #[test]
    fn an_endpoint_with_variables_covers_fixed_segments() {
        let fixed = |endpoint, wanted| fixed_variables(endpoint, wanted);
        let name = vec![(1, "displayname".to_owned())];
        assert_eq!(
            fixed("/profile/{}/{}", "/profile/{}/displayname"),
            Some(name)
        );
        assert_eq!(fixed("/profile/{}/{}", "/profile/{}/{}"), Some(Vec::new()));
        assert_eq!(fixed("/profile/{}", "/profile/{}/{}"), None);
        assert_eq!(fixed("/rooms/{}/state", "/rooms/{}/members"), None);
    }
}
