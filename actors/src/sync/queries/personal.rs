//! The parts of an answer that belong to no room: to-device messages, account data, presence, key counts.

use std::collections::{BTreeMap, BTreeSet};

use ruma::UserId;
use schema::inbox::InboxRow;
use schema::user_data::DataRow;
use schema::{Conn, Position, counts, inbox, user_data};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::ask::{AnswerRange, SyncQuery};
use super::events::{Events, data_event};
use super::pieces::{PIECE, all};
use crate::accounts::rules::push_rules;
use crate::appservice_sender::SIGNED_CURVE25519;
use crate::sync::rules;
use crate::sync::volatile::VolatileState;
use crate::{Error, Result};

/// The most to-device messages in one answer; the next request gets the rest at once. ([spec]) Clause: cs.to-device.limited
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#extensions-to-sync
const TO_DEVICE: usize = 100;

/// Account data by room.
pub(crate) type ByRoom = BTreeMap<String, Vec<Box<RawValue>>>;

/// The to-device messages for the device, and the position up to which the answer holds them. Clause: cs.to-device.repeated
pub(crate) fn to_device(
    db: &mut Conn,
    ask: &SyncQuery,
    head: Position,
) -> Result<(Events, Position)> {
    #[derive(Serialize)]
    struct Message<'a> {
        content: &'a RawValue,
        sender: &'a str,
        r#type: &'a str,
    }
    let Some(device) = &ask.device else {
        return Ok((Events::default(), head));
    };
    let after = ask.since.map_or(Position::START, |since| since.to_device);
    let one_more = TO_DEVICE as i64 + 1;
    let mut rows = inbox::after(db, &ask.user, device, after, head, one_more)?;
    let goes_on = rows.len() > TO_DEVICE;
    rows.truncate(TO_DEVICE);
    let end = match rows.last() {
        Some(last) if goes_on => Position(last.position),
        _ => head,
    };
    let message = |row: &InboxRow| -> Result<Box<RawValue>> {
        Ok(to_raw_value(&Message {
            content: serde_json::from_str(&row.content)?,
            sender: &row.sender,
            r#type: &row.kind,
        })?)
    };
    // A damaged row must not block the messages after it.
    let readable = |row: &InboxRow| match message(row) {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::error!(user = ask.user, device, position = row.position, %error, "a to-device message is damaged, and is left out");
            None
        }
    };
    let events: Vec<_> = rows.iter().filter_map(readable).collect();
    Ok((events.into(), end))
}

/// Account data, global and of every room, that changed.
pub(crate) fn account_data(db: &mut Conn, ask: &SyncQuery, head: Position) -> Result<Vec<DataRow>> {
    all(|last: Option<&DataRow>| {
        let after = last.map_or(ask.after(), |row| Position(row.position));
        Ok(user_data::changed(
            db,
            &ask.user,
            after,
            head,
            PIECE as i64,
        )?)
    })
}

/// Account data split into global and by room. An initial sync has push rules even if none are stored. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#push-rules
pub(crate) fn sorted(ask: &SyncQuery, rows: Vec<DataRow>) -> Result<(Events, ByRoom)> {
    let (mut global, mut by_room) = (Vec::new(), ByRoom::new());
    let mut has_push_rules = false;
    for row in rows {
        let is_global = row.room_id.is_empty();
        has_push_rules |= is_global && row.kind == push_rules::KIND;
        if !ask.filter.wants_account_data(&row.room_id, &row.kind) {
            continue;
        }
        let event = data_event(&row.kind, &row.content)?;
        if is_global {
            global.push(event);
        } else {
            by_room.entry(row.room_id).or_default().push(event);
        }
    }
    if ask.since.is_none() && !has_push_rules && ask.filter.wants_account_data("", push_rules::KIND)
    {
        let user = UserId::parse(ask.user.as_str())
            .map_err(|e| Error::Storage(schema::Error::Damaged(e.to_string())))?;
        let rules = serde_json::to_string(&push_rules::Content::of(&user, None)?)?;
        global.push(data_event(push_rules::KIND, &rules)?);
    }
    Ok((global.into(), by_room))
}

/// Presence events of users that share a room with the syncing user: those that changed, and those of users that have just joined
/// a common room (`arrived`). ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#presence
pub(crate) fn presence<'a>(
    db: &mut Conn,
    volatile: &VolatileState,
    ask: &SyncQuery,
    range: &AnswerRange<'_>,
    arrived: impl Iterator<Item = &'a String>,
) -> Result<Events> {
    let mut changed = volatile.users_with_presence(ask.after(), range.head);
    changed.extend(arrived.cloned());
    let mut users: BTreeSet<String> = BTreeSet::new();
    let mut events = Vec::new();
    for user in &changed {
        let is_visible = *user != ask.user && !range.ignored.contains(user);
        if !is_visible || !ask.filter.wants_presence(user) {
            continue;
        }
        if let Some(presence) = volatile.presence(user)
            && users.insert(user.clone())
            && schema::sync::shares_a_room(db, &ask.user, user)?
        {
            events.push(to_raw_value(&rules::presence(
                user,
                &presence,
                range.now.monotonic,
            ))?);
        }
    }
    Ok(events.into())
}

/// The device's number of one-time keys, and the algorithms of its unused fallback keys.
/// Clause: cs.sync.counts, cs.sync.fallback
pub(crate) fn counts(
    db: &mut Conn,
    ask: &SyncQuery,
) -> Result<(BTreeMap<String, i64>, Vec<String>)> {
    let mut one_time = BTreeMap::from([(SIGNED_CURVE25519.to_owned(), 0)]);
    let known = match &ask.device {
        Some(device) => counts::counts_of(db, &ask.user, device)?,
        None => None,
    };
    let Some(known) = known else {
        return Ok((one_time, Vec::new()));
    };
    one_time.extend(known.one_time);
    Ok((one_time, known.unused_fallback))
}
