//! The frozen transaction of each application service, and its counter.
//!
//! Owner: `appservice_sender`.
//!
//! Next on the way of a to-device message: `actors/src/appservice_sender/send.rs`.

use diesel::prelude::*;

use crate::ServiceId;
use crate::tables::{appservices, frozen_transactions};
use crate::{Conn, Position, Result, owed};

/// A transaction that has been composed: what is sent, byte for byte, until it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = frozen_transactions)]
pub struct Frozen {
    /// For which service.
    pub appservice_id: String,
    /// Its id: digits only on the wire.
    pub txn_id: i64,
    /// The position up to which it carries everything.
    pub cut: i64,
    /// The body.
    pub body: String,
    /// When it was composed, in milliseconds since the epoch.
    pub frozen_at: i64,
}

/// The frozen transaction of a service, if it has one.
pub fn frozen(db: &mut Conn, service: &ServiceId) -> Result<Option<Frozen>> {
    Ok(on!(db, |c| frozen_transactions::table
        .find(service.as_str())
        .select(Frozen::as_select())
        .first(c)
        .optional())?)
}

/// The id for the next transaction: later than the last one, and later than anything a restored backup could have used.
///
/// # Errors
/// When the database fails or the service is not known.
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
    .execute(c))?;
    Ok(next)
}

/// Freeze a transaction: store it, and stamp everything that waits up to its cut.
pub fn freeze(db: &mut Conn, frozen: &Frozen, service: &ServiceId) -> Result<()> {
    on!(db, |c| diesel::insert_into(frozen_transactions::table)
        .values(frozen)
        .execute(c))?;
    owed::stamp(db, service, Position(frozen.cut), frozen.txn_id)
}

/// The service acknowledged its frozen transaction: what it carried is forgotten, and so is the body.
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
    .execute(c))?;
    db.added(format_args!("acknowledged {service} {}", frozen.txn_id), 0);
    Ok(())
}
