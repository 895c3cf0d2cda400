//! The appservices as the page shows them, and lists of what waits in the database.

use std::collections::BTreeMap;

use actors::appservice_sender::SenderStatus;
use actors::appservices::{Problem, Problems, SenderStatuses};
use actors::dialects::Dialect;
use actors::inspection::{self, After, Queue};
use actors::runtime::request_faults::ListedFault;
use actors::services::CarriesInterests;
use actors::{Refusal, appservices, ask};
use schema::ServiceId;
use serde::Serialize;
use serde_json::json;

use crate::http::answer::Json;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::incoming::Raw;
use crate::state::App;

/// An appservice.
#[derive(Serialize)]
struct ShownService {
    service: String,
    url: Option<String>,
    /// `idle`, `sending`, `waiting` or `stopped`.
    sender: &'static str,
    next_retry_at: Option<i64>,
    #[serde(flatten)]
    queue: Queue,
    #[serde(skip_serializing_if = "Option::is_none")]
    dialects: Option<Dialect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<Problem>,
    faults: Vec<ListedFault>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<SenderStatus>,
}

/// Every appservice with what it is owed: its sender, frozen transaction, last attempts, next retry, and its ledger:
/// `GET /_understudy/services`.
pub(super) async fn services(app: App, _: Caller, _: Raw) -> Result<Json> {
    let env = &app.actors.env;
    let statuses = ask(&app.actors.appservices, SenderStatuses).await?;
    let problems = ask(&app.actors.appservices, Problems).await?;
    let (mut queues, faults) = (inspection::queues(env).await?, env.request_faults.list());
    let interests = env.store.interests();
    let mut statuses: BTreeMap<String, SenderStatus> = statuses
        .into_iter()
        .map(|status| (status.service.clone(), status))
        .collect();
    let names: std::collections::BTreeSet<String> =
        statuses.keys().chain(queues.keys()).cloned().collect();
    let shown = names.into_iter().map(|service| {
        let (id, status) = (ServiceId::from(service.as_str()), statuses.remove(&service));
        let registration = interests.service(&id).map(|service| &service.registration);
        let concerns =
            |fault: &&ListedFault| fault.rule.service.as_ref().is_none_or(|of| *of == id);
        ShownService {
            url: registration.and_then(|registration| registration.url.clone()),
            sender: status.as_ref().map_or("stopped", sender),
            next_retry_at: status.as_ref().and_then(|status| status.next_attempt_at),
            queue: queues.remove(&service).unwrap_or_else(|| Queue {
                balanced: true,
                ..Queue::default()
            }),
            dialects: registration.map(|registration| env.dialects.of(registration)),
            problem: problems
                .iter()
                .find(|problem| problem.kept.contains(&id))
                .cloned(),
            faults: faults.iter().filter(concerns).cloned().collect(),
            status,
            service,
        }
    });
    Json::write(&shown.collect::<Vec<_>>())
}

/// The state of a sender in one of four words.
fn sender(status: &SenderStatus) -> &'static str {
    match status.state {
        "sending" | "acknowledging" => "sending",
        "waiting" => "waiting",
        "paused" => "stopped",
        _ => "idle",
    }
}

fn after(request: &Raw) -> After {
    request
        .param("after")
        .map_or_else(After::default, After::parse)
}

/// The devices for which to-device messages wait: `GET /_understudy/inboxes?after=@bob:test/DEV`. A page has at most 500 entries,
/// and `next`, the `after` of the next page, if there may be more.
pub(super) async fn inboxes(app: App, _: Caller, request: Raw) -> Result<Json> {
    Json::write(&inspection::inboxes(&app.actors.env, after(&request)).await?)
}

/// The users whose devices each appservice tracks, in pages: `GET /_understudy/tracked?after=irc/@bob:test`.
pub(super) async fn tracked(app: App, _: Caller, request: Raw) -> Result<Json> {
    Json::write(&inspection::tracked(&app.actors.env, after(&request)).await?)
}

/// The devices with keys, in pages: `GET /_understudy/keys?after=@bob:test/DEV`.
pub(super) async fn keys(app: App, _: Caller, request: Raw) -> Result<Json> {
    Json::write(&inspection::keys(&app.actors.env, after(&request)).await?)
}

/// How each actor keeps up: `GET /_understudy/actors`.
pub(super) async fn actors(app: App, _: Caller, _: Raw) -> Result<Json> {
    Json::write(&json!({"items": app.actors.env.performance.all()}))
}

/// The appservice in the path of a request.
pub(super) fn service_of(request: &Raw) -> ServiceId {
    request.path.first().map_or("", String::as_str).into()
}

/// Ping an appservice: `POST /_understudy/appservices/{id}/ping` answers `{"duration_ms": 3}`, or the error.
pub(super) async fn ping(app: App, _: Caller, request: Raw) -> Result<Json> {
    let service = service_of(&request);
    if app.actors.env.store.interests().service(&service).is_none() {
        return Err(Refusal::NotFound("no such application service".into()).into());
    }
    let ping = appservices::Ping {
        service,
        transaction_id: None,
    };
    let pinging = ask(&app.actors.appservices, ping).await?;
    let took = app.outside(pinging.answer()).await?;
    Json::write(&json!({"duration_ms": took.as_millis()}))
}
