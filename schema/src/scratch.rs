//! A little memory for prototypes of proposals: `(msc, key) → JSON`, no migration needed.
//!
//! Owner: `proposals`.

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::tables::scratch;
use crate::{Conn, Result};

/// What a proposal stored under this key.
///
/// # Errors
/// When the database fails or the value is not JSON any more.
pub fn get(db: &mut Conn, msc: u16, key: &str) -> Result<Option<serde_json::Value>> {
    let text: Option<String> = on!(db, |c| scratch::table
        .find((i64::from(msc), key))
        .select(scratch::value)
        .first(c)
        .optional())?;
    Ok(text.map(|t| serde_json::from_str(&t)).transpose()?)
}

/// Store a value under a key, replacing what was there.
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
        .execute(c))?;
    Ok(())
}

/// Forget a key. Whether it was there.
pub fn delete(db: &mut Conn, msc: u16, key: &str) -> Result<bool> {
    Ok(on!(db, |c| diesel::delete(
        scratch::table.find((i64::from(msc), key))
    )
    .execute(c))?
        == 1)
}
