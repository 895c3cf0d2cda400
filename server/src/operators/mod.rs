//! What operators look at: whether the server works, and metrics. Both are on the address `metrics` of the configuration too, where no
//! limit applies.

pub(crate) mod listen;
mod scrape;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use crate::http::caller::{Auth, Caller};
use crate::http::error::Result;
use crate::http::incoming::Raw;
use crate::http::registry::Routes;
use crate::state::App;

/// Whether the process answers and can do its work.
const HEALTH: &str = "/_understudy/health";

/// Whether the process answers.
const LIVE: &str = "/_understudy/health/live";

/// The metrics.
const METRICS: &str = "/_understudy/metrics";

/// The routes of every server.
pub(crate) fn routes(routes: Routes) -> Routes {
    routes.raw_http("GET", HEALTH, Auth::None, health).raw_http(
        "GET",
        LIVE,
        Auth::None,
        |_, _, _, _| async { Ok(live()) },
    )
}

/// The routes that only a development server has besides. Any other serves metrics on an address of its own.
pub(crate) fn dev_routes(routes: Routes) -> Routes {
    routes
        .raw_http("GET", METRICS, Auth::None, metrics)
        .own_origin()
}

/// `GET /_understudy/health`: 200 if the server can do its work, else 503 with the reason. It needs no token.
async fn health(app: App, _: Caller, _: HttpRequest, _: Raw) -> Result<HttpResponse> {
    Ok(ready(&app).await)
}

/// `GET /_understudy/metrics`
async fn metrics(app: App, caller: Caller, _: HttpRequest, _: Raw) -> Result<HttpResponse> {
    Ok(scrape::answer(&app, caller.limits()).await?)
}

fn live() -> HttpResponse {
    json_answer(StatusCode::OK, &json!({"live": true}))
}

async fn ready(app: &App) -> HttpResponse {
    match app.actors.check_health().await {
        Ok(()) => json_answer(StatusCode::OK, &json!({"live": true, "ready": true})),
        Err(reason) => {
            let answer = json!({"live": true, "ready": false, "reason": reason});
            json_answer(StatusCode::SERVICE_UNAVAILABLE, &answer)
        }
    }
}

fn json_answer(status: StatusCode, answer: &Value) -> HttpResponse {
    HttpResponse::build(status)
        .content_type("application/json")
        .body(answer.to_string())
}
