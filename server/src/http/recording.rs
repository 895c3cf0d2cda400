//! Records the requests of clients, and the answers to them, in the trace of a development server.
//!
//! Passwords, tokens and other secrets show as `…`, in bodies and in queries. A large body is cut. Requests to the development
//! routes themselves are not recorded.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::Arc;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::{HttpRequest, HttpResponse};
use actors::runtime::clock::Stopwatch;
use actors::runtime::trace::{CLIENT, Trace};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::caller::Caller;
use super::incoming::decode;
use crate::state::App;

/// The most bytes of a body that are kept.
const KEPT: usize = 8 << 10;

/// What is shown in the place of a secret.
const HIDDEN: &str = "…";

/// A request of a client that is being recorded.
pub(super) struct Recording {
    trace: Trace,
    cause: Arc<str>,
    http: HttpRequest,
    since: Stopwatch,
    is_recorded: Cell<bool>,
}

/// A request, as the trace has it.
#[derive(Serialize)]
struct Request<'a> {
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Body<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<usize>,
}

/// An answer, as the trace has it.
#[derive(Serialize)]
struct Answer<'a> {
    status: u16,
    micros: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Body<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cut: Option<usize>,
}

/// A body without secrets: JSON, or the beginning of a text.
#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Same(&'a RawValue),
    Changed(Value),
    Text(Cow<'a, str>),
}

impl Recording {
    /// Begin to record a request; `None` if it is not recorded.
    pub(super) fn of(app: &App, cause: &Arc<str>, http: &HttpRequest) -> Option<Recording> {
        let trace = &app.actors.env.trace;
        let is_recorded = app.is_dev() && trace.is_on() && !http.path().starts_with("/_understudy");
        is_recorded.then(|| Recording {
            trace: trace.clone(),
            cause: Arc::clone(cause),
            http: http.clone(),
            since: Stopwatch::start(),
            is_recorded: Cell::new(false),
        })
    }

    /// The request.
    pub(super) fn http(&self) -> &HttpRequest {
        &self.http
    }

    /// Record the request, once its caller is known and its body has arrived.
    pub(super) fn request(&self, caller: &Caller, body: &[u8]) {
        self.record_request(Some(caller), body);
    }

    fn record_request(&self, caller: Option<&Caller>, body: &[u8]) {
        self.is_recorded.set(true);
        let identity = caller.and_then(|caller| caller.identity().ok());
        let service = caller.and_then(Caller::appservice);
        let query = self.http.query_string();
        let (body, cut) = shown(body);
        let request = Request {
            method: self.http.method().as_str(),
            path: self.http.uri().path(),
            query: (!query.is_empty()).then(|| without_secrets(query)),
            user: identity.map(|identity| identity.user.as_str()),
            device: identity.and_then(|identity| Some(identity.device.as_ref()?.as_str())),
            service: service.map(|service| service.id.as_str()),
            body,
            cut,
        };
        let cause = Arc::clone(&self.cause);
        self.trace
            .record(cause, CLIENT, "http", "Request", &request);
    }

    /// Record the answer, and a request that was refused before its body was read. A streamed answer is recorded without its body.
    pub(super) fn answer(self, response: HttpResponse) -> HttpResponse {
        if !self.is_recorded.get() {
            self.record_request(None, b"");
        }
        let (head, body) = response.into_parts();
        let (bytes, body) = match body.try_into_bytes() {
            Ok(bytes) => (bytes.clone(), BoxBody::new(bytes)),
            Err(stream) => (Default::default(), stream),
        };
        let (shown, cut) = shown(&bytes);
        let answer = Answer {
            status: head.status().as_u16(),
            micros: self.since.micros(),
            body: shown,
            cut,
        };
        self.trace
            .record(self.cause, "http", CLIENT, "Answer", &answer);
        head.set_body(body)
    }
}

/// A body as it is kept, and its length if it is cut.
fn shown(bytes: &[u8]) -> (Option<Body<'_>>, Option<usize>) {
    if bytes.is_empty() {
        return (None, None);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return (None, Some(bytes.len()));
    };
    let is_large = text.len() > KEPT;
    if !can_name_secret(if is_large { beginning(text) } else { text }) {
        return match serde_json::from_str(text) {
            _ if is_large => (Some(Body::Text(beginning(text).into())), Some(text.len())),
            Ok(json) => (Some(Body::Same(json)), None),
            Err(_) => (Some(Body::Text(text.into())), None),
        };
    }
    match serde_json::from_str(text) {
        Ok(mut json) => {
            hide(&mut json);
            if is_large {
                let text = json.to_string();
                let kept = beginning(&text).to_owned();
                return (Some(Body::Text(kept.into())), Some(bytes.len()));
            }
            (Some(Body::Changed(json)), None)
        }
        // What cannot be read cannot be searched for secrets.
        Err(_) => (None, Some(bytes.len())),
    }
}

/// The beginning of a text that is kept.
fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(KEPT)]
}

/// Whether a JSON text may have a key that [`is_secret`] accepts. An escape in a text can hide one.
fn can_name_secret(json: &str) -> bool {
    ["assword\"", "oken\"", "ecret\"", "\\u"]
        .iter()
        .any(|end| json.contains(end))
}

/// Whether the value of this key is a secret.
fn is_secret(key: &str) -> bool {
    ["password", "token", "secret"]
        .iter()
        .any(|end| key.ends_with(end))
}

/// Replaces the secrets in a JSON value.
fn hide(json: &mut Value) {
    match json {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(_) if is_secret(key) => *value = HIDDEN.into(),
                    value => hide(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(hide),
        _ => {}
    }
}

/// A query with its secrets replaced.
fn without_secrets(query: &str) -> String {
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if decode(name).map_or(true, |name| is_secret(&name)) => {
            Cow::Owned(format!("{name}={HIDDEN}"))
        }
        _ => Cow::Borrowed(pair),
    });
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kept(body: &[u8]) -> (Value, Option<usize>) {
        let (body, cut) = shown(body);
        (json!(body), cut)
    }

    #[test]
    fn secrets_are_not_kept() {
        let cases: [(&str, Value); 5] = [
            (r#"{"a": 1}"#, json!({"a": 1})),
            (
                r#"{"auth": [{"password": "p"}], "new_password": "q", "tokens": 1}"#,
                json!({"auth": [{"password": "…"}], "new_password": "…", "tokens": 1}),
            ),
            (
                r#"{"access_t\u006fken": "t"}"#,
                json!({"access_token": "…"}),
            ),
            (r#"{"password": "p""#, Value::Null),
            ("no JSON", json!("no JSON")),
        ];
        for (body, expected) in cases {
            assert_eq!(kept(body.as_bytes()).0, expected, "{body}");
        }
        assert_eq!(
            without_secrets("access%5Ftoken=t&from=a&login_token=b&flag"),
            "access%5Ftoken=…&from=a&login_token=…&flag"
        );
    }

    #[test]
    fn a_large_body_is_cut_and_hides_its_secrets() {
        let long = "é".repeat(KEPT);
        for (body, holds) in [
            (json!({"text": long}), "text"),
            (json!({"password": "hunter2", "text": long}), "password"),
        ] {
            let body = body.to_string();
            let (text, cut) = kept(body.as_bytes());
            let text = text.as_str().expect("a text");
            assert!(text.contains(holds) && !text.contains("hunter2") && text.len() <= KEPT);
            assert_eq!(cut, Some(body.len()));
        }
    }
}
