//! MSC4140 — cancellable delayed events. ([proposal])
//!
//! | on the wire until it is accepted | after |
//! |---|---|
//! | `org.matrix.msc4140.delay` | `delay` |
//!
//! *Where* the query of `PUT …/rooms/{roomId}/send/…` and `…/state/…`: the event is sent after so many milliseconds, and the answer is
//! `{"delay_id"}`. `GET …/unstable/org.matrix.msc4140/delayed_events` lists the waiting events, `GET …/{delay_id}` shows one, and
//! `POST …/{delay_id}/send`, `…/cancel` and `…/restart` decide over it; older clients `POST …/{delay_id}` with the `action` in the body. *Registration* no flag. *Versions* `org.matrix.msc4140`. *Off* unless
//! the operator names it. Clause: delayed.actions, delayed.listed, delayed.longest
//!
//! An event that the room's rules refuse when its time has come is dropped.
//!
//! [proposal]: https://github.com/matrix-org/matrix-spec-proposals/pull/4140

use actors::hooks::{Part, ProposalHooks, RoomEvent, Stored};
use actors::wire::Name;
use actors::{Error, Refusal};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::part;
use super::sheet::Msc;
use crate::http::answer::Json;
use crate::http::around::{Answer, Next, Seen};
use crate::http::caller::{Auth, Caller};
use crate::http::error::{self, Result};
use crate::http::incoming::Raw;
use crate::state::App;

/// The data sheet of this proposal: its number, title, link and names.
pub const MSC: Msc = Msc {
    title: "Cancellable delayed events",
    flags: &["org.matrix.msc4140"],
    names: &[DELAY],
    routes: |routes| {
        routes
            .around("PUT", "/rooms/{room}/send/{type}/{txn}", delay)
            .around("PUT", "/rooms/{room}/state/{type}/{key}", delay_state)
            .raw("GET", PATH, Auth::User, list)
            .raw("GET", &format!("{PATH}/{{delay_id}}"), Auth::User, show)
            .raw("POST", &format!("{PATH}/{{delay_id}}"), Auth::User, act)
            .raw(
                "POST",
                &format!("{PATH}/{{delay_id}}/{{action}}"),
                Auth::User,
                act,
            )
    },
    hooks: ProposalHooks {
        number: 4140,
        due: Some(send),
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

const PATH: &str = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events";

const DELAY: Name = Name {
    unstable: "org.matrix.msc4140.delay",
    stable: "delay",
};

/// The longest delay, in milliseconds: a day.
const LONGEST: i64 = 86_400_000;

/// An event that waits. Its key is made of its sender and its id.
#[derive(Clone, Serialize, Deserialize)]
struct Delayed {
    delay_id: String,
    room_id: String,
    r#type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state_key: Option<String>,
    delay: i64,
    running_since: i64,
    content: Value,
    /// The sending device and its transaction id, which are not listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<(String, String)>,
}

fn key(user: &str, id: &str) -> String {
    format!("{user}|{id}")
}

async fn delay(app: App, caller: Caller, request: Seen, next: Next) -> Result<Answer> {
    keep(app, caller, request, next, false).await
}

async fn delay_state(app: App, caller: Caller, request: Seen, next: Next) -> Result<Answer> {
    keep(app, caller, request, next, true).await
}

async fn keep(
    app: App,
    caller: Caller,
    mut request: Seen,
    next: Next,
    is_state: bool,
) -> Result<Answer> {
    let mut forms = part::forms(&app, &MSC, DELAY);
    let Some(delay) = forms.find_map(|name| request.take_param(name)) else {
        return next.run(request).await;
    };
    let invalid = || error::Error::invalid_param("the delay is a number of milliseconds");
    let delay: i64 = delay.parse().map_err(|_| invalid())?;
    if !(0..=LONGEST).contains(&delay) {
        return Err(Refusal::OfProposal {
            status: 400,
            errcode: "M_MAX_DELAY_EXCEEDED",
            error: format!("a delay is at most {LONGEST} milliseconds").into(),
        }
        .into());
    }
    let by = caller.identity()?.clone();
    let [room_id, r#type, last] = request.path.try_into().map_err(|_| invalid())?;
    let txn = (!is_state).then(|| last.clone());
    let origin = by.device.as_ref().map(ToString::to_string);
    let event = Delayed {
        origin: origin.zip(txn.clone()),
        delay_id: app.actors.env.ids.opaque("delay"),
        room_id,
        r#type,
        state_key: is_state.then_some(last),
        delay,
        running_since: 0,
        content: request.body,
    };
    let about = json!({"delay": event.delay_id});
    let answer = part::write(&app, &MSC, about, move |part| match &txn {
        Some(txn) => {
            let scope = format!("{}/{}", event.room_id, event.r#type);
            part.once(&by, &scope, txn, |part| {
                begin(part, by.user.as_str(), &event)
            })
        }
        None => begin(part, by.user.as_str(), &event),
    });
    Ok(Answer::ok(answer.await?))
}

fn begin(part: &mut Part<'_, '_>, user: &str, event: &Delayed) -> actors::Result<Value> {
    if !part.is_joined(&event.room_id, user)? {
        return Err(Refusal::Forbidden("you are not in this room".into()).into());
    }
    start(part, &key(user, &event.delay_id), event.clone())?;
    Ok(json!({"delay_id": event.delay_id}))
}

// ANCHOR: timer
/// Start the time of an event.
fn start(part: &mut Part<'_, '_>, key: &str, mut event: Delayed) -> actors::Result<()> {
    event.running_since = part.now();
    let due = event.running_since + event.delay;
    part.put_until(key, &event, due).map(drop)
}

/// Send an event whose time has come. Clause: delayed.sent
fn send(part: &mut Part<'_, '_>, stored: &Stored) -> actors::Result<()> {
    let event: Delayed = stored.value()?;
    part.delete(&stored.key)?;
    let origin = event.origin.as_ref();
    let sent = part.send_event(RoomEvent {
        room: &event.room_id,
        sender: stored.key.rsplit_once('|').map_or("", |(user, _)| user),
        kind: &event.r#type,
        state_key: event.state_key.as_deref(),
        content: &event.content,
        origin: origin.map(|(device, txn)| (device.as_str(), txn.as_str())),
        ..RoomEvent::NONE
    });
    match sent {
        Ok(_) => Ok(()),
        Err(Error::Refused(why)) => {
            tracing::debug!(%why, "a delayed event is dropped");
            Ok(())
        }
        Err(error) => Err(error),
    }
}
// ANCHOR_END: timer

/// A waiting event, as a client is shown it.
fn shown(stored: &Stored) -> actors::Result<Delayed> {
    let event: Delayed = stored.value()?;
    let origin = None;
    Ok(Delayed { origin, ..event })
}

fn none() -> Refusal {
    Refusal::NotFound("no such delayed event".into())
}

async fn show(app: App, caller: Caller, request: Raw) -> Result<Json> {
    let key = key(caller.identity()?.user.as_str(), &request.path[0]);
    let stored = part::stored(&app, &MSC, key).await?.ok_or_else(none)?;
    Json::write(&shown(&stored)?)
}

async fn list(app: App, caller: Caller, _: Raw) -> Result<Json> {
    let prefix = key(caller.identity()?.user.as_str(), "");
    let all = part::stored_in(&app, &MSC, prefix).await?;
    let events = all.iter().map(shown).collect::<actors::Result<Vec<_>>>()?;
    Json::write(&json!({"delayed_events": events}))
}

async fn act(app: App, caller: Caller, request: Raw) -> Result<Json> {
    #[derive(Clone, Copy, Deserialize, Serialize)]
    #[serde(rename_all = "lowercase")]
    enum Action {
        Send,
        Cancel,
        Restart,
    }
    #[derive(Deserialize)]
    struct Body {
        action: Action,
    }
    let named = request.path.get(1).map(|action| json!({"action": action}));
    let Body { action } = match named {
        Some(named) => serde_json::from_value(named).map_err(|_| none())?,
        None => request.json()?,
    };
    let key = key(caller.identity()?.user.as_str(), &request.path[0]);
    let about = json!({"delay": request.path[0], "action": action});
    let answer = part::write(&app, &MSC, about, move |part| {
        let stored = part.get(&key)?;
        let stored = stored.ok_or_else(none)?;
        match action {
            Action::Send => send(part, &stored)?,
            Action::Cancel => drop(part.delete(&key)?),
            Action::Restart => start(part, &key, stored.value()?)?,
        }
        Ok(json!({}))
    });
    Json::write(&answer.await?)
}
