//! Application services as they are registered, and which of them a room concerns.
//!
//! Owner: `appservices`.

use std::collections::BTreeSet;

use diesel::prelude::*;
use diesel::upsert::excluded;
use serde::{Deserialize, Serialize};

use crate::ServiceId;
use crate::interests::{InForce, Interests};
use crate::registration::Registration;
use crate::tables::{
    aliases, appservice_rooms, appservices, back_fills, frozen_transactions, set_aside, tracked,
};
use crate::{Conn, Result, device_lists, inbox, owed};

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
    /// What was in force for it last, as JSON ([`LastInForce`]); empty where an older version of this server wrote the row.
    pub in_force: String,
    /// Up to which position it has acknowledged its transactions.
    pub acknowledged: i64,
}

/// What was in force for a service when its row was last written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastInForce {
    /// What of its registration was switched on.
    #[serde(flatten)]
    pub in_force: InForce,
    /// The position up to which it was owed account data, where that is off now and was on before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_data_until: Option<i64>,
}

impl ServiceRow {
    /// The registration as it was last in force; `None` when the row is damaged.
    #[must_use]
    pub fn registration(&self) -> Option<Registration> {
        serde_json::from_str(&self.registration).ok()
    }

    /// What was in force; `None` when nobody wrote it down.
    #[must_use]
    pub fn last_in_force(&self) -> Option<LastInForce> {
        serde_json::from_str(&self.in_force).ok()
    }
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

/// The services that something in this room concerns by the room alone: by a joined member, the room's id, or an alias.
pub fn interested_in_room(
    db: &mut Conn,
    interests: &Interests,
    room_id: &str,
) -> Result<BTreeSet<ServiceId>> {
    let mut found: BTreeSet<ServiceId> = device_lists::services_in(db, room_id)?
        .into_iter()
        .collect();
    found.extend(
        interests
            .in_room_id(room_id)
            .into_iter()
            .map(|s| s.id.clone()),
    );
    if interests.has_alias_patterns() {
        let names: Vec<String> = on!(db, |c| aliases::table
            .filter(aliases::room_id.eq(room_id))
            .select(aliases::alias)
            .load(c))?;
        for name in names {
            found.extend(
                interests
                    .in_alias(&name)
                    .into_iter()
                    .map(|(s, _)| s.id.clone()),
            );
        }
    }
    Ok(found)
}
