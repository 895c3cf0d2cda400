//! In which rooms each service has joined members, as it is counted anew when registrations change. How a membership counts
//! one more or less: [`crate::device_lists`].

use std::collections::{BTreeMap, BTreeSet};

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::registration::ServiceId;
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

/// These are the rooms in which the service has joined members, and how many. Writes what is not so already.
///
/// # Errors
/// When the database fails.
pub fn set_members(
    db: &mut Conn,
    service: &ServiceId,
    counted: &BTreeMap<String, i64>,
) -> Result<()> {
    use appservice_rooms as t;
    let before = members(db, service)?;
    let lost = before.keys().filter(|room| !counted.contains_key(*room));
    for room in lost {
        on!(db, |c| diesel::delete(
            t::table.find((service.as_str(), room))
        )
        .execute(c))?;
    }
    for (room, joined) in counted {
        if before.get(room) != Some(joined) {
            put_members(db, service, room, *joined)?;
        }
    }
    Ok(())
}

/// The service has so many joined members in this room.
///
/// # Errors
/// When the database fails.
pub fn put_members(db: &mut Conn, service: &ServiceId, room_id: &str, joined: i64) -> Result<()> {
    use appservice_rooms as t;
    let row = (
        t::appservice_id.eq(service.as_str()),
        t::room_id.eq(room_id),
        t::joined.eq(joined),
    );
    on!(db, |c| diesel::insert_into(t::table)
        .values(&row)
        .on_conflict((t::appservice_id, t::room_id))
        .do_update()
        .set(t::joined.eq(excluded(t::joined)))
        .execute(c))?;
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
