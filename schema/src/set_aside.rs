//! Items that an appservice is owed and that are set aside, because no transaction can be composed with them. Later items are sent
//! all the same.
//!
//! The row in [`owed`] gets the mark [`ASIDE`](owed::ASIDE). That row, and the event or message to which it refers, stay, because
//! the appservice has not acknowledged them. The next start of the server tries again, perhaps in a version that can compose a
//! transaction with the item.
//!
//! Owner: `appservice_sender`.

use diesel::prelude::*;

use crate::ServiceId;
use crate::owed::{self, Owed};
use crate::store::kept::Keep as _;
use crate::tables::set_aside;
use crate::{Conn, Result};

/// The most characters of a reason that are stored.
const LONGEST: usize = 500;

/// An item that is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = set_aside)]
pub struct SetAsideRow {
    /// The id of the appservice that is owed it.
    pub appservice_id: String,
    /// Its position.
    pub position: i64,
    /// `event`, `to_device`, `device_list`, `count` or `account_data`.
    pub kind: String,
    /// The reason why it cannot be sent.
    pub why: String,
    /// When it was set aside, in milliseconds since the epoch.
    pub at: i64,
}

/// Sets aside an item that waits.
pub fn put(db: &mut Conn, item: &Owed, why: &str, now: i64) -> Result<()> {
    owed::set_aside(db, item)?;
    let row = SetAsideRow {
        appservice_id: item.appservice_id.clone(),
        position: item.position,
        kind: item.kind.clone(),
        // PostgreSQL cannot store U+0000 in a text.
        why: why.chars().filter(|c| *c != '\0').take(LONGEST).collect(),
        at: now,
    };
    on!(db, |c| diesel::insert_into(set_aside::table)
        .values(&row)
        .on_conflict_do_nothing()
        .kept()
        .execute(c))?;
    Ok(())
}

/// Deletes the reasons of an appservice.
pub fn forget(db: &mut Conn, service: &ServiceId) -> Result<()> {
    on!(db, |c| diesel::delete(
        set_aside::table.filter(set_aside::appservice_id.eq(service.as_str()))
    )
    .execute(c))?;
    Ok(())
}

/// The number of items that are set aside for an appservice.
pub fn count(db: &mut Conn, service: &ServiceId) -> Result<i64> {
    Ok(on!(db, |c| set_aside::table
        .filter(set_aside::appservice_id.eq(service.as_str()))
        .count()
        .get_result(c))?)
}

/// The oldest items that are set aside for an appservice.
pub fn oldest(db: &mut Conn, service: &ServiceId, limit: i64) -> Result<Vec<SetAsideRow>> {
    Ok(on!(db, |c| set_aside::table
        .filter(set_aside::appservice_id.eq(service.as_str()))
        .order(set_aside::position)
        .limit(limit)
        .select(SetAsideRow::as_select())
        .load(c))?)
}
