//! The registrations of appservices.
//!
//! Owner: `appservices`.

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::ServiceId;
use crate::store::kept::Keep as _;
use crate::tables::{
    appservice_rooms, appservices, back_fills, frozen_transactions, set_aside, tracked,
};
use crate::{Conn, Result, inbox, owed};

/// An appservice and its last registration. When the registration file is removed, the row is kept, and so are the items that the
/// appservice is owed.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = appservices)]
pub struct ServiceRow {
    /// The `id` in the registration.
    pub appservice_id: String,
    /// The registration, as JSON.
    pub registration: String,
    /// The name of the registration file.
    pub file: String,
    /// Whether the file exists.
    pub present: bool,
    /// The id of the last transaction that was frozen for the appservice. Ids only grow.
    pub last_txn: i64,
    /// The features of the registration that were last in force, as JSON. Empty in a row that an older version of this server
    /// wrote.
    pub in_force: String,
    /// The position up to which the appservice has acknowledged transactions.
    pub acknowledged: i64,
}

/// Every appservice that was ever registered and not deleted with [`forget`], in order of id.
pub fn all(db: &mut Conn) -> Result<Vec<ServiceRow>> {
    Ok(on!(db, |c| appservices::table
        .order(appservices::appservice_id)
        .select(ServiceRow::as_select())
        .load(c))?)
}

/// The largest id of a transaction that was frozen for any appservice; 0 if there is none.
pub fn last_transaction(db: &mut Conn) -> Result<i64> {
    let last: Option<i64> = on!(db, |c| appservices::table
        .select(diesel::dsl::max(appservices::last_txn))
        .first(c))?;
    Ok(last.unwrap_or(0))
}

/// Inserts or updates a registration. `last_txn` and `acknowledged` of an existing row stay as they are.
pub fn save(db: &mut Conn, row: &ServiceRow) -> Result<()> {
    use appservices as t;
    on!(db, |c| diesel::insert_into(t::table)
        .values(row)
        .on_conflict(t::appservice_id)
        .do_update()
        .set((
            t::registration.eq(excluded(t::registration)),
            t::file.eq(excluded(t::file)),
            t::present.eq(excluded(t::present)),
            t::in_force.eq(excluded(t::in_force))
        ))
        .kept()
        .execute(c))?;
    Ok(())
}

/// Deletes an appservice and everything it is owed. Returns whether it existed.
pub fn forget(db: &mut Conn, service: &ServiceId) -> Result<bool> {
    owed::forget_service(db, service)?;
    inbox::forget_service(db, service)?;
    let id = service.as_str();
    change!(db, |c| {
        diesel::delete(tracked::table.filter(tracked::appservice_id.eq(id))).execute(c)?;
        diesel::delete(appservice_rooms::table.filter(appservice_rooms::appservice_id.eq(id)))
            .execute(c)?;
        diesel::delete(frozen_transactions::table.find(id)).execute(c)?;
        diesel::delete(back_fills::table.find(id)).execute(c)?;
        diesel::delete(set_aside::table.filter(set_aside::appservice_id.eq(id))).execute(c)?;
        Ok::<_, crate::Error>(diesel::delete(appservices::table.find(id)).execute(c)? == 1)
    })
}
