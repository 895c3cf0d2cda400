//! The users that each appservice tracks, because it was sent or is owed their device lists.
//!
//! Owner: `device_lists`.
//!
//! Next on the way of a leave: `actors/src/device_lists/held.rs`.

use std::collections::BTreeSet;

use diesel::prelude::*;

use crate::ServiceId;
use crate::cursors;
use crate::owed::{self, Owed};
use crate::store::kept::Keep as _;
use crate::tables::tracked;
use crate::{Conn, Position, Result, Tx};

/// The appservices that track a user.
pub fn trackers_of(db: &mut Conn, user_id: &str) -> Result<Vec<ServiceId>> {
    let ids: Vec<String> = on!(db, |c| tracked::table
        .filter(tracked::user_id.eq(user_id))
        .select(tracked::appservice_id)
        .load(c))?;
    Ok(ids.into_iter().map(ServiceId::from).collect())
}

/// Owes an appservice a change of a user's device list, and updates the users that it tracks. The change replaces an earlier change
/// of the same user that still waits. Also called for users that belong to the appservice: after a change of its registration they
/// can belong to another one. Clause: as.lists.latest
///
/// The row has the position of the event that the change follows from, so that the same transaction carries both; without an
/// event it has the next position.
pub fn owe(
    tx: &mut Tx<'_>,
    service: &ServiceId,
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
        let gone = on!(&mut **tx, |c| diesel::delete(
            tracked::table.find((service.as_str(), user_id))
        )
        .execute(c))?;
        tx.removed(format_args!("tracked {service}"), gone);
    } else {
        let row = (
            tracked::appservice_id.eq(service.as_str()),
            tracked::user_id.eq(user_id),
        );
        let new = on!(&mut **tx, |c| diesel::insert_into(tracked::table)
            .values(&row)
            .on_conflict_do_nothing()
            .kept()
            .execute(c))?;
        tx.added(format_args!("tracked {service}"), new);
    }
    Ok(())
}

/// Whether an appservice tracks a user.
pub fn is_tracked(db: &mut Conn, service: &ServiceId, user_id: &str) -> Result<bool> {
    let found: Option<String> = on!(db, |c| tracked::table
        .find((service.as_str(), user_id))
        .select(tracked::user_id)
        .first(c)
        .optional())?;
    Ok(found.is_some())
}

/// Those of these users that an appservice tracks.
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
        .kept_for(users.len())
        .load(c))?;
    Ok(found.into_iter().collect())
}

/// The users that an appservice tracks, in order: up to `limit` of those after `after`.
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

fn sent_until_name(service: &ServiceId) -> String {
    format!("device_lists_until:{service}")
}

/// Stores the position up to which an appservice was sent changes of device lists, when these are switched off for it.
pub fn set_sent_until(db: &mut Conn, service: &ServiceId, position: Position) -> Result<()> {
    cursors::store(db, &sent_until_name(service), position)
}

/// The position up to which an appservice had been sent changes of device lists when these were last switched off for it;
/// `None` if they never were.
pub fn sent_until(db: &mut Conn, service: &ServiceId) -> Result<Option<Position>> {
    cursors::stored_if_any(db, &sent_until_name(service))
}
