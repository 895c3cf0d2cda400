//! Positions stored under a name, such as how far an actor has read the device-list log.

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::store::kept::Keep as _;
use crate::tables::cursors;
use crate::{Conn, Position, Result};

/// The position stored under a name; 0 if there is none.
pub(crate) fn stored(db: &mut Conn, name: &str) -> Result<Position> {
    Ok(stored_if_any(db, name)?.unwrap_or(Position::START))
}

/// The position stored under a name, if there is one.
pub(crate) fn stored_if_any(db: &mut Conn, name: &str) -> Result<Option<Position>> {
    let position: Option<i64> = on!(db, |c| cursors::table
        .find(name)
        .select(cursors::position)
        .first(c)
        .optional())?;
    Ok(position.map(Position))
}

/// Stores a position under a name.
pub(crate) fn store(db: &mut Conn, name: &str, position: Position) -> Result<()> {
    let row = (cursors::name.eq(name), cursors::position.eq(position.0));
    on!(db, |c| diesel::insert_into(cursors::table)
        .values(&row)
        .on_conflict(cursors::name)
        .do_update()
        .set(cursors::position.eq(excluded(cursors::position)))
        .kept()
        .execute(c))?;
    Ok(())
}
