//! The frozen transaction of each appservice, and the ids of transactions.
//!
//! Owner: `appservice_sender`.
//!
//! Next on the way of a to-device message: `actors/src/appservice_sender/send.rs`.

use diesel::prelude::*;

use crate::ServiceId;
use crate::store::kept::Keep as _;
use crate::tables::{appservices, frozen_transactions};
use crate::{Conn, Position, Result, owed};

/// A frozen transaction: its body does not change, so each attempt sends the same bytes. Clause: as.txn.same-body-on-retry
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = frozen_transactions)]
pub struct Frozen {
    /// The id of the appservice.
    pub appservice_id: String,
    /// The id of the transaction, sent as digits.
    pub txn_id: i64,
    /// The position up to which the transaction carries everything that the appservice was owed.
    pub cut: i64,
    /// The body, as JSON.
    pub body: String,
    /// When it was composed, in milliseconds since the epoch.
    pub frozen_at: i64,
}

/// The frozen transaction of an appservice, if it has one.
pub fn frozen(db: &mut Conn, service: &ServiceId) -> Result<Option<Frozen>> {
    Ok(on!(db, |c| frozen_transactions::table
        .find(service.as_str())
        .select(Frozen::as_select())
        .first(c)
        .optional())?)
}

/// The id of the next transaction. It is larger than the last one, and larger than any that was used before a backup of the
/// database was restored, because it is at least the time in microseconds. Clause: as.txn.unique-id
///
/// # Errors
/// [`Error::Database`](crate::Error::Database) if the appservice does not exist.
pub fn next_txn_id(db: &mut Conn, service: &ServiceId, now: i64) -> Result<i64> {
    let last: i64 = on!(db, |c| appservices::table
        .find(service.as_str())
        .select(appservices::last_txn)
        .first(c))?;
    let next = (last + 1).max(now.saturating_mul(1000));
    on!(db, |c| diesel::update(
        appservices::table.find(service.as_str())
    )
    .set(appservices::last_txn.eq(next))
    .kept()
    .execute(c))?;
    Ok(next)
}

/// Freezes a transaction: stores it, and records its id in every item that waits at a position up to its cut. Clause: own.txn.same-bytes
pub fn freeze(db: &mut Conn, frozen: &Frozen, service: &ServiceId) -> Result<()> {
    on!(db, |c| diesel::insert_into(frozen_transactions::table)
        .values(frozen)
        .kept()
        .execute(c))?;
    owed::stamp(db, service, Position(frozen.cut), frozen.txn_id)
}

/// Deletes a frozen transaction that the appservice acknowledged, and the items that it carried. Stores the position up to which
/// it carries items, its cut: if the message `Acknowledged` is lost, `to_device_inbox` deletes the acknowledged inbox rows up to
/// there at the next start.
pub fn acknowledge(db: &mut Conn, frozen: &Frozen) -> Result<()> {
    let service = ServiceId::from(frozen.appservice_id.as_str());
    owed::forget(db, &service, frozen.txn_id)?;
    on!(db, |c| diesel::delete(
        frozen_transactions::table
            .find(service.as_str())
            .filter(frozen_transactions::txn_id.eq(frozen.txn_id))
    )
    .execute(c))?;
    on!(db, |c| diesel::update(
        appservices::table.find(service.as_str())
    )
    .set(appservices::acknowledged.eq(frozen.cut))
    .kept()
    .execute(c))?;
    db.added(format_args!("acknowledged {service} {}", frozen.txn_id), 0);
    Ok(())
}
