//! What each service has still to be told of whose devices.

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::registration::ServiceId;
use crate::tables::{owed_device_lists, tracked};
use crate::{Conn, Position, Result, Tx};

#[derive(Debug, Insertable)]
#[diesel(table_name = owed_device_lists, treat_none_as_default_value = false)]
struct OwedRow<'a> {
    appservice_id: &'a str,
    user_id: &'a str,
    position: i64,
    is_left: bool,
    txn: Option<i64>,
}

/// Tell the service about a user, once: a later word replaces one that still waits. Keeps `tracked` in step, for the service's own users
/// too: a registration that changes may leave them to others.
///
/// The word has its place in the order at the event that it follows from, so that no transaction is cut between the two; without one,
/// at the end.
///
/// # Errors
/// When the database fails.
pub fn owe(
    tx: &mut Tx<'_>,
    service: &ServiceId,
    user_id: &str,
    left: bool,
    follows: Option<Position>,
) -> Result<()> {
    use owed_device_lists as t;
    let position = follows.unwrap_or_else(|| tx.next_position());
    let row = OwedRow {
        appservice_id: service.as_str(),
        user_id,
        position: position.0,
        is_left: left,
        txn: None,
    };
    on!(&mut **tx, |c| diesel::insert_into(t::table)
        .values(&row)
        .on_conflict((t::appservice_id, t::user_id))
        .do_update()
        .set((
            t::position.eq(excluded(t::position)),
            t::is_left.eq(excluded(t::is_left)),
            t::txn.eq(excluded(t::txn))
        ))
        .execute(c))?;
    tx.owes(service);
    if left {
        on!(&mut **tx, |c| diesel::delete(
            tracked::table.find((service.as_str(), user_id))
        )
        .execute(c))?;
    } else {
        let row = (
            tracked::appservice_id.eq(service.as_str()),
            tracked::user_id.eq(user_id),
        );
        on!(&mut **tx, |c| diesel::insert_into(tracked::table)
            .values(&row)
            .on_conflict_do_nothing()
            .execute(c))?;
    }
    Ok(())
}

/// A device-list word that a service is owed.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct Owed {
    /// Its place in the order.
    pub position: i64,
    /// About whom.
    pub user_id: String,
    /// `left`, or `changed`.
    pub is_left: bool,
}

/// The oldest words a service is owed up to a position.
///
/// # Errors
/// When the database fails.
pub fn owed(db: &mut Conn, service: &ServiceId, up_to: Position, limit: i64) -> Result<Vec<Owed>> {
    use owed_device_lists as t;
    Ok(on!(db, |c| t::table
        .filter(t::appservice_id.eq(service.as_str()))
        .filter(t::position.le(up_to.0))
        .filter(t::txn.is_null())
        .order(t::position)
        .limit(limit)
        .select((t::position, t::user_id, t::is_left))
        .load(c))?)
}

/// These words are in the body of this transaction: all that wait up to the cut.
///
/// # Errors
/// When the database fails.
pub fn stamp(db: &mut Conn, service: &ServiceId, cut: Position, txn: i64) -> Result<usize> {
    Ok(stamp_owed!(db, owed_device_lists, service, cut, txn)?)
}

/// The service acknowledged this transaction. A word that was replaced meanwhile has lost its stamp and stays.
///
/// # Errors
/// When the database fails.
pub fn acknowledge(db: &mut Conn, service: &ServiceId, cut: Position, txn: i64) -> Result<usize> {
    Ok(forget_stamped!(db, owed_device_lists, service, cut, txn)?)
}
