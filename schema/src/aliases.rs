//! Room aliases.
//!
//! Owner: `rooms`.

use diesel::prelude::*;

use crate::store::kept::Keep as _;
use crate::tables::aliases;
use crate::{Conn, Result};

/// An alias of a room.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = aliases)]
pub struct AliasRow {
    /// The full alias, `#name:server`.
    pub alias: String,
    /// The room that it refers to.
    pub room_id: String,
    /// The user that created it.
    pub creator: String,
}

/// An alias; `None` if it does not exist.
pub fn get(db: &mut Conn, alias: &str) -> Result<Option<AliasRow>> {
    Ok(on!(db, |c| aliases::table
        .find(alias)
        .select(AliasRow::as_select())
        .first(c)
        .optional())?)
}

/// Adds an alias. Returns `false` and changes nothing if it exists.
pub fn put(db: &mut Conn, row: &AliasRow) -> Result<bool> {
    Ok(on!(db, |c| diesel::insert_into(aliases::table)
        .values(row)
        .on_conflict_do_nothing()
        .kept()
        .execute(c))?
        == 1)
}

/// Deletes an alias.
pub fn delete(db: &mut Conn, alias: &str) -> Result<()> {
    on!(db, |c| diesel::delete(aliases::table.find(alias))
        .execute(c))?;
    Ok(())
}

/// The aliases of a room, in order.
pub fn of_room(db: &mut Conn, room_id: &str, limit: i64) -> Result<Vec<String>> {
    Ok(on!(db, |c| aliases::table
        .filter(aliases::room_id.eq(room_id))
        .order(aliases::alias)
        .limit(limit)
        .select(aliases::alias)
        .load(c))?)
}
