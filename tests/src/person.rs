//! A client of the server: a user with an access token, or an appservice.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

use crate::bridge::pause;
use crate::transcript::Log;

/// The longest time for a request, long-polls included.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer of the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; `null` if it is not JSON.
    pub body: Value,
}

impl Answer {
    /// The body of an answer that must be a success.
    ///
    /// # Panics
    /// If it is not a success.
    pub fn ok(self) -> Value {
        assert!(
            (200..300).contains(&self.status),
            "expected success, got {self:?}"
        );
        self.body
    }

    /// Asserts that the request was refused with this status and `errcode`.
    pub fn is_refused(&self, status: u16, errcode: &str) {
        assert_eq!(
            (self.status, self.body["errcode"].as_str()),
            (status, Some(errcode)),
            "{self:?}"
        );
    }
}

/// A client of the server.
#[derive(Clone)]
pub struct Person {
    /// The name in the transcript: `alice/LAPTOP`.
    pub name: String,
    /// The user id.
    pub user_id: String,
    /// The device id, if the client has a device.
    pub device_id: Option<String>,
    token: String,
    /// Added to every query: the parameters with which an appservice says for which user it makes a request.
    query: Vec<(String, String)>,
    base: String,
    http: Client,
    log: Log,
}

impl Person {
    /// A client whose requests are recorded in `log`.
    #[must_use]
    pub fn new(
        name: &str,
        user_id: &str,
        device_id: Option<&str>,
        token: &str,
        base: &str,
        log: Log,
    ) -> Person {
        Person {
            name: name.to_owned(),
            user_id: user_id.to_owned(),
            device_id: device_id.map(ToOwned::to_owned),
            token: token.to_owned(),
            query: Vec::new(),
            base: base.to_owned(),
            http: client(),
            log,
        }
    }

    /// A client without a [`Stage`](crate::Stage), whose requests are not recorded.
    #[must_use]
    pub fn at(base: &str, user_id: &str, device_id: Option<&str>, token: &str) -> Person {
        Person::new(user_id, user_id, device_id, token, base, Log::default())
    }

    /// A client of another user at the same address, whose requests are recorded in the same log.
    #[must_use]
    pub fn another(
        &self,
        name: &str,
        user_id: &str,
        device_id: Option<&str>,
        token: &str,
    ) -> Person {
        Person {
            name: name.to_owned(),
            user_id: user_id.to_owned(),
            device_id: device_id.map(ToOwned::to_owned),
            token: token.to_owned(),
            query: Vec::new(),
            ..self.clone()
        }
    }

    /// The access token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The same appservice, making requests for one of its users, on a device if one is given.
    #[must_use]
    pub fn playing(&self, user_id: &str, device_id: Option<&str>) -> Person {
        let mut other = self.clone();
        let local = user_id
            .trim_start_matches('@')
            .split(':')
            .next()
            .unwrap_or_default();
        let service = self.name.split(" as ").next().unwrap_or_default();
        other.name = device_id.map_or_else(
            || format!("{service} as {local}"),
            |d| format!("{service} as {local}/{d}"),
        );
        other.user_id = user_id.to_owned();
        other.device_id = device_id.map(ToOwned::to_owned);
        other.query = vec![("user_id".to_owned(), user_id.to_owned())];
        other
            .query
            .extend(device_id.map(|d| ("device_id".to_owned(), d.to_owned())));
        other
    }

    /// The same client at another address, with new connections. Also needed if another process now listens at the same address.
    #[must_use]
    pub fn moved_to(&self, base: &str) -> Person {
        Person {
            base: base.to_owned(),
            http: client(),
            ..self.clone()
        }
    }

    /// The same client, whose requests are not recorded.
    #[must_use]
    pub fn aside(&self) -> Person {
        Person {
            log: Log::default(),
            ..self.clone()
        }
    }

    /// The same client without an access token.
    #[must_use]
    pub fn anonymous(&self) -> Person {
        let mut other = self.clone();
        other.token.clear();
        other
    }

    /// Makes a request. `path` is below `/_matrix/client/v3`, unless it begins with `/_`.
    ///
    /// # Panics
    /// If no answer comes.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_ask(method, path, body)
            .await
            .expect("the server answers")
    }

    /// Makes a request to a server that may have stopped.
    ///
    /// # Errors
    /// If no answer comes, or only part of one. The server may have processed the request.
    pub async fn try_ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> reqwest::Result<Answer> {
        let whole = whole(path);
        let method_name = Method::from_bytes(method.as_bytes()).expect("an HTTP method");
        let mut url = format!("{}{whole}", self.base);
        for (name, value) in &self.query {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&format!("{name}={}", segment(value)));
        }
        let mut request = self.http.request(method_name, url);
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let entry = self.log.asks(&self.name, method, path, body);
        let answer = send(request).await?;
        self.log
            .answered(entry, answer.status, &answer.body.to_string());
        Ok(answer)
    }

    /// Repeats a `PUT` with the same path and body until the server has accepted it, also if the server is restarted in between.
    ///
    /// # Panics
    /// If no server accepts it within a minute.
    pub async fn put_until_taken(&self, path: &str, body: &Value) -> Value {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "no server accepts PUT {path}");
            match self.try_ask("PUT", path, Some(body)).await {
                Ok(answer) if answer.status < 500 => return answer.ok(),
                Ok(_) | Err(_) => pause().await,
            }
        }
    }

    /// The body of an answer, byte for byte. The request is not recorded.
    ///
    /// # Panics
    /// If no answer comes.
    pub async fn text(&self, path: &str) -> String {
        let url = format!("{}{}", self.base, whole(path));
        let asked = self.http.get(url).bearer_auth(&self.token).send();
        let answer = asked.await.expect("the server answers");
        answer.text().await.expect("a whole answer")
    }

    /// Makes a request with this body, byte for byte. The request is not recorded.
    pub async fn raw(&self, method: &str, path: &str, body: Vec<u8>) -> Answer {
        let whole = whole(path);
        let method = Method::from_bytes(method.as_bytes()).expect("an HTTP method");
        let mut request = self
            .http
            .request(method, format!("{}{whole}", self.base))
            .body(body);
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        send(request).await.expect("the server answers")
    }

    /// Makes a `GET` request.
    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None).await
    }

    /// Makes a `PUT` request.
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask("PUT", path, Some(body)).await
    }

    /// Makes a `POST` request.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, Some(body)).await
    }

    /// Makes a `DELETE` request.
    pub async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, None).await
    }
}

/// An HTTP client that keeps its connections and uses no proxy.
#[must_use]
pub fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .http1_only()
        .tls_certs_only([])
        .build()
        .expect("an HTTP client")
}

async fn send(request: RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    let text = response.text().await?;
    Ok(Answer {
        status,
        body: serde_json::from_str(&text).unwrap_or(Value::Null),
    })
}

/// The full path of a path that may be relative to `/_matrix/client/v3`.
pub(crate) fn whole(path: &str) -> String {
    if path.starts_with("/_") {
        path.to_owned()
    } else {
        format!("/_matrix/client/v3{path}")
    }
}

/// Percent-encodes a segment of a path.
#[must_use]
pub fn segment(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}
