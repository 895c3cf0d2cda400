//! How far a service had been told of changed keys when device lists were switched off for it.

use diesel::prelude::*;

use super::log::{Kind, store};
use crate::ServiceId;
use crate::tables::{cursors, device_list_log};
use crate::{Conn, Position, Result};

fn name_of(service: &ServiceId) -> String {
    format!("device_lists_until:{service}")
}

/// Device lists are switched off for a service that was told of everything up to here.
///
/// # Errors
/// When the database fails.
pub fn set_told_until(db: &mut Conn, service: &ServiceId, position: Position) -> Result<()> {
    store(db, &name_of(service), position)
}

/// Up to where the service had been told when device lists were switched off for it last; `None` for a service that never was.
///
/// # Errors
/// When the database fails.
pub fn told_until(db: &mut Conn, service: &ServiceId) -> Result<Option<Position>> {
    let position: Option<i64> = on!(db, |c| cursors::table
        .find(name_of(service))
        .select(cursors::position)
        .first(c)
        .optional())?;
    Ok(position.map(Position))
}

/// Of these users, those whose keys changed after a position.
///
/// # Errors
/// When the database fails.
pub fn keys_changed_among(db: &mut Conn, users: &[&str], after: Position) -> Result<Vec<String>> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    Ok(on!(db, |c| device_list_log::table
        .filter(device_list_log::user_id.eq_any(users))
        .filter(device_list_log::position.gt(after.0))
        .filter(device_list_log::kind.eq(Kind::Keys.text()))
        .select(device_list_log::user_id)
        .distinct()
        .load(c))?)
}
