//! How far back the log goes, and what is forgotten of it.
//!
//! Owner: `device_lists`.

use diesel::prelude::*;

use super::cursor;
use super::log::{store, stored};
use crate::tables::{cursors, device_list_log};
use crate::{Conn, Position, Result};

/// Up to which position lines of the log were deleted.
const PRUNED: &str = "device_list_log_pruned";

/// What the head was on a day: this and the day's number, with six digits so that names are in order.
const DAY: &str = "head_of_day:";

fn name_of(day: i64) -> String {
    format!("{DAY}{day:06}")
}

/// Up to this position the log is no longer complete: a token below it is too old for it.
///
/// # Errors
/// When the database fails.
pub fn pruned_up_to(db: &mut Conn) -> Result<Position> {
    stored(db, PRUNED)
}

/// Remember where the order stands on a day, once, and answer where it stood on the newest day that is not after another.
///
/// # Errors
/// When the database fails.
pub fn mark_day(db: &mut Conn, day: i64, head: Position, horizon: i64) -> Result<Option<Position>> {
    let row = (cursors::name.eq(name_of(day)), cursors::position.eq(head.0));
    on!(db, |c| diesel::insert_into(cursors::table)
        .values(&row)
        .on_conflict_do_nothing()
        .execute(c))?;
    let newest: Option<(String, i64)> = on!(db, |c| cursors::table
        .filter(cursors::name.between(name_of(0), name_of(horizon)))
        .order(cursors::name.desc())
        .select((cursors::name, cursors::position))
        .first(c)
        .optional())?;
    let Some((name, position)) = newest else {
        return Ok(None);
    };
    on!(db, |c| diesel::delete(
        cursors::table
            .filter(cursors::name.ge(name_of(0)))
            .filter(cursors::name.lt(&name))
    )
    .execute(c))?;
    Ok(Some(Position(position)))
}

/// Delete the oldest lines of the log up to a position, as far as the pass has read it, and at most so many. How many went.
///
/// # Errors
/// When the database fails.
pub fn prune(db: &mut Conn, up_to: Position, limit: i64) -> Result<i64> {
    let up_to = up_to.min(cursor(db)?);
    let oldest: Vec<i64> = on!(db, |c| device_list_log::table
        .filter(device_list_log::position.le(up_to.0))
        .order(device_list_log::position)
        .select(device_list_log::position)
        .limit(limit)
        .load(c))?;
    let Some(last) = oldest.last() else {
        return Ok(0);
    };
    on!(db, |c| diesel::delete(
        device_list_log::table.filter(device_list_log::position.le(last))
    )
    .execute(c))?;
    store(db, PRUNED, Position(*last))?;
    Ok(i64::try_from(oldest.len()).unwrap_or(limit))
}
