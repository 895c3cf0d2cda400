//! Values of the server itself: its name and its signing key.
//!
//! Owner: `start`.

use diesel::prelude::*;

use crate::store::kept::Keep as _;
use crate::tables::server;
use crate::{Conn, Result};

/// The value stored under a key.
pub fn get(db: &mut Conn, key: &str) -> Result<Option<String>> {
    Ok(on!(db, |c| server::table
        .find(key)
        .select(server::value)
        .first(c)
        .optional())?)
}

/// Stores a value under a key that has none.
///
/// # Errors
/// [`Error::Database`](crate::Error::Database) if the key has a value.
pub fn put(db: &mut Conn, key: &str, value: &str) -> Result<()> {
    let row = (server::key.eq(key), server::value.eq(value));
    on!(db, |c| diesel::insert_into(server::table)
        .values(&row)
        .kept()
        .execute(c))?;
    Ok(())
}

/// Inserts or replaces a value.
pub fn set(db: &mut Conn, key: &str, value: &str) -> Result<()> {
    let row = (server::key.eq(key), server::value.eq(value));
    on!(db, |c| diesel::insert_into(server::table)
        .values(&row)
        .on_conflict(server::key)
        .do_update()
        .set(server::value.eq(value))
        .kept()
        .execute(c))?;
    Ok(())
}
