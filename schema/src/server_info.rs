//! What the server is: its name, its signing key.
//!
//! Owner: `start`.

use diesel::prelude::*;

use crate::tables::server;
use crate::{Conn, Result};

/// A value stored under this key.
pub fn get(db: &mut Conn, key: &str) -> Result<Option<String>> {
    Ok(on!(db, |c| server::table
        .find(key)
        .select(server::value)
        .first(c)
        .optional())?)
}

/// Store a value under a key that has none yet.
///
/// # Errors
/// When the database fails, or the key has a value.
pub fn put(db: &mut Conn, key: &str, value: &str) -> Result<()> {
    let row = (server::key.eq(key), server::value.eq(value));
    on!(db, |c| diesel::insert_into(server::table)
        .values(&row)
        .execute(c))?;
    Ok(())
}

/// Store a value under a key, whatever it was before.
pub fn set(db: &mut Conn, key: &str, value: &str) -> Result<()> {
    let row = (server::key.eq(key), server::value.eq(value));
    on!(db, |c| diesel::insert_into(server::table)
        .values(&row)
        .on_conflict(server::key)
        .do_update()
        .set(server::value.eq(value))
        .execute(c))?;
    Ok(())
}
