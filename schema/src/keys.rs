//! The keys of devices and users.

use diesel::prelude::*;

use crate::tables::{device_keys, fallback_keys, key_signatures, one_time_keys};
use crate::{Conn, Result};

/// The device is gone: its identity keys, one-time keys, fallback keys and the signatures over it go too.
/// Part of the write that deletes the device.
///
/// # Errors
/// When the database fails.
pub fn forget_device(db: &mut Conn, user_id: &str, device_id: &str) -> Result<()> {
    on!(db, |c| {
        diesel::delete(device_keys::table.find((user_id, device_id))).execute(c)?;
        diesel::delete(
            one_time_keys::table
                .filter(one_time_keys::user_id.eq(user_id))
                .filter(one_time_keys::device_id.eq(device_id)),
        )
        .execute(c)?;
        diesel::delete(
            fallback_keys::table
                .filter(fallback_keys::user_id.eq(user_id))
                .filter(fallback_keys::device_id.eq(device_id)),
        )
        .execute(c)?;
        diesel::delete(
            key_signatures::table
                .filter(key_signatures::target_user.eq(user_id))
                .filter(key_signatures::target_key.eq(device_id)),
        )
        .execute(c)
    })?;
    Ok(())
}
