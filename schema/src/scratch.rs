//! Storage for proposals, `(msc, key) → JSON`, so that a prototype needs no migration. A value has the position at which it was stored,
//! and may have a time at which its proposal wants to be called.
//!
//! Owner: `proposals`.

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::store::kept::Keep as _;
use crate::tables::scratch;
use crate::{Conn, Position, Result};

/// A stored value.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = scratch, treat_none_as_default_value = false)]
pub struct ScratchRow {
    /// The number of the proposal.
    pub msc: i64,
    /// The key, which the proposal chooses.
    pub key: String,
    /// The value as JSON.
    pub value: String,
    /// The position at which the value was stored.
    pub position: i64,
    /// When the proposal wants to be called, in milliseconds since the epoch.
    pub due: Option<i64>,
}

impl ScratchRow {
    /// A value without a timer, at the start of all positions.
    #[must_use]
    pub fn new(msc: u16, key: &str, value: &str) -> ScratchRow {
        ScratchRow {
            msc: i64::from(msc),
            key: key.to_owned(),
            value: value.to_owned(),
            position: 0,
            due: None,
        }
    }
}

/// The value under a key.
pub fn get(db: &mut Conn, msc: u16, key: &str) -> Result<Option<ScratchRow>> {
    Ok(on!(db, |c| scratch::table
        .find((i64::from(msc), key))
        .select(ScratchRow::as_select())
        .first(c)
        .optional())?)
}

/// Inserts or replaces a value.
pub fn put(db: &mut Conn, row: &ScratchRow) -> Result<()> {
    on!(db, |c| diesel::insert_into(scratch::table)
        .values(row)
        .on_conflict((scratch::msc, scratch::key))
        .do_update()
        .set((
            scratch::value.eq(excluded(scratch::value)),
            scratch::position.eq(excluded(scratch::position)),
            scratch::due.eq(excluded(scratch::due)),
        ))
        .kept()
        .execute(c))?;
    Ok(())
}

/// Deletes a value. Returns whether there was one.
pub fn delete(db: &mut Conn, msc: u16, key: &str) -> Result<bool> {
    Ok(on!(db, |c| diesel::delete(
        scratch::table.find((i64::from(msc), key))
    )
    .execute(c))?
        == 1)
}

/// The values whose key is at least `from` and less than `to`, in the order of the keys.
pub fn range(db: &mut Conn, msc: u16, from: &str, to: &str, limit: i64) -> Result<Vec<ScratchRow>> {
    Ok(on!(db, |c| scratch::table
        .filter(scratch::msc.eq(i64::from(msc)))
        .filter(scratch::key.ge(from))
        .filter(scratch::key.lt(to))
        .order(scratch::key)
        .limit(limit)
        .select(ScratchRow::as_select())
        .kept()
        .load(c))?)
}

/// The values that were stored after `after` and up to `up_to`, in the order in which they were stored.
pub fn since(
    db: &mut Conn,
    msc: u16,
    after: Position,
    up_to: Position,
    limit: i64,
) -> Result<Vec<ScratchRow>> {
    Ok(on!(db, |c| scratch::table
        .filter(scratch::msc.eq(i64::from(msc)))
        .filter(scratch::position.gt(after.0))
        .filter(scratch::position.le(up_to.0))
        .order(scratch::position)
        .limit(limit)
        .select(ScratchRow::as_select())
        .kept()
        .load(c))?)
}

/// The values of these proposals whose time has come, the earliest first.
pub fn due(db: &mut Conn, mscs: &[u16], now: i64, limit: i64) -> Result<Vec<ScratchRow>> {
    let mscs: Vec<i64> = mscs.iter().copied().map(i64::from).collect();
    Ok(on!(db, |c| scratch::table
        .filter(scratch::due.le(now))
        .filter(scratch::msc.eq_any(&mscs))
        .order(scratch::due)
        .limit(limit)
        .select(ScratchRow::as_select())
        .load(c))?)
}

/// Removes the time of a value, unless the value was replaced or deleted since it was read. Returns whether it was removed.
pub fn end_timer(db: &mut Conn, row: &ScratchRow) -> Result<bool> {
    Ok(on!(db, |c| diesel::update(
        scratch::table
            .find((row.msc, &row.key))
            .filter(scratch::position.eq(row.position))
    )
    .set(scratch::due.eq(None::<i64>))
    .kept()
    .execute(c))?
        == 1)
}

/// The earliest time at which one of these proposals wants to be called.
pub fn next_due(db: &mut Conn, mscs: &[u16]) -> Result<Option<i64>> {
    let mscs: Vec<i64> = mscs.iter().copied().map(i64::from).collect();
    Ok(on!(db, |c| scratch::table
        .filter(scratch::due.is_not_null())
        .filter(scratch::msc.eq_any(&mscs))
        .select(diesel::dsl::min(scratch::due))
        .get_result(c))?)
}
