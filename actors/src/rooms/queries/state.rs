//! State and members, for those who may see them.

use ruma::{OwnedRoomId, RoomId, UserId};
use schema::events::EventRow;
use schema::interests::Interests;
use schema::memberships::{self, MembershipRow};
use schema::{Conn, Position, device_lists, events, rooms};
use serde_json::value::RawValue;

use super::{dressed, visibility_in};
use crate::rooms::format::{Dress, content};
use crate::rooms::pdu::{membership_in, parsed};
use crate::rooms::visibility::Visibility;
use crate::{Env, Error, Identity, Refusal, Result};

/// The most state events and members that are shown of a room.
const MOST: i64 = 100_000;

/// Up to when somebody may see a room's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// As it is.
    Now,
    /// As it was when the user left.
    Until(Position),
}

/// What somebody may see of a room's state: its present for who is joined, for a service one of whose users is, and for all where
/// the room is open to the world; for who has left what it was then. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate
pub(super) fn standing(
    db: &mut Conn,
    interests: &Interests,
    by: &Identity,
    room_id: &RoomId,
) -> Result<Standing> {
    if let Some(service) = &by.appservice
        && interests.service(service).is_some()
        && device_lists::services_in(db, room_id.as_str())?.contains(service)
    {
        return Ok(Standing::Now);
    }
    of_user(db, &by.user, room_id)
}

/// The same for a user without a service.
pub(super) fn of_user(db: &mut Conn, user: &UserId, room_id: &RoomId) -> Result<Standing> {
    let (room, user) = (room_id.as_str(), user.as_str());
    let row = memberships::get(db, room, user)?;
    if row.as_ref().is_some_and(|m| m.membership == "join") {
        return Ok(Standing::Now);
    }
    if rooms::room(db, room)?.is_some()
        && visibility_in(events::state(db, room, "m.room.history_visibility", "")?.as_ref())
            == Visibility::WorldReadable
    {
        return Ok(Standing::Now);
    }
    if row.is_some_and(|m| matches!(m.membership.as_str(), "leave" | "ban")) {
        let past = memberships::history(db, room, user, Position::START, Position(i64::MAX), MOST)?;
        let left = past
            .windows(2)
            .rev()
            .find(|pair| pair[0].1 == "join" && pair[1].1 != "join");
        if let Some(pair) = left {
            return Ok(Standing::Until(pair[1].0));
        }
    }
    Err(Refusal::Forbidden("you are not in this room".into()).into())
}

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
            let rows = match standing(db, &interests, &by, &room)? {
                Standing::Now => events::current_state(db, room.as_str(), MOST)?,
                Standing::Until(then) => {
                    events::state_between(db, room.as_str(), Position::START, then, MOST)?
                }
            };
            dressed(db, &rows, &[], &shown(now))
        })
        .await
}

/// One piece of a room's state: its content, and the whole event in client format. ([spec])
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
            let row = match standing(db, &interests, &by, &room)? {
                Standing::Now => events::state(db, room.as_str(), &kind, &key)?,
                Standing::Until(then) => events::state_as_of(db, room.as_str(), &kind, &key, then)?,
            };
            let row = row.ok_or(Refusal::NotFound("there is no such state".into()))?;
            let inner = content(&row)?.to_owned();
            let mut whole = dressed(db, &[row], &[], &shown(now))?;
            let whole = whole.pop().ok_or(Error::Failed("rooms"))?;
            Ok((inner, whole))
        })
        .await
}

fn shown(now: i64) -> Dress<'static> {
    Dress {
        room_id: true,
        now: Some(now),
        ..Dress::default()
    }
}

/// The rooms a user is joined to. ([spec])
///
/// # Errors
/// When the database fails.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3joined_rooms
pub async fn joined_rooms(env: &Env, user: &UserId) -> Result<Vec<OwnedRoomId>> {
    let user = user.to_owned();
    env.store
        .read(move |db| {
            let rows = memberships::of_user(db, user.as_str(), "join", "", MOST)?;
            rows.iter().map(|row| parsed(&row.room_id)).collect()
        })
        .await
}

/// The joined members of a room. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`] for who is not joined, and for a service none of whose users is.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidjoined_members
pub async fn joined_members(env: &Env, by: &Identity, room: &RoomId) -> Result<Vec<MembershipRow>> {
    let interests = env.store.interests();
    let (by, room) = (by.clone(), room.to_owned());
    env.store
        .read(move |db| {
            if standing(db, &interests, &by, &room)? != Standing::Now {
                return Err(Refusal::Forbidden("you are not in this room".into()).into());
            }
            Ok(memberships::in_room(db, room.as_str(), "join", "", MOST)?)
        })
        .await
}

/// Which members are asked for.
#[derive(Debug, Clone, Default)]
pub struct Members {
    /// As of this position; `None` for now.
    pub at: Option<Position>,
    /// Only those with this membership.
    pub with: Option<String>,
    /// Only those without this membership.
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
    which: Members,
) -> Result<Vec<Box<RawValue>>> {
    let (interests, now) = (env.store.interests(), env.clock.now());
    let (by, room) = (by.clone(), room.to_owned());
    env.store
        .read(move |db| {
            let then = match (standing(db, &interests, &by, &room)?, which.at) {
                (Standing::Now, at) => at,
                (Standing::Until(left), at) => Some(at.map_or(left, |at| at.min(left))),
            };
            let mut rows = match then {
                None => events::current_state_of(db, room.as_str(), "m.room.member", MOST)?,
                Some(then) => memberships::events_as_of(db, room.as_str(), then, MOST)?,
            };
            rows.retain(|row| is_wanted(row, &which));
            dressed(db, &rows, &[], &shown(now))
        })
        .await
}

fn is_wanted(row: &EventRow, which: &Members) -> bool {
    let Ok(content) = content(row) else {
        return false;
    };
    let membership = membership_in(content);
    which.with.is_none() && which.without.is_none()
        || which.with.is_some() && membership == which.with
        || which.without.is_some() && membership != which.without
}
