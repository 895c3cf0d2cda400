//! The routes of a development server, under `/_understudy/`. They need no token, and answer only programs and pages of the
//! server's own origin.

mod doctor;
mod explain;

use std::time::Duration;

use actors::appservice_sender::SenderStatus;
use actors::appservices::Problem;
use actors::runtime::trace::TracedMessage;
use actors::services::CarriesInterests;
use actors::{appservices, ask};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::http::answer::Json;
use crate::http::caller::{Auth, Caller};
use crate::http::error::Result;
use crate::http::incoming::Raw;
use crate::http::limits::LARGE_BODY;
use crate::http::registry::Routes;
use crate::state::App;

/// The routes of a development server.
pub(crate) fn routes(routes: Routes) -> Routes {
    let looks = routes
        .raw("GET", "/_understudy/messages", Auth::None, messages)
        .own_origin()
        .raw("GET", "/_understudy/transactions", Auth::None, transactions)
        .own_origin()
        .raw("GET", "/_understudy/appservices", Auth::None, status)
        .own_origin()
        .raw("GET", "/_understudy/explain", Auth::None, explain::explain)
        .own_origin();
    let service = |rest| format!("/_understudy/appservices/{{id}}/{rest}");
    let reload_path = "/_understudy/appservices/reload";
    let advance_path = "/_understudy/clock/advance";
    looks
        .raw("GET", &service("dialects"), Auth::None, dialects)
        .own_origin()
        .raw("POST", &service("retry"), Auth::None, retry)
        .own_origin()
        .raw("POST", reload_path, Auth::None, reload)
        .own_origin()
        .raw("POST", advance_path, Auth::None, advance)
        .own_origin()
        .raw("POST", "/_understudy/doctor", Auth::None, doctor::doctor)
        .takes(LARGE_BODY)
        .own_origin()
}

fn answer(value: &impl serde::Serialize) -> Result<Json> {
    Ok(Json(
        serde_json::to_string(value).map_err(actors::Error::from)?,
    ))
}

/// The traced messages between actors after a given number: `GET /_understudy/messages?after=17`.
async fn messages(app: App, _: Caller, request: Raw) -> Result<Json> {
    let after = request
        .param("after")
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    answer(&app.actors.env.trace.after(after))
}

/// All attempts to send transactions to an appservice, with their bytes and outcomes: `GET /_understudy/transactions?service=irc`.
async fn transactions(app: App, _: Caller, request: Raw) -> Result<Json> {
    let wanted = request.param("service");
    let of = |seen: &TracedMessage| {
        wanted.is_none_or(|id| {
            serde_json::from_str(seen.body.get()).is_ok_and(|by: SentBy| by.service == id)
        })
    };
    let all = app.actors.env.trace.after(0).into_iter();
    let attempts: Vec<_> = all
        .filter(|seen| seen.what == "Attempt" && of(seen))
        .map(|seen| seen.body)
        .collect();
    answer(&attempts)
}

/// The appservice of an attempt.
#[derive(Deserialize)]
struct SentBy {
    service: String,
}

/// The status of the sender of each appservice: its frozen transaction, attempts, last error, and the problem with its registration
/// file. Registration files without an active registration follow.
async fn status(app: App, _: Caller, _: Raw) -> Result<Json> {
    let statuses = ask(&app.actors.appservices, appservices::SenderStatuses).await?;
    let problems = ask(&app.actors.appservices, appservices::Problems).await?;
    let shown = statuses.into_iter().map(|status| {
        let its_own = |p: &&Problem| p.kept.iter().any(|id| id.as_str() == status.service);
        let registration = problems.iter().find(its_own).cloned();
        Shown::Sender {
            status,
            registration,
        }
    });
    let unassigned = problems.iter().filter(|p| p.kept.is_empty()).cloned();
    answer(&shown.chain(unassigned.map(Shown::File)).collect::<Vec<_>>())
}

/// An entry of the answer: the status of a sender, or a file with its problem.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown {
    Sender {
        #[serde(flatten)]
        status: SenderStatus,
        #[serde(skip_serializing_if = "Option::is_none")]
        registration: Option<Problem>,
    },
    File(Problem),
}

/// Read the folder of registrations now; answers once its content is active.
async fn reload(app: App, _: Caller, _: Raw) -> Result<Json> {
    answer(&ask(&app.actors.appservices, appservices::Reload).await?)
}

/// End an appservice's back-off.
async fn retry(app: App, _: Caller, request: Raw) -> Result<Json> {
    let service = request
        .path
        .first()
        .map(String::as_str)
        .unwrap_or_default()
        .into();
    ask(&app.actors.appservices, appservices::RetryNow { service }).await?;
    answer(&json!({}))
}

/// Which stable and unstable names an active appservice used and was sent since the server started.
async fn dialects(app: App, _: Caller, request: Raw) -> Result<Json> {
    let id = request.path.first().map_or("", String::as_str).into();
    let env = &app.actors.env;
    let interests = env.store.interests();
    let service = interests
        .service(&id)
        .ok_or_else(|| actors::Refusal::NotFound("no such application service".into()))?;
    answer(&env.dialects.of(&service.registration))
}

#[derive(Deserialize)]
struct Advance {
    ms: u64,
}

/// Advance the clock of a seeded server: `{"ms": 1000}`.
async fn advance(app: App, _: Caller, request: Raw) -> Result<Json> {
    let Advance { ms } = request.json()?;
    let clock = &app.actors.env.clock;
    if !clock.is_manual() {
        return Err(actors::Refusal::Forbidden(
            "this server uses the real clock; start it with --seed to advance time by hand".into(),
        )
        .into());
    }
    clock.advance(Duration::from_millis(ms));
    answer(&json!({"now": clock.now()}))
}
