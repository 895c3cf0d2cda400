//! Reading long lists in pages.

use schema::Conn;

use crate::Result;

/// How many rows are read at a time.
pub(crate) const PIECE: usize = 1000;

/// Read page by page, each after the last row of the previous one, until a page is not full.
pub(crate) fn all<T>(mut piece: impl FnMut(Option<&T>) -> Result<Vec<T>>) -> Result<Vec<T>> {
    let mut found: Vec<T> = Vec::new();
    loop {
        let rows = piece(found.last())?;
        let is_last = rows.len() < PIECE;
        found.extend(rows);
        if is_last {
            return Ok(found);
        }
    }
}

/// All rooms that a user is joined to.
pub(crate) fn joined_rooms(db: &mut Conn, user: &str) -> Result<Vec<String>> {
    all(|last: Option<&String>| {
        let after = last.map_or("", String::as_str);
        Ok(schema::sync::joined_rooms(db, user, after, PIECE as i64)?)
    })
}
