//! Logins and logouts: devices with their access tokens. Each function makes all changes that belong to its event.
//!
//! Owner: `accounts`.

use std::collections::BTreeSet;

use diesel::prelude::*;

use crate::ServiceId;
use crate::accounts::Addressed;
use crate::accounts::{self, DeviceRow};
use crate::store::kept::Keep as _;
use crate::tables::{access_tokens, cross_signing_keys, devices};
use crate::{Conn, Result, Tx, client_transactions, counts, device_log, inbox, keys};

/// The user and the device of the token with this hash.
pub fn whose_token(db: &mut Conn, token_hash: &str) -> Result<Option<(String, String)>> {
    Ok(on!(db, |c| access_tokens::table
        .find(token_hash)
        .select((access_tokens::user_id, access_tokens::device_id))
        .first(c)
        .optional())?)
}

/// The creator of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceCreator {
    /// The user, by a login or a registration.
    Person,
    /// An appservice.
    Service(ServiceId),
}

/// Creates a device, unless it exists, and records the change of the device list. Returns whether it was created.
pub fn ensure_device(
    tx: &mut Tx<'_>,
    user_id: &str,
    device_id: &str,
    display_name: Option<&str>,
    maker: &DeviceCreator,
) -> Result<bool> {
    if accounts::has_device(tx, user_id, device_id)? {
        return Ok(false);
    }
    let row = DeviceRow {
        user_id: user_id.to_owned(),
        device_id: device_id.to_owned(),
        display_name: display_name.map(str::to_owned),
        appservice_id: match maker {
            DeviceCreator::Person => None,
            DeviceCreator::Service(id) => Some(id.to_string()),
        },
        own_login: *maker == DeviceCreator::Person,
        born: tx.next_position().0,
        last_seen_ts: None,
        last_seen_ip: None,
    };
    on!(&mut **tx, |c| diesel::insert_into(devices::table)
        .values(&row)
        .kept()
        .execute(c))?;
    tx.added(format_args!("devices"), 1);
    device_log::keys_changed(tx, user_id)?;
    Ok(true)
}

/// Changes the name of a device and records the change of the device list. Returns `false` if the device has this name already.
pub fn rename_device(
    tx: &mut Tx<'_>,
    user_id: &str,
    device_id: &str,
    display_name: &str,
) -> Result<bool> {
    let changed = on!(&mut **tx, |c| diesel::update(
        devices::table.find((user_id, device_id)).filter(
            devices::display_name
                .is_null()
                .or(devices::display_name.ne(display_name))
        )
    )
    .set(devices::display_name.eq(display_name))
    .kept()
    .execute(c))?;
    if changed == 1 {
        device_log::keys_changed(tx, user_id)?;
    }
    Ok(changed == 1)
}

/// Replaces the tokens of a device by a new one. Returns the hashes of the old ones.
pub fn replace_token(
    db: &mut Conn,
    user_id: &str,
    device_id: &str,
    token_hash: &str,
    now: i64,
) -> Result<Vec<String>> {
    let before = drop_tokens(db, user_id, device_id)?;
    change!(db, |c| {
        diesel::insert_into(access_tokens::table)
            .values((
                access_tokens::token_hash.eq(token_hash),
                access_tokens::user_id.eq(user_id),
                access_tokens::device_id.eq(device_id),
                access_tokens::created_at.eq(now),
            ))
            .kept()
            .execute(c)?;
        diesel::update(devices::table.find((user_id, device_id)))
            .set(devices::last_seen_ts.eq(now))
            .kept()
            .execute(c)
    })?;
    Ok(before)
}

/// Records that the device made a request at `now` from this address. Skips this if the last recorded request is later than
/// `before`, unless its address is unknown. Returns whether the request was recorded.
pub fn seen(
    db: &mut Conn,
    user_id: &str,
    device_id: &str,
    now: i64,
    before: i64,
    ip: Option<&str>,
) -> Result<bool> {
    let last = (
        devices::last_seen_ts.eq(now),
        ip.map(|ip| devices::last_seen_ip.eq(ip)),
    );
    let recorded = on!(db, |c| diesel::update(
        devices::table.find((user_id, device_id)).filter(
            devices::last_seen_ts
                .is_null()
                .or(devices::last_seen_ts.le(before))
                // After the clock was set back, a time in the future would stay until the clock reaches it.
                .or(devices::last_seen_ts.gt(now))
                .or(devices::last_seen_ip.is_null())
        )
    )
    .set(last)
    .kept()
    .execute(c))?;
    Ok(recorded == 1)
}

fn drop_tokens(db: &mut Conn, user_id: &str, device_id: &str) -> Result<Vec<String>> {
    Ok(on!(db, |c| diesel::delete(
        access_tokens::table
            .filter(access_tokens::user_id.eq(user_id))
            .filter(access_tokens::device_id.eq(device_id))
    )
    .returning(access_tokens::token_hash)
    .get_results(c))?)
}

/// A deleted device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoneDevice {
    /// The device id.
    pub device_id: String,
    /// The hashes of its tokens.
    pub tokens: Vec<String>,
}

/// Deletes devices of a user, as far as they exist, and everything that belongs to them: tokens, keys, signatures over them,
/// to-device messages, transaction ids, and the rows by which appservices are owed their messages and counts, except rows that a
/// frozen transaction carries. Records the change of the device list once. `decide` returns the appservices that decide over a
/// device.
pub fn forget_devices(
    tx: &mut Tx<'_>,
    user_id: &str,
    device_ids: &[String],
    decide: impl Fn(&Addressed) -> BTreeSet<ServiceId>,
) -> Result<Vec<GoneDevice>> {
    let mut gone = Vec::new();
    for device_id in device_ids {
        let Some(device) = accounts::device(tx, user_id, device_id)? else {
            continue;
        };
        counts::forget_counts(tx, &decide(&device), &device.device)?;
        inbox::forget_device(tx, user_id, device_id)?;
        client_transactions::forget_device(tx, user_id, device_id)?;
        keys::forget_device(tx, user_id, device_id)?;
        let tokens = drop_tokens(tx, user_id, device_id)?;
        on!(&mut **tx, |c| diesel::delete(
            devices::table.find((user_id, device_id))
        )
        .execute(c))?;
        tx.removed(format_args!("devices"), 1);
        gone.push(GoneDevice {
            device_id: device_id.clone(),
            tokens,
        });
    }
    if !gone.is_empty() {
        device_log::keys_changed(tx, user_id)?;
    }
    Ok(gone)
}

/// Whether `name` is the public key of one of the user's cross-signing keys. A device id must differ from these.
pub fn is_cross_signing_key(db: &mut Conn, user_id: &str, name: &str) -> Result<bool> {
    let found: Option<String> = on!(db, |c| cross_signing_keys::table
        .filter(cross_signing_keys::user_id.eq(user_id))
        .filter(cross_signing_keys::public_key.eq(name))
        .select(cross_signing_keys::usage)
        .first(c)
        .optional())?;
    Ok(found.is_some())
}
