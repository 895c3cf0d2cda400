//! A client of the homeserver: a device of a person, or an appservice acting as one of its users.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::log::Log;
use crate::names::segment;

/// The longest time for a request.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer of the homeserver.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body; `null` if it is not JSON.
    pub body: Value,
    /// The body as text.
    pub text: String,
}

/// How much of an answer that is no JSON is shown, in characters.
const SHOWN: usize = 200;

impl Reply {
    /// Whether it is a 2xx.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The status and the body, as they came.
    #[must_use]
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.status, self.text)
    }

    /// The status and the body, on one line; of a body that is not JSON the beginning.
    #[must_use]
    pub fn shown(&self) -> String {
        if !self.body.is_null() {
            return format!("{} {}", self.status, self.body);
        }
        let words: Vec<&str> = self.text.split_whitespace().collect();
        let (text, status) = (words.join(" "), self.status);
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{status} {}…", &text[..end]),
            None => format!("{status} {text}").trim_end().to_owned(),
        }
    }
}

/// A client of the homeserver.
#[derive(Debug, Clone)]
pub struct Client {
    /// The name in the transcript: `alice/LAPTOP`.
    pub name: String,
    /// The user id.
    pub user: String,
    /// The device id, if the client has a device.
    pub device: Option<String>,
    /// The access token; empty for none.
    pub token: String,
    /// Parameters that are added to every query.
    pub query: Vec<(String, String)>,
    /// The URL of the homeserver.
    pub base: String,
    http: reqwest::Client,
    log: Log,
}

/// An HTTP client that keeps its connections and uses no proxy.
///
/// # Errors
/// If TLS cannot be set up.
pub fn http() -> Result<reqwest::Client, String> {
    // An error means that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .http1_only();
    builder.build().map_err(|e| format!("no HTTP client: {e}"))
}

impl Client {
    /// A client without a token, a user and a device.
    #[must_use]
    pub fn new(name: &str, base: &str, http: reqwest::Client, log: Log) -> Client {
        Client {
            name: name.to_owned(),
            user: String::new(),
            device: None,
            token: String::new(),
            query: Vec::new(),
            base: base.to_owned(),
            http,
            log,
        }
    }

    /// The same client at another address, with new connections.
    #[must_use]
    pub fn moved(&self, base: &str, http: reqwest::Client) -> Client {
        Client {
            base: base.to_owned(),
            http,
            ..self.clone()
        }
    }

    /// Makes a request. `path` is below `/_matrix/client/v3`, unless it begins with `/_`.
    ///
    /// # Errors
    /// If no answer comes.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, String> {
        let (entry, reply) = self.exchange(method, path, body).await?;
        self.log.answered(entry, &reply.line());
        Ok(reply)
    }

    /// Makes a request like [`Client::ask`], and leaves it to the caller to record the answer. Returns the number of the request's
    /// entry in the record too.
    ///
    /// # Errors
    /// If no answer comes.
    pub(crate) async fn exchange(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(usize, Reply), String> {
        let whole = match path.starts_with("/_") {
            true => path.to_owned(),
            false => format!("/_matrix/client/v3{path}"),
        };
        let mut url = format!("{}{whole}", self.base);
        for (name, value) in &self.query {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&format!("{name}={}", segment(value)));
        }
        let method_name = Method::from_bytes(method.as_bytes()).map_err(|e| e.to_string())?;
        let mut request = self.http.request(method_name, url);
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let shown = body.map(ToString::to_string).unwrap_or_default();
        let entry = self
            .log
            .asks(&self.name, format!("{method} {path}"), &shown);
        let failed = |e: reqwest::Error| {
            let mut why: &dyn std::error::Error = &e;
            while let Some(cause) = why.source() {
                why = cause;
            }
            format!("{method} {path}: no answer from {}: {why}", self.base)
        };
        let response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let text = response.text().await.map_err(failed)?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok((entry, Reply { status, body, text }))
    }

    /// Makes a request that must succeed. Returns the body of the answer.
    ///
    /// # Errors
    /// If no answer comes, or no 2xx.
    pub async fn must(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, String> {
        let reply = self.ask(method, path, body).await?;
        match reply.is_ok() {
            true => Ok(reply.body),
            false => Err(format!(
                "{method} {path}\n  expected  200\n  came      {}",
                reply.shown()
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_no_json_is_shown_too() {
        let reply = |text: &str| Reply {
            status: 502,
            body: serde_json::from_str(text).unwrap_or_default(),
            text: text.to_owned(),
        };
        assert_eq!(reply("{\"a\": 1}").shown(), "502 {\"a\":1}");
        assert_eq!(
            reply("<h1>\n  Bad Gateway</h1>\n").shown(),
            "502 <h1> Bad Gateway</h1>"
        );
        assert_eq!(reply("").shown(), "502");
        assert_eq!(
            reply(&"x".repeat(300)).shown(),
            format!("502 {}…", "x".repeat(200))
        );
    }
}
