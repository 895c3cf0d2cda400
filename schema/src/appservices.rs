//! Application services as they are registered.
//!
//! Owner: `appservices`.

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::ServiceId;
use crate::tables::{
    appservice_rooms, appservices, back_fills, frozen_transactions, set_aside, tracked,
};
use crate::{Conn, Result, inbox, owed};

/// A service as it was last registered. The row outlives its file: what it is owed is kept.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = appservices)]
pub struct ServiceRow {
    /// Its id.
    pub appservice_id: String,
    /// The registration, as JSON.
    pub registration: String,
    /// The name of the file it came from.
    pub file: String,
    /// Whether that file is there.
    pub present: bool,
    /// The id of the last transaction that was frozen for it; ids only grow.
    pub last_txn: i64,
    /// What was in force for it last, as JSON; empty where an older version of this server wrote the row.
    pub in_force: String,
    /// Up to which position it has acknowledged its transactions.
    pub acknowledged: i64,
}

/// Every service ever registered and not forgotten, in order of id.
pub fn all(db: &mut Conn) -> Result<Vec<ServiceRow>> {
    Ok(on!(db, |c| appservices::table
        .order(appservices::appservice_id)
        .select(ServiceRow::as_select())
        .load(c))?)
}

/// Register a service or change its registration; its transaction counter stays whatever the row says.
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
        .execute(c))?;
    Ok(())
}

/// Forget a service and everything it is owed. Whether it was known.
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
