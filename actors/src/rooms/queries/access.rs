//! Reads the rows from which [`HistoryAccess`] decides what a user may see of a room.

use ruma::{RoomId, UserId};
use schema::events::EventRow;
use schema::{Conn, Position, events, memberships, service_rooms};

use crate::rooms::rules::format::content;
use crate::rooms::rules::visibility::{HistoryAccess, PresentAccess, StateAccess, Visibility};
use crate::services::Interests;
use crate::{Identity, Refusal, Result};

/// The most changes of the history visibility, and of a user's membership, that are read for one range. Events after the last
/// change that was read are treated as not visible.
const CHANGES: i64 = 1000;

const RULE: &str = "m.room.history_visibility";

/// What a user may see of the events after `after` and up to `up_to`.
pub fn access(
    db: &mut Conn,
    room_id: &str,
    user_id: &str,
    after: Position,
    up_to: Position,
) -> Result<HistoryAccess> {
    let is_cut = |changes: usize| i64::try_from(changes).is_ok_and(|n| n >= CHANGES);
    // All earlier visibilities, because an event of the range may have replaced a much older one.
    let mut earlier =
        events::state_history(db, room_id, RULE, "", Position::START, after, CHANGES)?;
    let mut rules = Vec::new();
    if is_cut(earlier.len()) {
        // A history visibility that is not known counts as the strictest one.
        rules.push((Position::START, Visibility::Joined));
        let last = events::state_as_of(db, room_id, RULE, "", after)?;
        earlier = last.into_iter().collect();
    }
    let rest = events::state_history(db, room_id, RULE, "", after, up_to, CHANGES)?;
    let memberships = memberships::history(db, room_id, user_id, after, up_to, CHANGES)?;
    let mut known_up_to = up_to;
    if is_cut(rest.len())
        && let Some(last) = rest.last()
    {
        known_up_to = known_up_to.min(Position(last.position));
    }
    if is_cut(memberships.len())
        && let Some((last, _)) = memberships.last()
    {
        known_up_to = known_up_to.min(*last);
    }
    let changes = earlier.iter().chain(&rest);
    rules.extend(changes.map(|event| (Position(event.position), visibility_in(Some(event)))));
    Ok(HistoryAccess {
        rules,
        memberships,
        known: (after, known_up_to),
        present: present(db, room_id, user_id)?,
    })
}

/// A user's current relation to a room.
pub(super) fn present(db: &mut Conn, room_id: &str, user_id: &str) -> Result<PresentAccess> {
    let rule = events::state(db, room_id, RULE, "")?;
    let is_world_readable = visibility_in(rule.as_ref()) == Visibility::WorldReadable;
    let row = memberships::get(db, room_id, user_id)?;
    Ok(row.map_or(
        PresentAccess {
            is_world_readable,
            ..PresentAccess::default()
        },
        |row| PresentAccess {
            is_joined: row.membership == "join",
            left_at: Position(row.left_at),
            forgotten_at: Position(row.forgotten_at),
            is_world_readable,
        },
    ))
}

/// The latest state of a room that the caller may see. An appservice sees the current state if one of its users is joined. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate
pub(super) fn state_access(
    db: &mut Conn,
    interests: &Interests,
    by: &Identity,
    room_id: &RoomId,
) -> Result<StateAccess> {
    if let Some(service) = &by.appservice
        && interests.service(service).is_some()
        && service_rooms::services_in(db, room_id.as_str())?.contains(service)
    {
        return Ok(StateAccess::Now);
    }
    state_access_of_user(db, &by.user, room_id)
}

/// Like [`state_access`], for the user alone.
pub(super) fn state_access_of_user(
    db: &mut Conn,
    user: &UserId,
    room_id: &RoomId,
) -> Result<StateAccess> {
    present(db, room_id.as_str(), user.as_str())?
        .state()
        .ok_or_else(|| Refusal::Forbidden("you are not in this room".into()).into())
}

/// The history visibility that a state event sets; `shared` for no event.
pub(super) fn visibility_in(event: Option<&EventRow>) -> Visibility {
    #[derive(serde::Deserialize)]
    struct Content {
        history_visibility: String,
    }
    let rule = event
        .and_then(|event| content(event).ok())
        .and_then(|content| serde_json::from_str::<Content>(content.get()).ok());
    Visibility::named(rule.as_ref().map(|r| r.history_visibility.as_str()))
}
