//! The routes of a development server, under `/_understudy/`. They need no token, and answer only programs and pages of the
//! server's own origin.

mod database;
mod doctor;
mod explain;
mod fate;
mod faults;
mod live;
mod page;
mod services;

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
use services::service_of;

/// The routes of a development server.
pub(crate) fn routes(routes: Routes) -> Routes {
    let looks = routes
        .raw("GET", "/_understudy/messages", Auth::None, messages)
        .own_origin()
        .raw_http("GET", "/_understudy/live", Auth::None, live::live)
        .own_origin()
        .raw("GET", "/_understudy/transactions", Auth::None, transactions)
        .own_origin()
        .raw("GET", "/_understudy/appservices", Auth::None, status)
        .own_origin()
        .raw("GET", "/_understudy/explain", Auth::None, explain::explain)
        .own_origin();
    let service = |rest| format!("/_understudy/appservices/{{id}}/{rest}");
    let reload_path = "/_understudy/appservices/reload";
    time_and_faults(whole_database(lists(page::routes(looks))))
        .raw("GET", &service("dialects"), Auth::None, dialects)
        .own_origin()
        .raw("POST", &service("retry"), Auth::None, retry)
        .own_origin()
        .raw("POST", &service("resend"), Auth::None, resend)
        .own_origin()
        .raw("POST", &service("ping"), Auth::None, services::ping)
        .own_origin()
        .raw("POST", reload_path, Auth::None, reload)
        .own_origin()
        .raw("POST", "/_understudy/doctor", Auth::None, doctor::doctor)
        .takes(LARGE_BODY)
        .own_origin()
}

/// Routes that show what waits, and how the actors keep up.
fn lists(routes: Routes) -> Routes {
    routes
        .raw(
            "GET",
            "/_understudy/services",
            Auth::None,
            services::services,
        )
        .own_origin()
        .raw("GET", "/_understudy/fate", Auth::None, fate::fate)
        .own_origin()
        .raw("GET", "/_understudy/autopsy", Auth::None, fate::autopsy)
        .own_origin()
        .raw("GET", "/_understudy/inboxes", Auth::None, services::inboxes)
        .own_origin()
        .raw("GET", "/_understudy/tracked", Auth::None, services::tracked)
        .own_origin()
        .raw("GET", "/_understudy/keys", Auth::None, services::keys)
        .own_origin()
        .raw("GET", "/_understudy/actors", Auth::None, services::actors)
        .own_origin()
}

/// Routes that copy and replace a database in memory.
fn whole_database(routes: Routes) -> Routes {
    let (snapshot, reset) = ("/_understudy/snapshot", "/_understudy/reset");
    let restore = "/_understudy/restore";
    routes
        .raw("POST", snapshot, Auth::None, database::snapshot)
        .own_origin()
        .replaces()
        .raw("POST", reset, Auth::None, database::reset)
        .own_origin()
        .replaces()
        .raw("POST", restore, Auth::None, database::restore)
        .own_origin()
        .replaces()
}

/// Routes of the clock, and of faults of requests to appservices.
fn time_and_faults(routes: Routes) -> Routes {
    let clock = |rest| format!("/_understudy/clock{rest}");
    let (faults, clear) = ("/_understudy/faults", "/_understudy/faults/clear");
    routes
        .raw("GET", &clock(""), Auth::None, faults::clock)
        .own_origin()
        .raw("POST", &clock("/freeze"), Auth::None, faults::freeze)
        .own_origin()
        .raw("POST", &clock("/run"), Auth::None, faults::run)
        .own_origin()
        .raw("POST", &clock("/advance"), Auth::None, faults::advance)
        .own_origin()
        .raw("GET", faults, Auth::None, faults::list)
        .own_origin()
        .raw("POST", faults, Auth::None, faults::add)
        .own_origin()
        .raw("POST", clear, Auth::None, faults::clear)
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

/// Send the last acknowledged transaction of an appservice again, with the same id: `{"transaction": 17, "outcome": "200"}`.
async fn resend(app: App, _: Caller, request: Raw) -> Result<Json> {
    let service = service_of(&request);
    answer(&ask(&app.actors.appservices, appservices::Resend { service }).await?)
}

/// End an appservice's back-off.
async fn retry(app: App, _: Caller, request: Raw) -> Result<Json> {
    let service = service_of(&request);
    ask(&app.actors.appservices, appservices::RetryNow { service }).await?;
    answer(&json!({}))
}

/// Which stable and unstable names an active appservice used and was sent since the server started.
async fn dialects(app: App, _: Caller, request: Raw) -> Result<Json> {
    let id = service_of(&request);
    let env = &app.actors.env;
    let interests = env.store.interests();
    let service = interests
        .service(&id)
        .ok_or_else(|| actors::Refusal::NotFound("no such application service".into()))?;
    answer(&env.dialects.of(&service.registration))
}
