//! The checks before a request reaches an actor: origin, confirmation, body, rate limits.

mod bodies;
mod confirming;
mod json;
mod limits;
mod origins;

use reqwest::header::HeaderMap;
use serde_json::Value;
use tests::person::client;
use tests::{Answer, Stage};

/// Send a request with these headers and without a token. Returns the answer and its headers.
async fn ask(
    stage: &Stage,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> (Answer, HeaderMap) {
    let method = method.parse().expect("an HTTP method");
    let mut request = client().request(method, format!("{}{path}", stage.base()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.body(body.to_string());
    }
    let response = request.send().await.expect("the server answers");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.expect("a whole answer");
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    (Answer { status, body }, headers)
}
