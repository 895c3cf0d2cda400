//! A person: somebody with a token, or an application service that asks.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

use crate::bridge::pause;
use crate::transcript::Log;

/// No request takes longer than this, long-polls included.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the server answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body; `null` where it is no JSON.
    pub body: Value,
}

impl Answer {
    /// The body of an answer that must be a success.
    ///
    /// # Panics
    /// When it is none.
    pub fn ok(self) -> Value {
        assert!(
            (200..300).contains(&self.status),
            "expected success, got {self:?}"
        );
        self.body
    }

    /// That this was refused with this status and `errcode`.
    pub fn is_refused(&self, status: u16, errcode: &str) {
        assert_eq!(
            (self.status, self.body["errcode"].as_str()),
            (status, Some(errcode)),
            "{self:?}"
        );
    }
}

/// Somebody who asks the server.
#[derive(Clone)]
pub struct Person {
    /// How the transcript calls them: `alice/LAPTOP`.
    pub name: String,
    /// Their user id.
    pub user_id: String,
    /// Their device, if they have one.
    pub device_id: Option<String>,
    token: String,
    /// Added to every query: how a service says whom it plays.
    query: Vec<(String, String)>,
    base: String,
    http: Client,
    log: Log,
}

impl Person {
    /// Somebody whose words are written down in this log.
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

    /// Somebody outside of any stage, whose words are not written down.
    #[must_use]
    pub fn at(base: &str, user_id: &str, device_id: Option<&str>, token: &str) -> Person {
        Person::new(user_id, user_id, device_id, token, base, Log::default())
    }

    /// Somebody else at the same address, whose words are written down in the same log.
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

    /// The token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The same service as one of its users, perhaps on a device.
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

    /// The same, asking at another address, or at the same where another process listens now: on new connections.
    #[must_use]
    pub fn moved_to(&self, base: &str) -> Person {
        Person {
            base: base.to_owned(),
            http: client(),
            ..self.clone()
        }
    }

    /// The same, and what is said stays out of the transcript.
    #[must_use]
    pub fn aside(&self) -> Person {
        Person {
            log: Log::default(),
            ..self.clone()
        }
    }

    /// The same without saying who: no token.
    #[must_use]
    pub fn anonymous(&self) -> Person {
        let mut other = self.clone();
        other.token.clear();
        other
    }

    /// Ask with a path below `/_matrix/client/v3` (or a whole one that begins with `/_`).
    ///
    /// # Panics
    /// When no answer comes.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        self.try_ask(method, path, body)
            .await
            .expect("the server answers")
    }

    /// Ask a server that may be gone.
    ///
    /// # Errors
    /// When no answer comes, or half of one: nobody knows whether the request was heard.
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

    /// Put this until the server has taken it, over any number of its deaths: the same path and body each time, which is what
    /// transaction ids are for.
    ///
    /// # Panics
    /// When no server takes it within a minute.
    pub async fn put_until_taken(&self, path: &str, body: &Value) -> Value {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "nobody takes PUT {path}");
            match self.try_ask("PUT", path, Some(body)).await {
                Ok(answer) if answer.status < 500 => return answer.ok(),
                Ok(_) | Err(_) => pause().await,
            }
        }
    }

    /// The body of an answer, byte for byte; not written down.
    ///
    /// # Panics
    /// When no answer comes.
    pub async fn text(&self, path: &str) -> String {
        let url = format!("{}{}", self.base, whole(path));
        let asked = self.http.get(url).bearer_auth(&self.token).send();
        let answer = asked.await.expect("the server answers");
        answer.text().await.expect("a whole answer")
    }

    /// Send these very bytes; not written down.
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

    /// `GET`
    pub async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None).await
    }

    /// `PUT`
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask("PUT", path, Some(body)).await
    }

    /// `POST`
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, Some(body)).await
    }

    /// `DELETE`
    pub async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, None).await
    }
}

/// A client that keeps its connections and knows no proxy.
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

/// The whole of a path, which may leave out where the client-server API begins.
pub(crate) fn whole(path: &str) -> String {
    if path.starts_with("/_") {
        path.to_owned()
    } else {
        format!("/_matrix/client/v3{path}")
    }
}

/// Percent-encode one segment of a path.
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
