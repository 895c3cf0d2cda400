//! An address of its own for operators: metrics and health, without tokens, limits and CORS.

use std::net::TcpListener;
use std::sync::Arc;

use actix_web::dev::ServerHandle;
use actix_web::{App as HttpApp, HttpRequest, HttpResponse, HttpServer, web};

use super::{HEALTH, LIVE, METRICS, live, ready, scrape};
use crate::http::current::Current;
use crate::http::limits::Limits;

/// The path that Prometheus scrapes unless it is configured otherwise.
const USUAL: &str = "/metrics";

/// Serve metrics and health on this listener.
///
/// # Errors
/// The listener cannot be used.
pub(crate) fn start(
    listener: TcpListener,
    current: Current,
    limits: Arc<Limits>,
) -> std::io::Result<ServerHandle> {
    let server = HttpServer::new(move || {
        let (current, limits) = (current.clone(), Arc::clone(&limits));
        HttpApp::new().default_service(web::to(move |http: HttpRequest| {
            let (current, limits) = (current.clone(), Arc::clone(&limits));
            async move { answer(&http, &current, &limits).await }
        }))
    })
    .workers(1)
    .max_connections(64)
    .disable_signals();
    let server = server.listen(listener)?.run();
    let handle = server.handle();
    actix_rt::spawn(server);
    Ok(handle)
}

async fn answer(http: &HttpRequest, current: &Current, limits: &Limits) -> HttpResponse {
    match http.path() {
        LIVE => live(),
        HEALTH => ready(current.get().await.app()).await,
        METRICS | USUAL => match scrape::answer(current.get().await.app(), limits).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%error, "metrics cannot be read");
                HttpResponse::ServiceUnavailable().finish()
            }
        },
        _ => HttpResponse::NotFound().finish(),
    }
}
