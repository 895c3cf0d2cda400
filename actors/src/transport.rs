//! HTTP requests to appservices. No other file uses the HTTP client.

use std::error::Error as _;
use std::future::pending;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;

use crate::legacy_paths::{self, LegacyPaths};
use crate::runtime::request_faults::{RequestFault, RequestFaults};
use crate::services::{Registration, Service};
use crate::{Clock, Refusal, Result};

/// How long an appservice may take to answer a transaction.
const TRANSACTION: Duration = Duration::from_secs(60);

/// How long an appservice may take to answer a ping: shorter than the time-out of a request to an actor, and than that of a
/// typical client.
const PING: Duration = Duration::from_secs(20);

/// The time-out for establishing a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// How many bytes of the answer to a transaction are read: enough to show an error.
const EXCERPT: usize = 1_000;

/// The largest answer to a query, in bytes. The server holds it in memory while a client waits.
const ANSWER: usize = 1 << 20;

/// The HTTP client, shared by all requests to appservices. It is built on first use, because loading the TLS root certificates
/// takes longer than starting the server.
#[derive(Clone, Default)]
pub struct Transport {
    plain: Arc<OnceLock<Client>>,
    tls: Arc<OnceLock<Client>>,
    legacy: Arc<LegacyPaths>,
    faults: RequestFaults,
}

/// The answer of an appservice.
#[derive(Debug)]
pub struct ServiceResponse {
    /// The HTTP status.
    pub status: u16,
    /// The body, or its first bytes.
    pub body: String,
    /// The body as JSON, where hooks read it.
    pub(crate) json: Option<Value>,
    /// The older path, without the token, if the request was sent to it.
    pub(crate) legacy: Option<String>,
}

impl Transport {
    /// A transport whose requests can have these faults.
    pub(crate) fn with_faults(faults: RequestFaults) -> Transport {
        Transport {
            faults,
            ..Transport::default()
        }
    }

    fn client(&self, url: &str) -> Result<&Client> {
        let secure = !url.starts_with("http://");
        let cell = if secure { &self.tls } else { &self.plain };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        // An error means that a provider is installed already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = Client::builder()
            .no_proxy()
            .http1_only()
            .connect_timeout(CONNECT)
            // A redirect would send the token to another place.
            .redirect(reqwest::redirect::Policy::none());
        // Without TLS the system's certificates are not needed.
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

    /// Send a frozen transaction, byte for byte. ([spec]) Clause: as.txn.put
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#put_matrixappv1transactionstxnid
    pub(crate) async fn transaction(
        &self,
        service: &Service,
        txn_id: i64,
        body: Bytes,
        clock: &Clock,
        answer_bytes: usize,
    ) -> Result<ServiceResponse> {
        let path = format!("/_matrix/app/v1/transactions/{txn_id}");
        let attempt = |path: String| {
            let request = self.request(service, Method::PUT, &path);
            let request = request.map(|request| with_json(request, body.clone()));
            let too_late = clock.sleep(TRANSACTION);
            async move { status_and_excerpt(request?, too_late, answer_bytes).await }
        };
        let send = self.under_either_path(service, clock, &path, attempt);
        let whole = (Method::PUT, path.as_str(), Some(&body));
        self.unless_faulty(service, whole, clock, Some(TRANSACTION), send)
            .await
    }

    /// Ping the appservice. ([spec]) Clause: as.ping.timeout
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#post_matrixappv1ping
    pub(crate) async fn ping(
        &self,
        service: &Service,
        body: Bytes,
        clock: &Clock,
    ) -> Result<ServiceResponse> {
        let path = "/_matrix/app/v1/ping";
        let request = self.request(service, Method::POST, path)?;
        let request = with_json(request, body.clone());
        let send = async { status_and_excerpt(request, clock.sleep(PING), 0).await };
        let whole = (Method::POST, path, Some(&body));
        self.unless_faulty(service, whole, clock, Some(PING), send)
            .await
    }

    /// Send a request outside transactions, `POST` with a body or `GET` without, and read the whole answer. The caller sets the
    /// time-out with the clock; dropping the future ends the request.
    pub(crate) async fn question(
        &self,
        service: &Service,
        path: &str,
        body: Option<Bytes>,
        clock: &Clock,
    ) -> Result<ServiceResponse> {
        let attempt = |path: String| {
            let request = match &body {
                Some(body) => self
                    .request(service, Method::POST, &path)
                    .map(|request| with_json(request, body.clone())),
                None => self.request(service, Method::GET, &path),
            };
            async move { whole_answer(request?).await }
        };
        let send = self.under_either_path(service, clock, path, attempt);
        let method = body.as_ref().map_or(Method::GET, |_| Method::POST);
        self.unless_faulty(service, (method, path, body.as_ref()), clock, None, send)
            .await
    }

    /// Send a request, unless a fault is injected into it. `limit` is the time-out, if `send` has one.
    async fn unless_faulty(
        &self,
        service: &Service,
        (method, path, body): (Method, &str, Option<&Bytes>),
        clock: &Clock,
        limit: Option<Duration>,
        send: impl Future<Output = Result<ServiceResponse>>,
    ) -> Result<ServiceResponse> {
        let Some(fault) = self.faults.next(&service.id, path) else {
            return send.await;
        };
        let failed = |why: &str| Err(Refusal::ConnectionFailed(format!("{why} (injected)")).into());
        match fault {
            RequestFault::Refuse => failed("connection refused"),
            RequestFault::DelayMs(ms) => {
                let delay = Duration::from_millis(ms);
                if let Some(limit) = limit.filter(|limit| *limit <= delay) {
                    clock.sleep(limit).await;
                    return Err(Refusal::ConnectionTimeout.into());
                }
                clock.sleep(delay).await;
                send.await
            }
            RequestFault::Status(status) => Ok(ServiceResponse {
                status,
                body: "{}".to_owned(),
                json: None,
                legacy: None,
            }),
            RequestFault::CutBefore => {
                let url = service.registration.endpoint(path);
                let token = &service.registration.hs_token;
                half(&url.ok_or(Refusal::UrlNotSet)?, method, token, body).await;
                failed("connection cut during the request")
            }
            RequestFault::CutAfter => {
                send.await?;
                failed("connection cut before the answer")
            }
        }
    }

    // ANCHOR: under_either_path
    /// Try the present path, and the older path if the appservice does not know the present one. The path that worked is
    /// remembered for a while and tried first. Clause: as.legacy.fallback
    async fn under_either_path<A: Future<Output = Result<ServiceResponse>>>(
        &self,
        service: &Service,
        clock: &Clock,
        path: &str,
        attempt: impl Fn(String) -> A,
    ) -> Result<ServiceResponse> {
        let Some((endpoint, older)) = legacy_paths::older(path) else {
            return attempt(path.to_owned()).await;
        };
        let under = async |is_older: bool| {
            let path = if is_older {
                legacy_paths::with_token(&older, &service.registration.hs_token)
            } else {
                path.to_owned()
            };
            let mut answer = attempt(path).await?;
            answer.legacy = is_older.then(|| older.clone());
            Ok::<_, crate::Error>(answer)
        };
        let is_unknown =
            |answer: &ServiceResponse| legacy_paths::is_unknown(answer.status, &answer.body);
        let older_first = self
            .legacy
            .is_first(&service.id, endpoint, clock.monotonic());
        let answer = under(older_first).await?;
        if !is_unknown(&answer) {
            return Ok(answer);
        }
        match under(!older_first).await {
            Ok(other) if !is_unknown(&other) => {
                if older_first {
                    self.legacy.forget(&service.id, endpoint);
                } else {
                    tracing::info!(service = %service.id, endpoint, "the application service only knows the older path");
                    self.legacy
                        .remember(&service.id, endpoint, clock.monotonic());
                }
                Ok(other)
            }
            // It knows neither path: return the first answer.
            Ok(_) | Err(_) => {
                self.legacy.forget(&service.id, endpoint);
                Ok(answer)
            }
        }
    }
    // ANCHOR_END: under_either_path

    /// Send a request with any token and any body, to examine an appservice.
    ///
    /// # Errors
    /// [`Refusal::UrlNotSet`], [`Refusal::ConnectionFailed`], [`Refusal::ConnectionTimeout`].
    pub async fn probe(
        &self,
        registration: &Registration,
        token: &str,
        (method, path): (&str, &str),
        body: Bytes,
        timeout: Duration,
    ) -> Result<ServiceResponse> {
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|e| Refusal::ConnectionFailed(e.to_string()))?;
        let url = registration.endpoint(path).ok_or(Refusal::UrlNotSet)?;
        let request = self.client(&url)?.request(method, url).bearer_auth(token);
        status_and_excerpt(with_json(request, body).timeout(timeout), pending(), 0).await
    }

    /// Clause: as.txn.token
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

/// Send a part of a request, and close the connection. Nothing is sent if the appservice cannot be reached, or only with TLS.
async fn half(url: &str, method: Method, token: &str, body: Option<&Bytes>) {
    let Ok(url) = reqwest::Url::parse(url) else {
        return;
    };
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return;
    };
    if url.scheme() != "http" {
        return;
    }
    let Ok(stream) = tokio::net::TcpStream::connect((host, port)).await else {
        return;
    };
    let path = url.path();
    let mut part = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {token}\r\n"
    )
    .into_bytes();
    if let Some(body) = body {
        let length = body.len();
        let head = format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n");
        part.extend(head.into_bytes());
        part.extend(&body[..length / 2]);
    }
    // What does not fit into the system's buffer is left out: it is a part in any case.
    if stream.writable().await.is_ok() {
        let _ = stream.try_write(&part);
    }
}

/// Send the request. The status decides; the body only explains a failure, and reading it allows the connection to be reused. If
/// `answer_bytes` is not 0, a body of at most as many bytes is also parsed as JSON.
async fn status_and_excerpt(
    request: RequestBuilder,
    too_late: impl Future<Output = ()>,
    answer_bytes: usize,
) -> Result<ServiceResponse> {
    let mut too_late = std::pin::pin!(too_late);
    let mut response = tokio::select! {
        biased;
        response = request.send() => response.map_err(refusal)?,
        () = &mut too_late => return Err(Refusal::ConnectionTimeout.into()),
    };
    let status = response.status().as_u16();
    let (mut body, whole) = tokio::select! {
        biased;
        read = read(&mut response, EXCERPT.max(answer_bytes)) => read,
        () = &mut too_late => (String::new(), false),
    };
    let is_read = whole && body.len() <= answer_bytes;
    let json = is_read.then(|| serde_json::from_str(&body).ok()).flatten();
    body.truncate(body.floor_char_boundary(EXCERPT));
    Ok(ServiceResponse {
        status,
        body,
        json,
        legacy: None,
    })
}

/// Send the request and read the whole answer.
async fn whole_answer(request: RequestBuilder) -> Result<ServiceResponse> {
    let mut response = request.send().await.map_err(refusal)?;
    let (body, whole) = read(&mut response, ANSWER).await;
    if !whole {
        return Err(
            Refusal::ConnectionFailed("the answer is incomplete or too long".into()).into(),
        );
    }
    Ok(ServiceResponse {
        status: response.status().as_u16(),
        body,
        json: None,
        legacy: None,
    })
}

fn with_json(request: RequestBuilder, body: Bytes) -> RequestBuilder {
    request
        .header("content-type", "application/json")
        .body(body)
}

/// The body up to `limit` bytes, and whether that is all of it.
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
    // The innermost cause is the most useful one: "connection refused", "no such host".
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let cause = cause.to_string();
    debug_assert!(error.source().is_some() || !cause.is_empty());
    Refusal::ConnectionFailed(cause)
}
