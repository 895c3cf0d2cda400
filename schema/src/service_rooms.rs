//! The rooms in which each appservice has joined members, how many, and the users that share a room with it.
//!
//! Owner: `device_lists`.

use std::collections::{BTreeMap, BTreeSet};

use diesel::prelude::*;

use crate::ServiceId;
use crate::store::kept::Keep as _;
use crate::tables::{appservice_rooms, memberships};
use crate::{Conn, Position, Result};

/// A page of the users that are joined to any room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedPage {
    /// The last user of the page.
    pub last: String,
    /// Each room that a picked user is joined to: user id, room id.
    pub joined: Vec<(String, String)>,
}

/// The next thousand users after `after` that are joined to any room, and the rooms of those that `is_member` accepts. Used to
/// count the members of appservices again. `None` if there are no more users.
pub fn joined_page(
    db: &mut Conn,
    after: &str,
    is_member: impl Fn(&str) -> bool,
) -> Result<Option<JoinedPage>> {
    let users: Vec<String> = on!(db, |c| memberships::table
        .filter(memberships::user_id.gt(after))
        .filter(memberships::membership.eq("join"))
        .select(memberships::user_id)
        .distinct()
        .order(memberships::user_id)
        .limit(1000)
        .load(c))?;
    let Some(last) = users.last().cloned() else {
        return Ok(None);
    };
    let members: BTreeSet<&String> = users.iter().filter(|user| is_member(user)).collect();
    let (Some(first), Some(end)) = (members.first(), members.last()) else {
        let joined = Vec::new();
        return Ok(Some(JoinedPage { last, joined }));
    };
    let mut joined: Vec<(String, String)> = on!(db, |c| memberships::table
        .filter(memberships::user_id.between(first, end))
        .filter(memberships::membership.eq("join"))
        .select((memberships::user_id, memberships::room_id))
        .load(c))?;
    joined.retain(|(user, _)| members.contains(user));
    Ok(Some(JoinedPage { last, joined }))
}

/// The users joined to a room.
pub fn joined_to(db: &mut Conn, room_id: &str) -> Result<Vec<String>> {
    Ok(on!(db, |c| memberships::table
        .filter(memberships::room_id.eq(room_id))
        .filter(memberships::membership.eq("join"))
        .select(memberships::user_id)
        .load(c))?)
}

/// The rooms in which an appservice has joined members, with their number.
pub fn members(db: &mut Conn, service: &ServiceId) -> Result<BTreeMap<String, i64>> {
    let rows: Vec<(String, i64)> = on!(db, |c| appservice_rooms::table
        .filter(appservice_rooms::appservice_id.eq(service.as_str()))
        .select((appservice_rooms::room_id, appservice_rooms::joined))
        .load(c))?;
    Ok(rows.into_iter().collect())
}

#[derive(Debug, Insertable)]
#[diesel(table_name = appservice_rooms)]
struct MembersRow<'a> {
    appservice_id: &'a str,
    room_id: &'a str,
    joined: i64,
}

/// Stores the rooms in which an appservice has joined members, with their number. Writes only the differences, many rows in a
/// statement.
pub fn set_members<'a>(
    db: &mut Conn,
    service: &'a ServiceId,
    counted: &'a BTreeMap<String, i64>,
) -> Result<()> {
    use appservice_rooms as t;
    const PART: usize = 500;
    let before = members(db, service)?;
    let other = before
        .iter()
        .filter(|(room, n)| counted.get(*room) != Some(*n));
    let other: Vec<&str> = other.map(|(room, _)| room.as_str()).collect();
    for part in other.chunks(PART) {
        on!(db, |c| diesel::delete(
            t::table
                .filter(t::appservice_id.eq(service.as_str()))
                .filter(t::room_id.eq_any(part))
        )
        .execute(c))?;
    }
    let new = counted
        .iter()
        .filter(|(room, n)| before.get(*room) != Some(*n));
    let row = |(room_id, joined): (&'a String, &i64)| MembersRow {
        appservice_id: service.as_str(),
        room_id,
        joined: *joined,
    };
    let rows: Vec<MembersRow<'a>> = new.map(row).collect();
    insert_all!(db, t::table, rows.as_slice());
    Ok(())
}

/// The first room after `after`, in order of room id, in which an appservice has a joined member.
pub fn room_after(db: &mut Conn, service: &ServiceId, after: &str) -> Result<Option<String>> {
    Ok(on!(db, |c| appservice_rooms::table
        .filter(appservice_rooms::appservice_id.eq(service.as_str()))
        .filter(appservice_rooms::room_id.gt(after))
        .order(appservice_rooms::room_id)
        .select(appservice_rooms::room_id)
        .first(c)
        .optional())?)
}

/// Adds or removes one joined member, and returns the new number. A room without members has no row.
pub(crate) fn count_member(
    db: &mut Conn,
    service: &ServiceId,
    room_id: &str,
    more: bool,
) -> Result<i64> {
    use appservice_rooms as t;
    let key = (service.as_str(), room_id);
    if more {
        let row = (
            t::appservice_id.eq(service.as_str()),
            t::room_id.eq(room_id),
            t::joined.eq(1),
        );
        return Ok(on!(db, |c| diesel::insert_into(t::table)
            .values(&row)
            .on_conflict((t::appservice_id, t::room_id))
            .do_update()
            .set(t::joined.eq(t::joined + 1))
            .returning(t::joined)
            .kept()
            .get_result(c))?);
    }
    let left: Option<i64> = on!(db, |c| diesel::update(t::table.find(key))
        .set(t::joined.eq(t::joined - 1))
        .returning(t::joined)
        .kept()
        .get_result(c)
        .optional())?;
    let left = left.unwrap_or(0);
    if left <= 0 {
        on!(db, |c| diesel::delete(t::table.find(key)).execute(c))?;
    }
    Ok(left)
}

/// The appservices with a joined member in a room.
pub fn services_in(db: &mut Conn, room_id: &str) -> Result<Vec<ServiceId>> {
    let ids: Vec<String> = on!(db, |c| appservice_rooms::table
        .filter(appservice_rooms::room_id.eq(room_id))
        .select(appservice_rooms::appservice_id)
        .order(appservice_rooms::appservice_id)
        .load(c))?;
    Ok(ids.into_iter().map(ServiceId::from).collect())
}

/// Those of these rooms in which an appservice has a joined member.
pub fn rooms_among(
    db: &mut Conn,
    service: &ServiceId,
    rooms: BTreeSet<&str>,
) -> Result<BTreeSet<String>> {
    let rooms: Vec<&str> = rooms.into_iter().filter(|room| !room.is_empty()).collect();
    if rooms.is_empty() {
        return Ok(BTreeSet::new());
    }
    let found: Vec<String> = on!(db, |c| appservice_rooms::table
        .filter(appservice_rooms::appservice_id.eq(service.as_str()))
        .filter(appservice_rooms::room_id.eq_any(&rooms))
        .select(appservice_rooms::room_id)
        .kept_for(rooms.len())
        .load(c))?;
    Ok(found.into_iter().collect())
}

/// Whether an appservice has a joined member in a room where the user is joined or invited.
pub fn shares_a_room(db: &mut Conn, service: &ServiceId, user_id: &str) -> Result<bool> {
    let room: Option<String> = on!(db, |c| memberships::table
        .inner_join(
            appservice_rooms::table.on(appservice_rooms::room_id
                .eq(memberships::room_id)
                .and(appservice_rooms::appservice_id.eq(service.as_str())))
        )
        .filter(memberships::user_id.eq(user_id))
        .filter(
            memberships::membership
                .eq("join")
                .or(memberships::membership.eq("invite"))
        )
        .select(memberships::room_id)
        .first(c)
        .optional())?;
    Ok(room.is_some())
}

/// The appservices that have a joined member in a room where the user is joined or invited.
pub fn services_sharing_with(db: &mut Conn, user_id: &str) -> Result<Vec<ServiceId>> {
    let ids: Vec<String> = on!(db, |c| memberships::table
        .inner_join(appservice_rooms::table.on(appservice_rooms::room_id.eq(memberships::room_id)))
        .filter(memberships::user_id.eq(user_id))
        .filter(
            memberships::membership
                .eq("join")
                .or(memberships::membership.eq("invite"))
        )
        .select(appservice_rooms::appservice_id)
        .distinct()
        .load(c))?;
    Ok(ids.into_iter().map(ServiceId::from).collect())
}

/// Those of these users that are joined or invited in a room where an appservice has a joined member.
pub fn sharing_among(
    db: &mut Conn,
    service: &ServiceId,
    users: &[String],
) -> Result<BTreeSet<String>> {
    if users.is_empty() {
        return Ok(BTreeSet::new());
    }
    let found: Vec<String> = on!(db, |c| memberships::table
        .inner_join(
            appservice_rooms::table.on(appservice_rooms::room_id
                .eq(memberships::room_id)
                .and(appservice_rooms::appservice_id.eq(service.as_str())))
        )
        .filter(memberships::user_id.eq_any(users))
        .filter(
            memberships::membership
                .eq("join")
                .or(memberships::membership.eq("invite"))
        )
        .select(memberships::user_id)
        .distinct()
        .kept_for(users.len())
        .load(c))?;
    Ok(found.into_iter().collect())
}

/// The users of a room whose device lists are affected when an appservice gains its first member there or loses its last: those
/// that are joined or invited, and those whose membership changed recently.
#[derive(Debug, Clone, Copy)]
pub struct InRoom<'a> {
    /// The room id.
    pub room_id: &'a str,
    /// Also includes users whose membership changed after this position, whatever it is now. The largest position includes none.
    pub changed_after: Position,
    /// Restricts the users to those whose id comes after this one.
    pub after_user: &'a str,
}

/// The users that are joined or invited in a room, in order: up to `limit` of those after `after`.
pub fn present_in(db: &mut Conn, room_id: &str, after: &str, limit: i64) -> Result<Vec<String>> {
    let at = InRoom {
        room_id,
        changed_after: Position(i64::MAX),
        after_user: after,
    };
    people_of(db, at, limit)
}

/// The users that `at` describes, in order.
fn people_of(db: &mut Conn, at: InRoom<'_>, limit: i64) -> Result<Vec<String>> {
    Ok(on!(db, |c| memberships::table
        .filter(memberships::room_id.eq(at.room_id))
        .filter(memberships::user_id.gt(at.after_user))
        .filter(
            memberships::membership
                .eq("join")
                .or(memberships::membership.eq("invite"))
                .or(memberships::position.gt(at.changed_after.0))
        )
        .order(memberships::user_id)
        .select(memberships::user_id)
        .limit(limit)
        .load(c))?)
}

/// The next users that `at` describes, in order, and those of them that share any room with the appservice. `None` if there are
/// no more users.
pub fn sharing_in(
    db: &mut Conn,
    service: &ServiceId,
    at: InRoom<'_>,
    limit: i64,
) -> Result<Option<(Vec<String>, BTreeSet<String>)>> {
    let present = people_of(db, at, limit)?;
    let (Some(first), Some(last)) = (present.first(), present.last()) else {
        return Ok(None);
    };
    let here = diesel::alias!(memberships as here);
    let sharing: Vec<String> = on!(db, |c| here
        .filter(here.field(memberships::room_id).eq(at.room_id))
        .filter(here.field(memberships::user_id).between(first, last))
        .filter(diesel::dsl::exists(
            memberships::table
                .inner_join(
                    appservice_rooms::table.on(appservice_rooms::room_id
                        .eq(memberships::room_id)
                        .and(appservice_rooms::appservice_id.eq(service.as_str())))
                )
                .filter(memberships::user_id.eq(here.field(memberships::user_id)))
                .filter(
                    memberships::membership
                        .eq("join")
                        .or(memberships::membership.eq("invite"))
                )
                .select(memberships::room_id)
        ))
        .select(here.field(memberships::user_id))
        .load(c))?;
    Ok(Some((present, sharing.into_iter().collect())))
}
