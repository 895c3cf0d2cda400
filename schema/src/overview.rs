//! Devices and their keys, and the users that appservices track, in pages, for people who look. Reads only.

use std::collections::BTreeMap;

use diesel::dsl::{count_star, max};
use diesel::prelude::*;

use crate::events::EventRow;
use crate::tables::{
    appservice_rooms, device_keys, events, fallback_keys, memberships, one_time_keys, tracked,
};
use crate::{Conn, Result, ServiceId};

/// A page of the devices with identity keys, in order of user and device: up to `limit` of those after `after`.
pub fn devices_with_keys(
    db: &mut Conn,
    (user, device): (&str, &str),
    limit: i64,
) -> Result<Vec<(String, String)>> {
    use device_keys as t;
    let is_later = t::user_id
        .gt(user)
        .or(t::user_id.eq(user).and(t::device_id.gt(device)));
    Ok(on!(db, |c| t::table
        .filter(is_later)
        .order((t::user_id, t::device_id))
        .limit(limit)
        .select((t::user_id, t::device_id))
        .load(c))?)
}

/// Something of a device: user, device, algorithm, and a value.
pub type OfDevice<T> = (String, String, String, T);

/// The numbers of unclaimed one-time keys of all devices of these users, by algorithm.
pub fn one_time_keys_of(db: &mut Conn, users: &[&str]) -> Result<Vec<OfDevice<i64>>> {
    use one_time_keys as t;
    let mut all = Vec::new();
    for part in users.chunks(500) {
        let found: Vec<OfDevice<i64>> = on!(db, |c| t::table
            .filter(t::user_id.eq_any(part))
            .group_by((t::user_id, t::device_id, t::algorithm))
            .select((t::user_id, t::device_id, t::algorithm, count_star()))
            .load(c))?;
        all.extend(found);
    }
    Ok(all)
}

/// The fallback keys of all devices of these users, by algorithm, and whether each was handed out.
pub fn fallback_keys_of(db: &mut Conn, users: &[&str]) -> Result<Vec<OfDevice<bool>>> {
    use fallback_keys as t;
    let mut all = Vec::new();
    for part in users.chunks(500) {
        let found: Vec<OfDevice<bool>> = on!(db, |c| t::table
            .filter(t::user_id.eq_any(part))
            .select((t::user_id, t::device_id, t::algorithm, t::used))
            .load(c))?;
        all.extend(found);
    }
    Ok(all)
}

/// A page of the users that appservices track, in order of appservice and user: up to `limit` of those after `after`.
pub fn tracked_users(
    db: &mut Conn,
    (service, user): (&str, &str),
    limit: i64,
) -> Result<Vec<(String, String)>> {
    use tracked as t;
    let is_later = t::appservice_id
        .gt(service)
        .or(t::appservice_id.eq(service).and(t::user_id.gt(user)));
    Ok(on!(db, |c| t::table
        .filter(is_later)
        .order((t::appservice_id, t::user_id))
        .limit(limit)
        .select((t::appservice_id, t::user_id))
        .load(c))?)
}

/// The rooms that each of these users has joined and in which the appservice has a member, at most `most` for each user, and the
/// number of all of them.
pub fn shared_rooms(
    db: &mut Conn,
    service: &ServiceId,
    users: &[&str],
    most: usize,
) -> Result<BTreeMap<String, (usize, Vec<String>)>> {
    use {appservice_rooms as r, memberships as m};
    let mut all: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
    for part in users.chunks(500) {
        let found: Vec<(String, String)> = on!(db, |c| m::table
            .inner_join(r::table.on(r::room_id.eq(m::room_id)))
            .filter(r::appservice_id.eq(service.as_str()))
            .filter(r::joined.gt(0))
            .filter(m::user_id.eq_any(part))
            .filter(m::membership.eq("join"))
            .order((m::user_id, m::room_id))
            .select((m::user_id, m::room_id))
            .load(c))?;
        for (user, room) in found {
            let (count, rooms) = all.entry(user).or_default();
            *count += 1;
            if rooms.len() < most {
                rooms.push(room);
            }
        }
    }
    Ok(all)
}

/// The newest event that was encrypted with the Megolm session of this id, among the events at the last `back` positions.
pub fn event_of_session(db: &mut Conn, session: &str, back: i64) -> Result<Option<EventRow>> {
    // The id is part of the content, as JSON text.
    let id = serde_json::to_string(session).unwrap_or_default();
    let like = id
        .replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_");
    let newest: Option<i64> = on!(db, |c| events::table.select(max(events::position)).first(c))?;
    Ok(on!(db, |c| events::table
        .filter(events::position.gt(newest.unwrap_or_default() - back))
        .filter(events::kind.eq("m.room.encrypted"))
        .filter(
            events::pdu
                .like(format!("%\"session_id\":{like}%"))
                .escape('\\')
        )
        .order(events::position.desc())
        .select(EventRow::as_select())
        .first(c)
        .optional())?)
}
