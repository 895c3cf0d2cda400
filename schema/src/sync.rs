//! Queries that only `/sync` makes: the rooms of a user that have news, and whether users share a room.

use std::collections::BTreeSet;

use diesel::dsl::exists;
use diesel::prelude::*;

use crate::store::kept::Keep as _;
use crate::tables::{counter, device_list_log, events, inbox, memberships, receipts, rooms};
use crate::{Conn, Position, Result};

/// The last position of this snapshot, which contains everything up to that position.
pub fn head(db: &mut Conn) -> Result<Position> {
    Ok(Position(on!(db, |c| counter::table
        .find(1)
        .select(counter::position)
        .first(c))?))
}

/// Whether an unacknowledged message to a device is at or before a position.
pub fn waits_up_to(db: &mut Conn, user_id: &str, device_id: &str, up_to: Position) -> Result<bool> {
    let oldest: Option<i64> = on!(db, |c| inbox::table
        .filter(inbox::user_id.eq(user_id))
        .filter(inbox::device_id.eq(device_id))
        .filter(inbox::acknowledged.eq(false))
        .filter(inbox::position.le(up_to.0))
        .order(inbox::position)
        .select(inbox::position)
        .first(c)
        .optional())?;
    Ok(oldest.is_some())
}

/// A page of the rooms that a user is joined to: in order of room id, those after `after`.
pub fn joined_rooms(db: &mut Conn, user_id: &str, after: &str, limit: i64) -> Result<Vec<String>> {
    Ok(on!(db, |c| memberships::table
        .filter(memberships::user_id.eq(user_id))
        .filter(memberships::membership.eq("join"))
        .filter(memberships::room_id.gt(after))
        .order(memberships::room_id)
        .select(memberships::room_id)
        .limit(limit)
        .load(c))?)
}

/// A page of the rooms that a user is joined to and that have an event after `after` and up to `up_to`: in order of room id, those
/// after `after_room`.
pub fn rooms_with_events(
    db: &mut Conn,
    user_id: &str,
    (after, up_to): (Position, Position),
    after_room: &str,
    limit: i64,
) -> Result<Vec<String>> {
    Ok(on!(db, |c| memberships::table
        .filter(memberships::user_id.eq(user_id))
        .filter(memberships::membership.eq("join"))
        .filter(memberships::room_id.gt(after_room))
        .filter(exists(
            events::table
                .filter(events::room_id.eq(memberships::room_id))
                .filter(events::position.gt(after.0))
                .filter(events::position.le(up_to.0))
        ))
        .order(memberships::room_id)
        .select(memberships::room_id)
        .limit(limit)
        .load(c))?)
}

/// A page of the rooms that a user is joined to and that have a receipt after `after` and up to `up_to`: in order of room id, those
/// after `after_room`.
pub fn rooms_with_receipts(
    db: &mut Conn,
    user_id: &str,
    (after, up_to): (Position, Position),
    after_room: &str,
    limit: i64,
) -> Result<Vec<String>> {
    Ok(on!(db, |c| memberships::table
        .filter(memberships::user_id.eq(user_id))
        .filter(memberships::membership.eq("join"))
        .filter(memberships::room_id.gt(after_room))
        .filter(exists(
            receipts::table
                .filter(receipts::room_id.eq(memberships::room_id))
                .filter(receipts::position.gt(after.0))
                .filter(receipts::position.le(up_to.0))
        ))
        .order(memberships::room_id)
        .select(memberships::room_id)
        .limit(limit)
        .load(c))?)
}

/// Whether there is a room that `user_id` is joined to and `other` is joined or invited to.
pub fn shares_a_room(db: &mut Conn, user_id: &str, other: &str) -> Result<bool> {
    let theirs = diesel::alias!(memberships as theirs);
    let room: Option<String> = on!(db, |c| memberships::table
        .inner_join(
            theirs.on(theirs
                .field(memberships::room_id)
                .eq(memberships::room_id)
                .and(theirs.field(memberships::user_id).eq(other)))
        )
        .filter(memberships::user_id.eq(user_id))
        .filter(memberships::membership.eq("join"))
        .filter(
            theirs
                .field(memberships::membership)
                .eq("join")
                .or(theirs.field(memberships::membership).eq("invite"))
        )
        .select(memberships::room_id)
        .first(c)
        .optional())?;
    Ok(room.is_some())
}

/// Whether a user is joined to a room in the directory.
pub fn is_in_public_room(db: &mut Conn, user_id: &str) -> Result<bool> {
    let room: Option<String> = on!(db, |c| memberships::table
        .inner_join(rooms::table.on(rooms::room_id.eq(memberships::room_id)))
        .filter(memberships::user_id.eq(user_id))
        .filter(memberships::membership.eq("join"))
        .filter(rooms::is_public.eq(true))
        .select(memberships::room_id)
        .first(c)
        .optional())?;
    Ok(room.is_some())
}

/// The most users in one statement.
const USERS: usize = 500;

/// Those of `others` that are joined or invited to a room to which `user_id` is joined.
pub fn sharing_among(db: &mut Conn, user_id: &str, others: &[String]) -> Result<BTreeSet<String>> {
    let theirs = diesel::alias!(memberships as theirs);
    let mut found = BTreeSet::new();
    for part in others.chunks(USERS) {
        let sharing: Vec<String> = on!(db, |c| theirs
            .filter(theirs.field(memberships::user_id).eq_any(part))
            .filter(
                theirs
                    .field(memberships::membership)
                    .eq("join")
                    .or(theirs.field(memberships::membership).eq("invite"))
            )
            .filter(exists(
                memberships::table
                    .filter(memberships::room_id.eq(theirs.field(memberships::room_id)))
                    .filter(memberships::user_id.eq(user_id))
                    .filter(memberships::membership.eq("join"))
            ))
            .select(theirs.field(memberships::user_id))
            .distinct()
            .kept_for(part.len())
            .load(c))?;
        found.extend(sharing);
    }
    Ok(found)
}

/// The users that are joined or invited to a room and of which one of these holds: their membership in the room changed after
/// `after`, or their keys changed after `after` and up to `up_to`.
pub fn changed_in(
    db: &mut Conn,
    room_id: &str,
    (after, up_to): (Position, Position),
) -> Result<Vec<String>> {
    use device_list_log as log;
    Ok(on!(db, |c| memberships::table
        .filter(memberships::room_id.eq(room_id))
        .filter(
            memberships::membership
                .eq("join")
                .or(memberships::membership.eq("invite"))
        )
        .filter(
            memberships::position.gt(after.0).or(exists(
                log::table
                    .filter(log::user_id.eq(memberships::user_id))
                    .filter(log::position.gt(after.0))
                    .filter(log::position.le(up_to.0))
                    .filter(log::kind.eq("keys"))
            ))
        )
        .select(memberships::user_id)
        .load(c))?)
}

/// The users whose membership in a room ended after `after`.
pub fn gone_from(db: &mut Conn, room_id: &str, after: Position) -> Result<Vec<String>> {
    Ok(on!(db, |c| memberships::table
        .filter(memberships::room_id.eq(room_id))
        .filter(memberships::position.gt(after.0))
        .filter(memberships::membership.ne_all(["join", "invite", "knock"]))
        .select(memberships::user_id)
        .load(c))?)
}
