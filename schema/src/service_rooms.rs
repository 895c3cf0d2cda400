//! In which rooms each service has joined members, as it is counted anew when registrations change. How a membership counts
//! one more or less: [`crate::device_lists`].
//!
//! Owner: `device_lists`.

use std::collections::{BTreeMap, BTreeSet};

use diesel::prelude::*;

use crate::ServiceId;
use crate::tables::{appservice_rooms, memberships};
use crate::{Conn, Result};

/// A page of the users who are joined anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedPage {
    /// The last of them.
    pub last: String,
    /// Those who were picked, each with each room they are joined to.
    pub joined: Vec<(String, String)>,
}

/// The next thousand users after a user id who are joined anywhere, and the rooms of those that `is_member` picks: for counting
/// services' members anew. `None` when there is nobody.
///
/// # Errors
/// When the database fails.
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

/// Everybody who is joined to a room.
///
/// # Errors
/// When the database fails.
pub fn joined_to(db: &mut Conn, room_id: &str) -> Result<Vec<String>> {
    Ok(on!(db, |c| memberships::table
        .filter(memberships::room_id.eq(room_id))
        .filter(memberships::membership.eq("join"))
        .select(memberships::user_id)
        .load(c))?)
}

/// The rooms in which the service has joined members, and how many.
///
/// # Errors
/// When the database fails.
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

/// These are the rooms in which the service has joined members, and how many. Writes what is not so already, many rows in one
/// statement.
///
/// # Errors
/// When the database fails.
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

/// The first room after a room id, in order, in which the service has a joined member.
///
/// # Errors
/// When the database fails.
pub fn room_after(db: &mut Conn, service: &ServiceId, after: &str) -> Result<Option<String>> {
    Ok(on!(db, |c| appservice_rooms::table
        .filter(appservice_rooms::appservice_id.eq(service.as_str()))
        .filter(appservice_rooms::room_id.gt(after))
        .order(appservice_rooms::room_id)
        .select(appservice_rooms::room_id)
        .first(c)
        .optional())?)
}
