//! Gathers everything that is new for a client, in one snapshot of the database.

use std::collections::BTreeMap;

use schema::memberships::MembershipRow;
use schema::user_data::DataRow;
use schema::{Conn, Position, memberships};
use serde::Serialize;
use serde_json::Value;

use super::ask::{AnswerRange, SyncQuery, was};
use super::devices::{self, SyncDeviceLists};
use super::events::Events;
use super::personal::{self, ByRoom};
use super::pieces::{PIECE, all, joined_rooms};
use super::room::{self, Joined, Left, Reasons, Stripped};
use super::unread::Counter;
use crate::Result;
use crate::accounts::queries::ignored::{self, Ignored};
use crate::hooks::{AddedToRooms, Hooks, Keeps, SyncAdditions, SyncAsked, SyncPart};
use crate::rooms::queries::stripped_state;
use crate::runtime::clock::Times;
use crate::sync::rules::token::Token;
use crate::sync::volatile::VolatileState;

/// The result of [`gather`].
#[derive(Debug)]
pub(crate) enum Gathered {
    /// The answer, as JSON.
    Answer(String),
    /// Nothing new up to this position; the user is joined to these rooms.
    Nothing { seen: Position, rooms: Vec<String> },
}

#[derive(Debug, Default, Serialize)]
struct RoomSections {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    join: BTreeMap<String, Joined>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    invite: BTreeMap<String, Stripped>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    knock: BTreeMap<String, Stripped>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    leave: BTreeMap<String, Left>,
}

impl RoomSections {
    fn is_empty(&self) -> bool {
        self.join.is_empty()
            && self.invite.is_empty()
            && self.knock.is_empty()
            && self.leave.is_empty()
    }
}

/// An answer to `/sync`. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
#[derive(Debug, Serialize)]
struct SyncResponse {
    next_batch: String,
    #[serde(skip_serializing_if = "Events::is_empty")]
    to_device: Events,
    #[serde(skip_serializing_if = "SyncDeviceLists::is_empty")]
    device_lists: SyncDeviceLists,
    /// Contains a zero for `signed_curve25519` if no key is left: some clients upload keys only for algorithms that are listed.
    device_one_time_keys_count: BTreeMap<String, i64>,
    /// Sent even when empty: the field tells clients that the server supports fallback keys.
    device_unused_fallback_key_types: Vec<String>,
    #[serde(skip_serializing_if = "Events::is_empty")]
    account_data: Events,
    #[serde(skip_serializing_if = "Events::is_empty")]
    presence: Events,
    #[serde(skip_serializing_if = "RoomSections::is_empty")]
    rooms: RoomSections,
    /// The keys that proposals add.
    #[serde(flatten)]
    added: BTreeMap<&'static str, Value>,
}

/// Gather an answer to `/sync`. If `must_answer`, there is an answer even if nothing is new.
pub(crate) fn gather(
    db: &mut Conn,
    hooks: &Hooks,
    volatile: &VolatileState,
    ask: &SyncQuery,
    must_answer: bool,
    now: Times,
) -> Result<Gathered> {
    let head = schema::sync::head(db)?;
    let (to_device, to_device_end) = personal::to_device(db, ask, head)?;
    let data = personal::account_data(db, ask, head)?;
    let ignored = Ignored::of(db, &ask.user)?;
    let is_list = |row: &DataRow| row.room_id.is_empty() && row.kind == ignored::KIND;
    let ignored_changed = data.iter().any(is_list);
    let asked = SyncAsked::new(hooks.read_syncs(), &ask.user, ask.filter.text(), &ask.query)?;
    let keeps = Keeps::new(hooks.keeps(), &asked);
    let range = AnswerRange {
        after: ask.after(),
        head,
        now,
        ignored: &ignored,
        keeps: &keeps,
    };
    let device_lists = match ask.since {
        Some(since) => devices::changes(db, &ask.user, since.position, head)?,
        // An initial sync needs no device lists: the client queries the devices of all members anyway.
        None => SyncDeviceLists::default(),
    };
    let (account_data, by_room) = personal::sorted(ask, data)?;
    let added = additions(db, hooks, ask, &asked, head)?;
    let rooms = rooms(
        db,
        volatile,
        ask,
        by_room,
        &range,
        ignored_changed,
        added.rooms,
    )?;
    let arrived = rooms.join.values().flat_map(|room| &room.arrived);
    let presence = personal::presence(db, volatile, ask, &range, arrived)?;

    let is_new = !(to_device.is_empty()
        && account_data.is_empty()
        && device_lists.is_empty()
        && presence.is_empty()
        && added.top.is_empty()
        && rooms.is_empty());
    if !is_new && !must_answer {
        let rooms = joined_rooms(db, &ask.user)?;
        return Ok(Gathered::Nothing { seen: head, rooms });
    }
    let (device_one_time_keys_count, device_unused_fallback_key_types) = personal::counts(db, ask)?;
    let next = Token {
        position: head,
        to_device: to_device_end,
    };
    let answer = SyncResponse {
        next_batch: next.to_string(),
        to_device,
        device_lists,
        device_one_time_keys_count,
        device_unused_fallback_key_types,
        account_data,
        presence,
        rooms,
        added: added.top,
    };
    Ok(Gathered::Answer(serde_json::to_string(&answer)?))
}

/// What the hooks of proposals add.
fn additions(
    db: &mut Conn,
    hooks: &Hooks,
    ask: &SyncQuery,
    asked: &SyncAsked<'_>,
    head: Position,
) -> Result<SyncAdditions> {
    let mut added = SyncAdditions::default();
    for (hooks, add) in hooks.all.iter().filter_map(|h| Some((h, h.sync?))) {
        add(&mut SyncPart {
            db,
            number: hooks.number,
            naming: hooks.naming,
            asked,
            user: &ask.user,
            device: ask.device.as_deref(),
            is_initial: ask.since.is_none(),
            after: ask.after(),
            up_to: head,
            added: &mut added,
        })?;
    }
    Ok(added)
}

fn rooms(
    db: &mut Conn,
    volatile: &VolatileState,
    ask: &SyncQuery,
    mut by_room: ByRoom,
    range: &AnswerRange<'_>,
    ignored_changed: bool,
    added: AddedToRooms,
) -> Result<RoomSections> {
    let mut rooms = RoomSections::default();
    let mut unread = Counter::new(&ask.user, range.ignored, volatile.unread());
    let mut found: BTreeMap<String, Reasons> = BTreeMap::new();
    for row in own_memberships(db, ask, range.head, ignored_changed)? {
        if !ask.filter.wants_room(&row.room_id) {
            continue;
        }
        match row.membership.as_str() {
            "join" => {
                let was = was(db, ask, &row.room_id)?;
                let why = found.entry(row.room_id).or_default();
                why.is_new = was.as_deref() != Some("join");
                why.returned = row.left_at > 0;
                why.moved = true;
            }
            // An invite by an ignored user is held back until the user is no longer ignored.
            "invite" if range.ignored.contains(&row.sender) => {}
            "invite" | "knock" => {
                let shown = Stripped::of(&row, stripped_state(db, &row.room_id, &ask.user)?);
                let section = if row.membership == "knock" {
                    &mut rooms.knock
                } else {
                    &mut rooms.invite
                };
                section.insert(row.room_id, shown);
            }
            _ => {
                let data = by_room.remove(&row.room_id).unwrap_or_default();
                let left = room::left(db, ask, &row, data, range)?;
                rooms.leave.insert(row.room_id, left);
            }
        }
    }
    add_rooms_with_news(db, volatile, ask, by_room, range.head, &mut found)?;
    for (room, keys) in added {
        found.entry(room).or_default().added = keys;
    }
    for (room_id, why) in found {
        if !ask.filter.wants_room(&room_id) {
            continue;
        }
        if let Some(joined) = room::joined(db, volatile, ask, &room_id, why, range, &mut unread)? {
            rooms.join.insert(room_id, joined);
        }
    }
    Ok(rooms)
}

/// The user's own memberships that changed, and those in rooms that it forgot; for an initial sync all current memberships, and
/// past ones only if the filter asks for them.
///
/// If the ignored users changed, every invite is included, since it may have been held back before.
fn own_memberships(
    db: &mut Conn,
    ask: &SyncQuery,
    head: Position,
    ignored_changed: bool,
) -> Result<Vec<MembershipRow>> {
    if ask.since.is_some() {
        let mut found = all(|last: Option<&MembershipRow>| {
            let after = last.map_or(ask.after(), |row| Position(row.position));
            Ok(memberships::of_user_since(
                db,
                &ask.user,
                after,
                head,
                PIECE as i64,
            )?)
        })?;
        found.extend(forgotten(db, ask, head)?);
        if ignored_changed {
            found.extend(present(db, ask, "invite")?);
        }
        return Ok(found);
    }
    let past: &[&str] = if ask.filter.includes_left() {
        &["leave", "ban"]
    } else {
        &[]
    };
    let mut found = Vec::new();
    for membership in ["join", "invite", "knock"].iter().chain(past) {
        found.extend(present(db, ask, membership)?);
    }
    Ok(found)
}

/// The user's current memberships of one kind.
fn present(db: &mut Conn, ask: &SyncQuery, membership: &str) -> Result<Vec<MembershipRow>> {
    all(|last: Option<&MembershipRow>| {
        let after = last.map_or("", |row| row.room_id.as_str());
        Ok(memberships::of_user(
            db,
            &ask.user,
            membership,
            after,
            PIECE as i64,
        )?)
    })
}

/// The user's memberships in rooms that it forgot on another device, except those that are new to this one anyway.
fn forgotten(db: &mut Conn, ask: &SyncQuery, head: Position) -> Result<Vec<MembershipRow>> {
    let mut found = all(|last: Option<&MembershipRow>| {
        let after = last.map_or(ask.after(), |row| Position(row.forgotten_at));
        Ok(memberships::forgotten_since(
            db,
            &ask.user,
            after,
            head,
            PIECE as i64,
        )?)
    })?;
    found.retain(|row| row.position <= ask.after().0);
    Ok(found)
}

/// Add to `found` the rooms that the user is joined to and that may have something new, each with the reason.
fn add_rooms_with_news(
    db: &mut Conn,
    volatile: &VolatileState,
    ask: &SyncQuery,
    by_room: ByRoom,
    head: Position,
    found: &mut BTreeMap<String, Reasons>,
) -> Result<()> {
    let span = (ask.after(), head);
    if ask.since.is_some() {
        let rooms = all(|last: Option<&String>| {
            let after = last.map_or("", String::as_str);
            Ok(schema::sync::rooms_with_events(
                db,
                &ask.user,
                span,
                after,
                PIECE as i64,
            )?)
        })?;
        for room in rooms {
            found.entry(room).or_default().events = true;
        }
        let rooms = all(|last: Option<&String>| {
            let after = last.map_or("", String::as_str);
            Ok(schema::sync::rooms_with_receipts(
                db,
                &ask.user,
                span,
                after,
                PIECE as i64,
            )?)
        })?;
        for room in rooms {
            found.entry(room).or_default().receipts = true;
        }
        if ask.full_state {
            for room in joined_rooms(db, &ask.user)? {
                found.entry(room).or_default();
            }
        }
    }
    for room in volatile.rooms_with_typing(span.0, head) {
        if found.contains_key(&room) || memberships::is_joined(db, &room, &ask.user)? {
            found.entry(room).or_default().typing = true;
        }
    }
    for (room, data) in by_room {
        if found.contains_key(&room) || memberships::is_joined(db, &room, &ask.user)? {
            found.entry(room).or_default().account_data = data;
        }
    }
    Ok(())
}
