//! State and members of rooms, as far as the caller may see them.

use std::collections::BTreeSet;

use ruma::{OwnedRoomId, RoomId, UserId};
use schema::events::EventRow;
use schema::memberships::{self, MembershipRow};
use schema::{Conn, Position, events};
use serde_json::value::RawValue;

use super::access::{access, state_access, state_access_of_user};
use super::reader::RoomReader;
use crate::rooms::rules::format::content;
use crate::rooms::rules::visibility::StateAccess;
use crate::rooms::rules::{membership_in, parsed};
use crate::services::CarriesInterests;
use crate::{Env, Error, Identity, Refusal, Result};

/// The most state events or members that are returned for a room.
const MOST: i64 = 100_000;

/// A room's state, each event in client format. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate
pub async fn state(env: &Env, by: &Identity, room: &RoomId) -> Result<Vec<Box<RawValue>>> {
    let (interests, now) = (env.store.interests(), env.clock.now());
    let (by, room) = (by.clone(), room.to_owned());
    env.store
        .read(move |db| {
            let access = state_access(db, &interests, &by, &room)?;
            let rows = state_rows(db, &room, access)?;
            RoomReader::new(&by, &room, now).show_state(db, &rows)
        })
        .await
}

/// One state event of a room: its content, and the whole event in client format. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`], [`Refusal::NotFound`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstateeventtypestatekey
pub async fn state_event(
    env: &Env,
    by: &Identity,
    room: &RoomId,
    kind: &str,
    state_key: &str,
) -> Result<(Box<RawValue>, Box<RawValue>)> {
    crate::rooms::rules::check_nul("the event type", kind)?;
    crate::rooms::rules::check_nul("the state key", state_key)?;
    let (interests, now) = (env.store.interests(), env.clock.now());
    let (by, room) = (by.clone(), room.to_owned());
    let (kind, key) = (kind.to_owned(), state_key.to_owned());
    env.store
        .read(move |db| {
            let row = match state_access(db, &interests, &by, &room)? {
                StateAccess::Now => events::state(db, room.as_str(), &kind, &key)?,
                StateAccess::Until(then) => {
                    events::state_as_of(db, room.as_str(), &kind, &key, then)?
                }
            };
            let row = row.ok_or(Refusal::NotFound("there is no such state".into()))?;
            let inner = content(&row)?.to_owned();
            let mut whole = RoomReader::new(&by, &room, now).show_state(db, &[row])?;
            let whole = whole.pop().ok_or(Error::Failed("rooms"))?;
            Ok((inner, whole))
        })
        .await
}

/// The state events of a room, now or when the user left.
pub(super) fn state_rows(
    db: &mut Conn,
    room: &RoomId,
    access: StateAccess,
) -> Result<Vec<EventRow>> {
    Ok(match access {
        StateAccess::Now => events::current_state(db, room.as_str(), MOST)?,
        StateAccess::Until(then) => {
            events::state_between(db, room.as_str(), Position::START, then, MOST)?
        }
    })
}

/// How many joined rooms one read returns; between two pages the database connection is free for other reads.
const JOINED_PAGE: usize = 100;

/// The rooms a user is joined to. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3joined_rooms
pub async fn joined_rooms(env: &Env, user: &UserId) -> Result<Vec<OwnedRoomId>> {
    let mut rooms: Vec<OwnedRoomId> = Vec::new();
    loop {
        let user = user.to_owned();
        let after = rooms.last().map(ToString::to_string).unwrap_or_default();
        let page: Vec<OwnedRoomId> = env
            .store
            .read(move |db| {
                let ids =
                    schema::sync::joined_rooms(db, user.as_str(), &after, JOINED_PAGE as i64)?;
                ids.iter().map(|id| parsed(id)).collect::<Result<_>>()
            })
            .await?;
        let is_last = page.len() < JOINED_PAGE;
        rooms.extend(page);
        if is_last {
            return Ok(rooms);
        }
    }
}

/// The joined members of a room. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`] for a user that is not joined, and for an appservice without a joined user.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidjoined_members
pub async fn joined_members(env: &Env, by: &Identity, room: &RoomId) -> Result<Vec<MembershipRow>> {
    let interests = env.store.interests();
    let (by, room) = (by.clone(), room.to_owned());
    env.store
        .read(move |db| {
            if state_access(db, &interests, &by, &room)? != StateAccess::Now {
                return Err(Refusal::Forbidden("you are not in this room".into()).into());
            }
            Ok(memberships::in_room(db, room.as_str(), "join", "", MOST)?)
        })
        .await
}

/// Criteria for the members of a room.
#[derive(Debug, Clone, Default)]
pub struct MemberCriteria {
    /// As of this position; `None` for now.
    pub at: Option<Position>,
    /// Only members with this membership.
    pub with: Option<String>,
    /// Only members with another membership.
    pub without: Option<String>,
}

/// The member events of a room. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmembers
pub async fn members(
    env: &Env,
    by: &Identity,
    room: &RoomId,
    criteria: MemberCriteria,
) -> Result<Vec<Box<RawValue>>> {
    let (interests, now) = (env.store.interests(), env.clock.now());
    let (by, room) = (by.clone(), room.to_owned());
    env.store
        .read(move |db| {
            let then = match (state_access(db, &interests, &by, &room)?, criteria.at) {
                (StateAccess::Now, None) => None,
                (StateAccess::Now, Some(at)) => Some(first_seen(db, &by, &room, at)?),
                (StateAccess::Until(left), None) => Some(left),
                (StateAccess::Until(left), Some(at)) => {
                    Some(first_seen(db, &by, &room, at.min(left))?)
                }
            };
            let mut rows = match then {
                None => events::current_state_of(db, room.as_str(), "m.room.member", MOST)?,
                Some(then) => past_members(db, &by, &room, then)?,
            };
            rows.retain(|row| is_wanted(row, &criteria));
            RoomReader::new(&by, &room, now).show_state(db, &rows)
        })
        .await
}

/// The member events of a room as of `then`. Of a member event that was replaced before the user could see the state of the room,
/// the user sees nothing, unless it may see that event in the timeline.
fn past_members(
    db: &mut Conn,
    by: &Identity,
    room: &RoomId,
    then: Position,
) -> Result<Vec<EventRow>> {
    let (id, user) = (room.as_str(), by.user.as_str());
    let mut rows = memberships::events_as_of(db, id, then, MOST)?;
    // An appservice may read with the rights of another of its users.
    if state_access_of_user(db, &by.user, room).is_err()
        || access(db, id, user, then.before(), then)?.sees_whole_state(then)
    {
        return Ok(rows);
    }
    let access = access(db, id, user, Position::START, Position(i64::MAX))?;
    let later = match access.whole_state_after(then) {
        Some(later) => memberships::events_as_of(db, id, later, MOST)?,
        None => Vec::new(),
    };
    let in_force: BTreeSet<i64> = later.iter().map(|row| row.position).collect();
    rows.retain(|row| in_force.contains(&row.position) || access.sees(Position(row.position)));
    Ok(rows)
}

/// The position whose members to show for a request as of `at`: `at` if the user may see the state there, else the next change of
/// the user's own membership. Clients ask with the token of a timeline that begins with their own join.
///
/// # Errors
/// [`Refusal::Forbidden`]
fn first_seen(db: &mut Conn, by: &Identity, room: &RoomId, at: Position) -> Result<Position> {
    if state_access_of_user(db, &by.user, room).is_err() {
        // An appservice reads with the rights of another of its users.
        return Ok(at);
    }
    let (id, user) = (room.as_str(), by.user.as_str());
    let here = events::newest_first(db, id, Position::START, at, 1)?;
    let here = here.first().map_or(at, |event| Position(event.position));
    let end = Position(i64::MAX);
    let next = events::state_history(db, id, "m.room.member", user, here, end, 1)?;
    let next = next.first().map(|event| Position(event.position));
    for at in [Some(here), next].into_iter().flatten() {
        if access(db, id, user, at.before(), at)?.sees_state(at) {
            return Ok(at);
        }
    }
    Err(Refusal::Forbidden("you may not see the members of that time".into()).into())
}

fn is_wanted(row: &EventRow, criteria: &MemberCriteria) -> bool {
    let Ok(content) = content(row) else {
        return false;
    };
    let membership = membership_in(content);
    criteria.with.is_none() && criteria.without.is_none()
        || criteria.with.is_some() && membership == criteria.with
        || criteria.without.is_some() && membership != criteria.without
}
