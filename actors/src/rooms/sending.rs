//! Sending message events, state events and redactions.

use std::collections::BTreeSet;

use actix::{Context, Handler, ResponseFuture};
use ruma::canonical_json::{CanonicalJsonObject, CanonicalJsonValue};
use ruma::{OwnedEventId, RoomId, UserId};
use schema::{ServiceId, Tx};
use serde_json::value::to_raw_value;

use super::effects::Effects;
use super::messages::{Redact, SendEvent, SetState};
use super::open::OpenRoom;
use super::rules;
use super::rules::canonical;
use super::rules::draft::Draft;
use super::rules::parsed;
use super::{Rooms, refused};
use crate::hooks::{RoomEvent, set_top_level};
use crate::runtime::once::once;
use crate::{Env, Identity, Refusal, Result};

impl Handler<SendEvent> for Rooms {
    type Result = ResponseFuture<Result<OwnedEventId>>;

    fn handle(&mut self, msg: SendEvent, _: &mut Context<Self>) -> Self::Result {
        let content = match canonical(&msg.content) {
            Ok(content) => content,
            Err(error) => return refused(error),
        };
        let now = self.env.clock.now();
        self.commit(move |env, tx, effects| {
            send(env, tx, msg.clone(), content.clone(), now, effects)
        })
    }
}

impl Handler<SetState> for Rooms {
    type Result = ResponseFuture<Result<OwnedEventId>>;

    fn handle(&mut self, msg: SetState, _: &mut Context<Self>) -> Self::Result {
        let content = match canonical(&msg.content) {
            Ok(content) => content,
            Err(error) => return refused(error),
        };
        let now = self.env.clock.now();
        self.commit(move |env, tx, effects| {
            set_state(env, tx, msg.clone(), content.clone(), now, effects)
        })
    }
}

impl Handler<Redact> for Rooms {
    type Result = ResponseFuture<Result<OwnedEventId>>;

    fn handle(&mut self, msg: Redact, _: &mut Context<Self>) -> Self::Result {
        let mut content = match canonical(&msg.content) {
            Ok(content) => content,
            Err(error) => return refused(error),
        };
        let redacts = CanonicalJsonValue::String(msg.event.to_string());
        content.insert("redacts".to_owned(), redacts);
        let now = self.env.clock.now();
        self.commit(move |env, tx, effects| {
            redact(env, tx, msg.clone(), content.clone(), now, effects)
        })
    }
}

/// Send a message event; a repeated transaction id gets the earlier answer.
pub(crate) fn send(
    env: &Env,
    tx: &mut Tx<'_>,
    msg: SendEvent,
    content: CanonicalJsonObject,
    now: i64,
    effects: &mut Effects,
) -> Result<OwnedEventId> {
    rules::check_name("the event type", &msg.kind)?;
    let scope = format!("send/{}/{}", msg.room, msg.kind);
    let id = once(tx, &msg.by, &scope, msg.txn.as_str(), now, |tx| {
        let draft = Draft {
            kind: msg.kind,
            state_key: None,
            sender: msg.by.user.clone(),
            content,
            at: time(&msg.by, msg.at, now),
            origin: origin(&msg.by, msg.txn.as_str()),
            top_level: CanonicalJsonObject::new(),
        };
        OpenRoom::room(env, tx, &msg.room)?.append(tx, &draft, effects)
    })?;
    parsed(&id)
}

/// Redact an event; a repeated transaction id gets the earlier answer.
pub(crate) fn redact(
    env: &Env,
    tx: &mut Tx<'_>,
    msg: Redact,
    content: CanonicalJsonObject,
    now: i64,
    effects: &mut Effects,
) -> Result<OwnedEventId> {
    let scope = format!("redact/{}/{}", msg.room, msg.event);
    let id = once(tx, &msg.by, &scope, msg.txn.as_str(), now, |tx| {
        let draft = Draft {
            kind: "m.room.redaction".to_owned(),
            state_key: None,
            sender: msg.by.user.clone(),
            content,
            at: now,
            origin: origin(&msg.by, msg.txn.as_str()),
            top_level: CanonicalJsonObject::new(),
        };
        OpenRoom::room(env, tx, &msg.room)?.append(tx, &draft, effects)
    })?;
    parsed(&id)
}

/// Send a state event.
pub(crate) fn set_state(
    env: &Env,
    tx: &mut Tx<'_>,
    msg: SetState,
    content: CanonicalJsonObject,
    now: i64,
    effects: &mut Effects,
) -> Result<OwnedEventId> {
    let at = time(&msg.by, msg.at, now);
    let draft = Draft::state(&msg.by.user, &msg.kind, &msg.state_key, content, at);
    let id = OpenRoom::room(env, tx, &msg.room)?.append(tx, &draft, effects)?;
    parsed(&id)
}

/// Part of the write of a proposal's hook: add an event to a room, with all checks. Returns its id, and the appservices to wake.
pub(crate) fn add_event(
    env: &Env,
    tx: &mut Tx<'_>,
    event: &RoomEvent<'_>,
) -> Result<(String, BTreeSet<ServiceId>)> {
    let id = |text: &str| Refusal::InvalidParam(format!("{text:?} is not a valid id").into());
    let room = RoomId::parse(event.room).map_err(|_| id(event.room))?;
    let mut top_level = CanonicalJsonObject::new();
    for (key, value) in event.top_level {
        set_top_level(&mut top_level, key, value.clone())?;
    }
    let origin = event.origin;
    let draft = Draft {
        kind: event.kind.to_owned(),
        state_key: event.state_key.map(ToOwned::to_owned),
        sender: UserId::parse(event.sender).map_err(|_| id(event.sender))?,
        content: canonical(&to_raw_value(event.content)?)?,
        at: event.at.unwrap_or_else(|| env.clock.now()),
        origin: origin.map(|(device, txn)| (device.to_owned(), txn.to_owned())),
        top_level,
    };
    rules::check_name("the event type", &draft.kind)?;
    let mut effects = Effects::default();
    let id = OpenRoom::room(env, tx, &room)?.append(tx, &draft, &mut effects)?;
    Ok((id, effects.services))
}

/// The `origin_server_ts` of an event: appservices may choose it. ([spec]) Clause: as.acting.timestamp
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#timestamp-massaging
fn time(by: &Identity, wanted: Option<i64>, now: i64) -> i64 {
    wanted.filter(|_| by.appservice.is_some()).unwrap_or(now)
}

fn origin(by: &Identity, txn: &str) -> Option<(String, String)> {
    let device = by.device.as_ref()?;
    Some((device.to_string(), txn.to_owned()))
}
