//! Storage for prototypes of proposals, `(msc, key) → JSON`, so that a prototype needs no migration.
//!
//! Owner: `proposals`.

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::store::kept::Keep as _;
use crate::tables::scratch;
use crate::{Conn, Result};

/// The value that a proposal stored under a key.
///
/// # Errors
/// [`Error::Damaged`](crate::Error::Damaged) if the stored value is not JSON.
pub fn get(db: &mut Conn, msc: u16, key: &str) -> Result<Option<serde_json::Value>> {
    let text: Option<String> = on!(db, |c| scratch::table
        .find((i64::from(msc), key))
        .select(scratch::value)
        .first(c)
        .optional())?;
    Ok(text.map(|t| serde_json::from_str(&t)).transpose()?)
}

/// Inserts or replaces a value.
pub fn put(db: &mut Conn, msc: u16, key: &str, value: &serde_json::Value) -> Result<()> {
    let row = (
        scratch::msc.eq(i64::from(msc)),
        scratch::key.eq(key),
        scratch::value.eq(value.to_string()),
    );
    on!(db, |c| diesel::insert_into(scratch::table)
        .values(&row)
        .on_conflict((scratch::msc, scratch::key))
        .do_update()
        .set(scratch::value.eq(excluded(scratch::value)))
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
