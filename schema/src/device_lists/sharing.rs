//! Who tracks whom, and who shares a room with whom now.
//!
//! Owner: `device_lists`.

use std::collections::BTreeSet;

use diesel::prelude::*;

use crate::ServiceId;
use crate::interests::Service;
use crate::owed::{self, Owed};
use crate::tables::{appservice_rooms, memberships, tracked};
use crate::{Conn, Position, Result, Tx};

/// The services that have been told to track this user.
///
/// # Errors
/// When the database fails.
pub fn trackers_of(db: &mut Conn, user_id: &str) -> Result<Vec<ServiceId>> {
    let ids: Vec<String> = on!(db, |c| tracked::table
        .filter(tracked::user_id.eq(user_id))
        .select(tracked::appservice_id)
        .load(c))?;
    Ok(ids.into_iter().map(ServiceId::from).collect())
}

/// The service is told about a user, once: a later change replaces one that still waits. Keeps `tracked` in step, for the service's own
/// users too: a registration that changes may leave them to others.
///
/// The row stands at the event that it follows from, so that no transaction is cut between the two; without one, at the end.
pub fn owe(
    tx: &mut Tx<'_>,
    service: &Service,
    user_id: &str,
    left: bool,
    follows: Option<Position>,
) -> Result<()> {
    let item = if left { owed::LEFT } else { owed::CHANGED };
    let position = follows.unwrap_or_else(|| tx.next_position());
    let row = Owed {
        key: user_id.to_owned(),
        item: item.to_owned(),
        ..Owed::new(service, position, owed::DEVICE_LIST)
    };
    owed::owe_latest(tx, &row)?;
    if left {
        on!(&mut **tx, |c| diesel::delete(
            tracked::table.find((service.id.as_str(), user_id))
        )
        .execute(c))?;
    } else {
        let row = (
            tracked::appservice_id.eq(service.id.as_str()),
            tracked::user_id.eq(user_id),
        );
        on!(&mut **tx, |c| diesel::insert_into(tracked::table)
            .values(&row)
            .on_conflict_do_nothing()
            .execute(c))?;
    }
    Ok(())
}

/// Whether the service has been told to track this user.
///
/// # Errors
/// When the database fails.
pub fn is_tracked(db: &mut Conn, service: &ServiceId, user_id: &str) -> Result<bool> {
    let found: Option<String> = on!(db, |c| tracked::table
        .find((service.as_str(), user_id))
        .select(tracked::user_id)
        .first(c)
        .optional())?;
    Ok(found.is_some())
}

/// Of these users, a piece of a room, those whom the service has been told to track.
///
/// # Errors
/// When the database fails.
pub fn tracked_among(
    db: &mut Conn,
    service: &ServiceId,
    users: &[String],
) -> Result<BTreeSet<String>> {
    if users.is_empty() {
        return Ok(BTreeSet::new());
    }
    let found: Vec<String> = on!(db, |c| tracked::table
        .filter(tracked::appservice_id.eq(service.as_str()))
        .filter(tracked::user_id.eq_any(users))
        .select(tracked::user_id)
        .load(c))?;
    Ok(found.into_iter().collect())
}

/// Whom the service has been told to track, after a user id, in order.
///
/// # Errors
/// When the database fails.
pub fn tracked_by(
    db: &mut Conn,
    service: &ServiceId,
    after: &str,
    limit: i64,
) -> Result<Vec<String>> {
    Ok(on!(db, |c| tracked::table
        .filter(tracked::appservice_id.eq(service.as_str()))
        .filter(tracked::user_id.gt(after))
        .select(tracked::user_id)
        .order(tracked::user_id)
        .limit(limit)
        .load(c))?)
}

/// Whether there is a room where the service has a joined member and the user is joined or invited.
///
/// # Errors
/// When the database fails.
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

/// The services that have a joined member in a room where this user is joined or invited.
///
/// # Errors
/// When the database fails.
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

/// Of these users, those who are joined or invited in a room where the service has a joined member.
///
/// # Errors
/// When the database fails.
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
        .load(c))?;
    Ok(found.into_iter().collect())
}

/// Which users of a room are asked about when a service gained its first member there or lost its last: those joined or invited now,
/// and those whose membership changed lately.
#[derive(Debug, Clone, Copy)]
pub struct InRoom<'a> {
    /// The room.
    pub room_id: &'a str,
    /// Users whose membership changed after this position are asked about too, whatever it is now. The largest position adds none.
    pub changed_after: Position,
    /// Only users whose id comes after this one.
    pub after_user: &'a str,
}

/// People joined or invited in a room, after a user id, in order.
///
/// # Errors
/// When the database fails.
pub fn present_in(db: &mut Conn, room_id: &str, after: &str, limit: i64) -> Result<Vec<String>> {
    let at = InRoom {
        room_id,
        changed_after: Position(i64::MAX),
        after_user: after,
    };
    people_of(db, at, limit)
}

/// People joined or invited in a room, and those whose membership changed after a position, in order.
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

/// The next users of a room to be asked about, in order, and those among them that share a room with the service, this one or another.
/// `None` where no user is left to ask about.
///
/// # Errors
/// When the database fails.
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
