//! Reads about rooms, which do not wait for writes, and the formatting of stored events for their readers.

mod access;
mod directory;
mod erased;
mod history;
mod initial;
mod reader;
mod search;
mod state;
mod summary;
mod threads;
mod users;

pub use access::access;
pub use directory::{
    DirectoryCriteria, PublicRooms, aliases_of, is_listed, public_rooms, room_named,
};
pub use history::{
    EventContext, HistoryCriteria, HistoryPage, RECURSION, Related, context, event, messages,
    nearest, related,
};
pub use initial::{InitialSync, initial_sync};
pub use search::{SearchRequest, search};
pub use state::{MemberCriteria, joined_members, joined_rooms, members, state, state_event};
pub use summary::{Hierarchy, SpacePage, hierarchy, summary};
pub use threads::{ThreadCriteria, ThreadPage, threads};
pub use users::{FoundUser, FoundUsers, users};

use schema::ServiceId;
use schema::events::EventRow;
use schema::{Conn, Position, events};
use serde_json::value::RawValue;

use crate::Result;
use crate::rooms::rules::format::{EventFormat, client_event, content, stripped_event};
use crate::rooms::rules::membership_in;
use crate::services::Interests;
use erased::Erased;

/// The state types in stripped state, besides the member events of the invited user and of the inviter. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#stripped-state
const STRIPPED: [&str; 7] = [
    "m.room.create",
    "m.room.join_rules",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.canonical_alias",
    "m.room.encryption",
];

/// Stored events in client format, each with the state it replaced and its redaction. `memberships` holds the reader's membership
/// at each event, in the order of `rows`, or is empty to leave it out.
pub fn client_events(
    db: &mut Conn,
    rows: &[EventRow],
    memberships: &[&str],
    format: &EventFormat<'_>,
) -> Result<Vec<Box<RawValue>>> {
    let erased = Erased::among(db, rows, format.access)?;
    rows.iter()
        .enumerate()
        .map(|(i, row)| {
            let membership = memberships.get(i).copied().or(format.membership);
            let format = EventFormat {
                membership,
                ..*format
            };
            one_client_event(db, row, &erased, &format)
        })
        .collect()
}

fn one_client_event(
    db: &mut Conn,
    row: &EventRow,
    erased: &Erased,
    format: &EventFormat<'_>,
) -> Result<Box<RawValue>> {
    let mut other = |id: &Option<String>| -> Result<Option<EventRow>> {
        match id {
            Some(id) => Ok(events::by_id(db, id)?),
            None => Ok(None),
        }
    };
    let (mut replaced, mut redaction) = (other(&row.replaces)?, other(&row.redacted_by)?);
    if let Some(access) = format.access {
        replaced = replaced
            .filter(|event| access.sees_replaced(Position(event.position), Position(row.position)));
        redaction = redaction.filter(|event| access.sees(Position(event.position)));
    }
    replaced = replaced.filter(|event| !erased.contains(event));
    let left = erased.left_of(db, row)?;
    let format = EventFormat {
        replaced: replaced.as_ref(),
        redaction: redaction.as_ref(),
        ..*format
    };
    client_event(left.as_ref().unwrap_or(row), &format)
}

/// The events at these positions for an appservice transaction: with `room_id`, and the invite of a user of the appservice with
/// stripped state. `now` is milliseconds since the epoch. Clause: as.txn.event-format
pub fn for_appservice(
    db: &mut Conn,
    interests: &Interests,
    service: &ServiceId,
    positions: &[Position],
    now: i64,
) -> Result<Vec<(Position, Result<Box<RawValue>>)>> {
    let rows = events::at(db, positions)?;
    let mut rows = rows.into_iter().peekable();
    let mut shown = Vec::with_capacity(positions.len());
    for position in positions {
        let row = rows.next_if(|row| row.position == position.0);
        let json = match &row {
            Some(row) => for_one_appservice(db, interests, service, row, now),
            None => Err(schema::Error::Damaged("the event is gone".to_owned()).into()),
        };
        shown.push((*position, json));
    }
    Ok(shown)
}

fn for_one_appservice(
    db: &mut Conn,
    interests: &Interests,
    service: &ServiceId,
    row: &EventRow,
    now: i64,
) -> Result<Box<RawValue>> {
    let invited = invited_user(row)?.filter(|user| interests.claim(service, user).is_some());
    let state = invited
        .map(|user| stripped_state(db, &row.room_id, user))
        .transpose()?;
    let format = EventFormat {
        room_id: true,
        now: Some(now),
        invite_room_state: state.as_deref(),
        ..EventFormat::default()
    };
    one_client_event(db, row, &Erased::default(), &format)
}

/// The user that a member event invites; `None` for another event.
fn invited_user(row: &EventRow) -> Result<Option<&str>> {
    let invites =
        row.kind == "m.room.member" && membership_in(content(row)?).as_deref() == Some("invite");
    Ok(row.state_key.as_deref().filter(|_| invites))
}

/// The stripped state that a user who is invited to a room, or knocks on it, may see: the state that describes the room, the
/// user's member event and that of its sender. ([spec]) Clause: cs.rooms.invite-state
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#stripped-state
pub fn stripped_state(db: &mut Conn, room_id: &str, user_id: &str) -> Result<Vec<Box<RawValue>>> {
    let mut rows = Vec::new();
    for kind in STRIPPED {
        rows.extend(events::state(db, room_id, kind, "")?);
    }
    if let Some(own) = events::state(db, room_id, "m.room.member", user_id)? {
        if own.sender != user_id {
            rows.extend(events::state(db, room_id, "m.room.member", &own.sender)?);
        }
        rows.push(own);
    }
    rows.iter().map(stripped_event).collect()
}
