//! The keys of devices: identity keys, one-time keys and fallback keys. Cross-signing keys and signatures are in
//! [`crate::signing_keys`].
//!
//! Owner: `key_store`.
//!
//! Next on the way of a claim: `actors/src/key_store/changed.rs`.

use std::collections::BTreeSet;

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::store::kept::Keep as _;
use crate::tables::{
    claimed_keys, device_keys, devices, fallback_keys, key_signatures, one_time_keys,
};
use crate::{Conn, Result, Tx, signing_keys};

/// The most users in one statement.
const USERS: usize = 500;

/// The identity keys of a device, with the bytes that the client sent.
pub fn device_keys(db: &mut Conn, user_id: &str, device_id: &str) -> Result<Option<String>> {
    Ok(on!(db, |c| device_keys::table
        .find((user_id, device_id))
        .select(device_keys::json)
        .first(c)
        .optional())?)
}

/// Whether messages can be encrypted to a device with these identity keys: whether they name an algorithm. If they name none,
/// the device needs no one-time keys, and its counts are not sent.
#[must_use]
pub fn take_messages(identity_keys: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Algorithms {
        algorithms: Vec<serde::de::IgnoredAny>,
    }
    // Identity keys that cannot be read count as keys with an algorithm.
    serde_json::from_str(identity_keys).map_or(true, |keys: Algorithms| !keys.algorithms.is_empty())
}

/// Inserts or replaces the identity keys of a device.
pub fn put_device_keys(db: &mut Conn, user_id: &str, device_id: &str, json: &str) -> Result<()> {
    use device_keys as t;
    let row = (
        t::user_id.eq(user_id),
        t::device_id.eq(device_id),
        t::json.eq(json),
    );
    on!(db, |c| diesel::insert_into(t::table)
        .values(&row)
        .on_conflict((t::user_id, t::device_id))
        .do_update()
        .set(t::json.eq(excluded(t::json)))
        .kept()
        .execute(c))?;
    Ok(())
}

/// A device that has uploaded identity keys.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct DeviceWithKeys {
    /// The user that owns the device.
    pub user_id: String,
    /// The device id.
    pub device_id: String,
    /// Its identity keys, with the bytes that the client sent.
    pub json: String,
    /// The name that the user gave it.
    pub display_name: Option<String>,
}

/// All devices of these users that have uploaded identity keys.
pub fn devices_with_keys(db: &mut Conn, user_ids: &[&str]) -> Result<Vec<DeviceWithKeys>> {
    let joined = device_keys::table
        .inner_join(
            devices::table.on(devices::user_id
                .eq(device_keys::user_id)
                .and(devices::device_id.eq(device_keys::device_id))),
        )
        .select((
            device_keys::user_id,
            device_keys::device_id,
            device_keys::json,
            devices::display_name,
        ));
    let mut all: Vec<DeviceWithKeys> = Vec::new();
    for part in user_ids.chunks(USERS) {
        all.extend(on!(db, |c| joined
            .filter(device_keys::user_id.eq_any(part))
            .kept_for(part.len())
            .load::<DeviceWithKeys>(c))?);
    }
    Ok(all)
}

/// An unclaimed one-time key.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct OneTimeKey {
    /// Its algorithm.
    pub algorithm: String,
    /// Its id without the algorithm.
    pub key_id: String,
    /// The key, with the bytes that the client sent.
    pub json: String,
}

#[derive(Debug, Insertable)]
#[diesel(table_name = one_time_keys)]
struct OneTimeKeyRow<'a> {
    user_id: &'a str,
    device_id: &'a str,
    algorithm: &'a str,
    position: i64,
    key_id: &'a str,
    json: &'a str,
}

/// Up to `limit` one-time keys of a device, in order of algorithm and then of age, the oldest first.
pub fn one_time_keys(
    db: &mut Conn,
    user_id: &str,
    device_id: &str,
    limit: i64,
) -> Result<Vec<OneTimeKey>> {
    use one_time_keys as t;
    Ok(on!(db, |c| t::table
        .filter(t::user_id.eq(user_id))
        .filter(t::device_id.eq(device_id))
        .order((t::algorithm, t::position))
        .limit(limit)
        .select((t::algorithm, t::key_id, t::json))
        .load(c))?)
}

/// Adds one-time keys in this order, after those that exist.
pub fn add_one_time_keys(
    tx: &mut Tx<'_>,
    user_id: &str,
    device_id: &str,
    keys: &[OneTimeKey],
) -> Result<()> {
    let rows: Vec<OneTimeKeyRow<'_>> = keys
        .iter()
        .map(|key| OneTimeKeyRow {
            user_id,
            device_id,
            algorithm: &key.algorithm,
            position: tx.next_position().0,
            key_id: &key.key_id,
            json: &key.json,
        })
        .collect();
    insert_all!(&mut **tx, one_time_keys::table, &rows);
    tx.added(format_args!("one_time_keys"), rows.len());
    Ok(())
}

/// Deletes the oldest one-time key of a device and returns its id and the key, so that it is handed out once. `None` if no key
/// is left. Clause: cs.keys.once
pub fn take_one_time_key(
    tx: &mut Tx<'_>,
    user_id: &str,
    device_id: &str,
    algorithm: &str,
) -> Result<Option<(String, String)>> {
    use one_time_keys as t;
    let oldest: Option<(i64, String, String)> = on!(&mut **tx, |c| t::table
        .filter(t::user_id.eq(user_id))
        .filter(t::device_id.eq(device_id))
        .filter(t::algorithm.eq(algorithm))
        .order(t::position)
        .limit(1)
        .select((t::position, t::key_id, t::json))
        .first(c)
        .optional())?;
    let Some((position, key_id, json)) = oldest else {
        return Ok(None);
    };
    on!(&mut **tx, |c| diesel::delete(
        t::table.find((user_id, device_id, algorithm, position))
    )
    .execute(c))?;
    tx.removed(format_args!("one_time_keys"), 1);
    Ok(Some((key_id, json)))
}

/// A fallback key: handed out when a device has no one-time keys left.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct FallbackKey {
    /// Its id without the algorithm.
    pub key_id: String,
    /// The key, with the bytes that the client sent.
    pub json: String,
    /// Whether it has been handed out.
    pub used: bool,
}

/// The fallback key of a device.
pub fn fallback_key(
    db: &mut Conn,
    user_id: &str,
    device_id: &str,
    algorithm: &str,
) -> Result<Option<FallbackKey>> {
    use fallback_keys as t;
    Ok(on!(db, |c| t::table
        .find((user_id, device_id, algorithm))
        .select((t::key_id, t::json, t::used))
        .first(c)
        .optional())?)
}

/// Records that the fallback key of a device has been handed out. Clause: cs.keys.fallback-stays
pub fn mark_fallback_key_used(
    db: &mut Conn,
    user_id: &str,
    device_id: &str,
    algorithm: &str,
) -> Result<()> {
    use fallback_keys as t;
    on!(db, |c| diesel::update(
        t::table.find((user_id, device_id, algorithm))
    )
    .set(t::used.eq(true))
    .kept()
    .execute(c))?;
    Ok(())
}

/// Inserts or replaces the fallback key of a device for an algorithm. `used` says whether this key has been handed out before.
pub fn put_fallback_key(
    db: &mut Conn,
    user_id: &str,
    device_id: &str,
    algorithm: &str,
    key_id: &str,
    json: &str,
    used: bool,
) -> Result<()> {
    use fallback_keys as t;
    let row = (
        t::user_id.eq(user_id),
        t::device_id.eq(device_id),
        t::algorithm.eq(algorithm),
        t::key_id.eq(key_id),
        t::json.eq(json),
        t::used.eq(used),
    );
    on!(db, |c| diesel::insert_into(t::table)
        .values(&row)
        .on_conflict((t::user_id, t::device_id, t::algorithm))
        .do_update()
        .set((
            t::key_id.eq(excluded(t::key_id)),
            t::json.eq(excluded(t::json)),
            t::used.eq(excluded(t::used))
        ))
        .kept()
        .execute(c))?;
    Ok(())
}

/// Records that the one-time key with this hash was handed out, so that an upload of it is recognised (`key_store/upload.rs`). The
/// record is deleted with the device.
pub fn remember_claimed(tx: &mut Tx<'_>, user_id: &str, device_id: &str, hash: i64) -> Result<()> {
    use claimed_keys as t;
    let row = (
        t::user_id.eq(user_id),
        t::device_id.eq(device_id),
        t::hash.eq(hash),
        t::position.eq(tx.next_position().0),
    );
    on!(&mut **tx, |c| diesel::insert_into(t::table)
        .values(&row)
        .on_conflict_do_nothing()
        .kept()
        .execute(c))?;
    Ok(())
}

/// Those of these hashes whose one-time keys were handed out.
pub fn claimed(
    db: &mut Conn,
    user_id: &str,
    device_id: &str,
    hashes: &[i64],
) -> Result<BTreeSet<i64>> {
    use claimed_keys as t;
    let mut found = BTreeSet::new();
    for part in hashes.chunks(USERS) {
        let part: Vec<i64> = on!(db, |c| t::table
            .filter(t::user_id.eq(user_id))
            .filter(t::device_id.eq(device_id))
            .filter(t::hash.eq_any(part))
            .select(t::hash)
            .kept_for(part.len())
            .load(c))?;
        found.extend(part);
    }
    Ok(found)
}

/// Deletes all but the newest `keep` hashes of a device, once it has more than twice as many. Returns how many it deleted.
pub fn trim_claimed(db: &mut Conn, user_id: &str, device_id: &str, keep: i64) -> Result<usize> {
    use claimed_keys as t;
    macro_rules! of_device {
        () => {
            t::table
                .filter(t::user_id.eq(user_id))
                .filter(t::device_id.eq(device_id))
        };
    }
    let too_many: Option<i64> = on!(db, |c| of_device!()
        .select(t::hash)
        .offset(2 * keep)
        .limit(1)
        .first(c)
        .optional())?;
    if too_many.is_none() {
        return Ok(0);
    }
    let last: i64 = on!(db, |c| of_device!()
        .order(t::position.desc())
        .select(t::position)
        .offset(keep)
        .first(c))?;
    Ok(on!(db, |c| diesel::delete(
        of_device!().filter(t::position.le(last))
    )
    .execute(c))?)
}

/// The number of fallback keys of a device: one for each algorithm.
pub fn count_fallback_keys(db: &mut Conn, user_id: &str, device_id: &str) -> Result<i64> {
    use fallback_keys as t;
    Ok(on!(db, |c| t::table
        .filter(t::user_id.eq(user_id))
        .filter(t::device_id.eq(device_id))
        .count()
        .get_result(c))?)
}

/// Deletes the keys of a device that is deleted in the same write: identity keys, one-time keys, fallback keys, and the
/// signatures over the device and by it. Clause: cs.keys.deleted-device
pub fn forget_device(db: &mut Conn, user_id: &str, device_id: &str) -> Result<()> {
    change!(db, |c| {
        diesel::delete(device_keys::table.find((user_id, device_id))).execute(c)?;
        diesel::delete(
            one_time_keys::table
                .filter(one_time_keys::user_id.eq(user_id))
                .filter(one_time_keys::device_id.eq(device_id)),
        )
        .execute(c)?;
        diesel::delete(
            claimed_keys::table
                .filter(claimed_keys::user_id.eq(user_id))
                .filter(claimed_keys::device_id.eq(device_id)),
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
    signing_keys::forget_signatures_by(db, user_id, &format!("ed25519:{device_id}"))
}
