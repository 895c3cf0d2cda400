//! The HTTP requests to application services: the one place that knows the client.

use std::error::Error as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, Method, RequestBuilder, Response};
use schema::interests::Service;
use schema::registration::Registration;

use crate::{Refusal, Result};

/// How long a service may take to answer a transaction.
const TRANSACTION: Duration = Duration::from_secs(60);

/// How long a service may take to answer a ping.
const PING: Duration = Duration::from_secs(30);

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// How much of the answer to a transaction is read: enough to say what was wrong.
const EXCERPT: usize = 1_000;

/// The longest answer to a question. A client waits for it, and the server holds it in memory.
const ANSWER: usize = 1 << 20;

/// The HTTP client, shared by all who speak to services and built on first use: loading the roots of TLS takes longer than the
/// server's start.
#[derive(Clone, Default)]
pub struct Transport {
    plain: Arc<OnceLock<Client>>,
    tls: Arc<OnceLock<Client>>,
}

/// What a service answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Transport {
    fn client(&self, url: &str) -> Result<&Client> {
        let secure = !url.starts_with("http://");
        let cell = if secure { &self.tls } else { &self.plain };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        // Already installed is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = Client::builder()
            .no_proxy()
            .http1_only()
            .connect_timeout(CONNECT)
            // A redirect would carry the token elsewhere.
            .redirect(reqwest::redirect::Policy::none());
        // Without TLS there is no need to read the system's certificates.
        let builder = if secure {
            builder
        } else {
            builder.tls_certs_only([])
        };
        let client = builder
            .build()
            .map_err(|e| Refusal::ConnectionFailed(e.to_string()))?;
        Ok(cell.get_or_init(|| client))
    }

    /// Send a frozen transaction: exactly these bytes. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#put_matrixappv1transactionstxnid
    pub(crate) async fn transaction(
        &self,
        service: &Service,
        txn_id: i64,
        body: Bytes,
    ) -> Result<Answer> {
        self.send(
            service,
            Method::PUT,
            &format!("/_matrix/app/v1/transactions/{txn_id}"),
            body,
            TRANSACTION,
        )
        .await
    }

    /// Ask whether the service is there. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#post_matrixappv1ping
    pub(crate) async fn ping(&self, service: &Service, body: Bytes) -> Result<Answer> {
        self.send(service, Method::POST, "/_matrix/app/v1/ping", body, PING)
            .await
    }

    /// Ask a service something outside transactions: `POST` with a body, `GET` without. The answer is whole. How long to wait
    /// is the asker's to say, by the Clock: dropping the future ends the request.
    pub(crate) async fn question(
        &self,
        service: &Service,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Answer> {
        let method = if body.is_some() {
            Method::POST
        } else {
            Method::GET
        };
        let mut request = self.request(service, method, path)?;
        if let Some(body) = body {
            request = with_json(request, body);
        }
        let mut response = request.send().await.map_err(refusal)?;
        let (text, whole) = read(&mut response, ANSWER).await;
        if !whole {
            return Err(
                Refusal::ConnectionFailed("the answer is cut off or too long".into()).into(),
            );
        }
        Ok(Answer {
            status: response.status().as_u16(),
            body: text,
        })
    }

    async fn send(
        &self,
        service: &Service,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Answer> {
        let request = with_json(self.request(service, method, path)?, body);
        status_and_excerpt(request.timeout(patience)).await
    }

    /// Ask with any token and any body: for whoever examines a service, not for who serves it.
    pub(crate) async fn probe(
        &self,
        registration: &Registration,
        token: &str,
        (method, path): (&str, &str),
        body: Bytes,
        patience: Duration,
    ) -> Result<Answer> {
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|e| Refusal::ConnectionFailed(e.to_string()))?;
        let url = registration.endpoint(path).ok_or(Refusal::UrlNotSet)?;
        let request = self.client(&url)?.request(method, url).bearer_auth(token);
        status_and_excerpt(with_json(request, body).timeout(patience)).await
    }

    fn request(&self, service: &Service, method: Method, path: &str) -> Result<RequestBuilder> {
        let url = service
            .registration
            .endpoint(path)
            .ok_or(Refusal::UrlNotSet)?;
        Ok(self
            .client(&url)?
            .request(method, url)
            .bearer_auth(&service.registration.hs_token))
    }
}

/// Send it. The status decides; the body is for whoever looks for the reason, and reading it keeps the connection.
async fn status_and_excerpt(request: RequestBuilder) -> Result<Answer> {
    let mut response = request.send().await.map_err(refusal)?;
    let (body, _) = read(&mut response, EXCERPT).await;
    Ok(Answer {
        status: response.status().as_u16(),
        body,
    })
}

fn with_json(request: RequestBuilder, body: Bytes) -> RequestBuilder {
    request
        .header("content-type", "application/json")
        .body(body)
}

/// The body up to this many bytes, and whether that is all of it.
async fn read(response: &mut Response, limit: usize) -> (String, bool) {
    let mut text = Vec::new();
    let whole = loop {
        if text.len() > limit {
            break false;
        }
        match response.chunk().await {
            Ok(Some(part)) => text.extend_from_slice(&part),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    text.truncate(limit);
    (String::from_utf8_lossy(&text).into_owned(), whole)
}

fn refusal(error: reqwest::Error) -> Refusal {
    if error.is_timeout() {
        return Refusal::ConnectionTimeout;
    }
    // The innermost cause is what a person can act on: "connection refused", "no such host".
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let cause = cause.to_string();
    debug_assert!(error.source().is_some() || !cause.is_empty());
    Refusal::ConnectionFailed(cause)
}
