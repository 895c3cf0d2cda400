//! What a service is owed and cannot be sent, because a transaction with it cannot be composed: the row is set aside with the
//! reason, and what follows goes on.
//!
//! The owed row stays under the mark [`ASIDE`](owed::ASIDE), and so does what stands behind it: nothing was acknowledged.
//! It is tried again when the server starts, perhaps a version that can compose it.
//!
//! Owner: `appservice_sender`.

use diesel::prelude::*;

use crate::ServiceId;
use crate::owed::{self, Owed};
use crate::tables::set_aside;
use crate::{Conn, Result};

/// The longest reason that is kept, in characters.
const LONGEST: usize = 500;

/// A row that is set aside, and why.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = set_aside)]
pub struct Aside {
    /// The service that is owed it.
    pub appservice_id: String,
    /// Its place in the order.
    pub position: i64,
    /// `event`, `to_device`, `device_list`, `count` or `account_data`.
    pub kind: String,
    /// Why it cannot be sent.
    pub why: String,
    /// When it was set aside, in milliseconds since the epoch.
    pub at: i64,
}

/// Set an item aside that waits for a service.
pub fn put(db: &mut Conn, item: &Owed, why: &str, now: i64) -> Result<()> {
    owed::set_aside(db, item)?;
    let row = Aside {
        appservice_id: item.appservice_id.clone(),
        position: item.position,
        kind: item.kind.clone(),
        // PostgreSQL holds no U+0000 in a text.
        why: why.chars().filter(|c| *c != '\0').take(LONGEST).collect(),
        at: now,
    };
    on!(db, |c| diesel::insert_into(set_aside::table)
        .values(&row)
        .on_conflict_do_nothing()
        .execute(c))?;
    Ok(())
}

/// Forget the reasons.
pub fn forget(db: &mut Conn, service: &ServiceId) -> Result<()> {
    on!(db, |c| diesel::delete(
        set_aside::table.filter(set_aside::appservice_id.eq(service.as_str()))
    )
    .execute(c))?;
    Ok(())
}

/// How many rows are set aside for a service.
pub fn count(db: &mut Conn, service: &ServiceId) -> Result<i64> {
    Ok(on!(db, |c| set_aside::table
        .filter(set_aside::appservice_id.eq(service.as_str()))
        .count()
        .get_result(c))?)
}

/// The oldest rows that are set aside for a service.
pub fn oldest(db: &mut Conn, service: &ServiceId, limit: i64) -> Result<Vec<Aside>> {
    Ok(on!(db, |c| set_aside::table
        .filter(set_aside::appservice_id.eq(service.as_str()))
        .order(set_aside::position)
        .limit(limit)
        .select(Aside::as_select())
        .load(c))?)
}
