//! The HTTP requests to application services: the one place that knows the client.

use std::error::Error as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, Method};
use schema::interests::Service;

use crate::{Refusal, Result};

/// How long a service may take to answer a transaction.
const TRANSACTION: Duration = Duration::from_secs(60);

/// How long a service may take to answer a ping.
const PING: Duration = Duration::from_secs(30);

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// How much of an answer is read: enough to say what was wrong.
const ANSWER: usize = 1_000;

/// The HTTP client, shared by all senders and built on first use: loading the roots of TLS takes longer than the server's start.
#[derive(Clone, Default)]
pub struct Transport {
    plain: Arc<OnceLock<Client>>,
    tls: Arc<OnceLock<Client>>,
}

/// What a service answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
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
    pub(super) async fn transaction(
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
    pub(super) async fn ping(&self, service: &Service, body: Bytes) -> Result<Answer> {
        self.send(service, Method::POST, "/_matrix/app/v1/ping", body, PING)
            .await
    }

    async fn send(
        &self,
        service: &Service,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Answer> {
        let url = service
            .registration
            .endpoint(path)
            .ok_or(Refusal::UrlNotSet)?;
        let request = self
            .client(&url)?
            .request(method, url)
            .bearer_auth(&service.registration.hs_token)
            .header("content-type", "application/json")
            .timeout(patience)
            .body(body);
        let mut response = request.send().await.map_err(refusal)?;
        let status = response.status().as_u16();
        let mut text = Vec::new();
        // The status decides; the body is for whoever looks for the reason, and reading it keeps the connection.
        while text.len() < ANSWER {
            match response.chunk().await {
                Ok(Some(part)) => text.extend_from_slice(&part),
                Ok(None) | Err(_) => break,
            }
        }
        text.truncate(ANSWER);
        Ok(Answer {
            status,
            body: String::from_utf8_lossy(&text).into_owned(),
        })
    }
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
