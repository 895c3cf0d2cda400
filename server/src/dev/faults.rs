//! Time and faults: the clock, and what goes wrong with requests to appservices.

use std::time::Duration;

use actors::runtime::request_faults::FaultRule;
use actors::{Env, Refusal};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::answer::Json;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::incoming::Raw;
use crate::state::App;

/// The clock: `GET /_understudy/clock` answers the time in milliseconds since the epoch, and whether it stands still.
pub(super) async fn clock(app: App, _: Caller, _: Raw) -> Result<Json> {
    Json::write(&shown(&app.actors.env))
}

pub(super) fn shown(env: &Env) -> Value {
    let clock = &env.clock;
    json!({"now": clock.now(), "frozen": clock.is_frozen()})
}

/// Freeze the clock: `POST /_understudy/clock/freeze`.
pub(super) async fn freeze(app: App, _: Caller, _: Raw) -> Result<Json> {
    set_frozen(&app, true)
}

/// Let a frozen clock run on from where it stands: `POST /_understudy/clock/run`.
pub(super) async fn run(app: App, _: Caller, _: Raw) -> Result<Json> {
    set_frozen(&app, false)
}

fn set_frozen(app: &App, frozen: bool) -> Result<Json> {
    if !app.actors.env.clock.freeze(frozen) {
        let why = "the clock of a server with --seed stands still until it is advanced";
        return Err(Refusal::Forbidden(why.into()).into());
    }
    Json::write(&shown(&app.actors.env))
}

#[derive(Deserialize)]
struct Advance {
    ms: u64,
}

/// Advance the clock, whether it runs or not: `POST /_understudy/clock/advance` with `{"ms": 1000}`. What was due in between is due
/// now.
pub(super) async fn advance(app: App, _: Caller, request: Raw) -> Result<Json> {
    let Advance { ms } = request.json()?;
    let clock = &app.actors.env.clock;
    if !clock.can_advance() {
        let why = "the clock of this server cannot be advanced";
        return Err(Refusal::Forbidden(why.into()).into());
    }
    clock.advance(Duration::from_millis(ms));
    Json::write(&shown(&app.actors.env))
}

/// The faults in force, in the order in which they apply: `GET /_understudy/faults`.
pub(super) async fn list(app: App, _: Caller, _: Raw) -> Result<Json> {
    Json::write(&app.actors.env.request_faults.list())
}

/// Inject a fault into requests to appservices: `POST /_understudy/faults` with
/// `{"service": "irc", "endpoint": "transactions", "fault": {"status": 500}, "times": 2}`; answers `{"id": 1}`.
pub(super) async fn add(app: App, _: Caller, request: Raw) -> Result<Json> {
    let rule: FaultRule = request.json()?;
    let id = app.actors.env.request_faults.add(rule)?;
    Json::write(&json!({"id": id}))
}

#[derive(Deserialize)]
struct Clear {
    id: Option<u64>,
}

/// Remove a fault, or all: `POST /_understudy/faults/clear`, with `{"id": 1}` for one; answers how many were removed.
pub(super) async fn clear(app: App, _: Caller, request: Raw) -> Result<Json> {
    let Clear { id } = request.json()?;
    Json::write(&json!({"removed": app.actors.env.request_faults.clear(id)}))
}
