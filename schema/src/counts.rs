//! The key counts of devices, and the rows by which appservices are owed them.
//!
//! Owner: `key_store`.
//!
//! Next on the way of a claim: `actors/src/appservice_sender/counts.rs`.

use std::collections::{BTreeMap, BTreeSet};

use diesel::dsl::count_star;
use diesel::prelude::*;

use crate::ServiceId;
use crate::accounts::{Addressed, DeviceRow};
use crate::owed::{self, Owed};
use crate::store::kept::Keep as _;
use crate::tables::{device_keys, devices, fallback_keys, one_time_keys, users};
use crate::{Conn, Result, Tx, keys};

/// Records that the key counts of a device changed, in the write that changed them: each of these appservices is owed the counts.
/// An appservice has one owed row for the device, however often its counts change.
pub fn owe_counts<'a>(
    tx: &mut Tx<'_>,
    services: impl IntoIterator<Item = &'a ServiceId>,
    device: &DeviceRow,
) -> Result<()> {
    for service in services {
        let row = Owed {
            key: owed::key(&[&device.user_id, &device.device_id]),
            ..Owed::new(service, tx.next_position(), owed::COUNT)
        };
        owed::owe_latest(tx, &row)?;
    }
    Ok(())
}

/// The current key counts of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// The number of unclaimed one-time keys for each algorithm. Algorithms without keys are absent.
    pub one_time: Vec<(String, i64)>,
    /// The algorithms whose fallback key is unused.
    pub unused_fallback: Vec<String>,
}

/// The key counts of a device. `None` if it has uploaded no keys, or if its device keys name no algorithm, so that nothing can
/// be encrypted to it: the counts of such a device are not sent.
pub fn counts_of(db: &mut Conn, user_id: &str, device_id: &str) -> Result<Option<DeviceCounts>> {
    use {fallback_keys as f, one_time_keys as o};
    let one_time: Vec<(String, i64)> = on!(db, |c| o::table
        .filter(o::user_id.eq(user_id))
        .filter(o::device_id.eq(device_id))
        .group_by(o::algorithm)
        .select((o::algorithm, diesel::dsl::count_star()))
        .order(o::algorithm)
        .load(c))?;
    let fallback: Vec<(String, bool)> = on!(db, |c| f::table
        .filter(f::user_id.eq(user_id))
        .filter(f::device_id.eq(device_id))
        .select((f::algorithm, f::used))
        .order(f::algorithm)
        .load(c))?;
    if one_time.is_empty() && fallback.is_empty() {
        let identity: Option<String> = on!(db, |c| device_keys::table
            .find((user_id, device_id))
            .select(device_keys::json)
            .first(c)
            .optional())?;
        if !identity.is_some_and(|json| keys::take_messages(&json)) {
            return Ok(None);
        }
    }
    let unused_fallback = fallback
        .into_iter()
        .filter(|(_, used)| !used)
        .map(|(algorithm, _)| algorithm)
        .collect();
    Ok(Some(DeviceCounts {
        one_time,
        unused_fallback,
    }))
}

/// Deletes the counts of a deleted device that these appservices are owed, in the write that deletes the device. Counts in a
/// frozen transaction are sent all the same.
pub fn forget_counts<'a>(
    db: &mut Conn,
    services: impl IntoIterator<Item = &'a ServiceId>,
    device: &DeviceRow,
) -> Result<()> {
    let key = owed::key(&[&device.user_id, &device.device_id]);
    for service in services {
        owed::forget_key(db, service, owed::COUNT, &key)?;
    }
    Ok(())
}

/// Whether at least one of these devices (user id, device id) has no one-time key of this algorithm left.
/// Clause: own.counts.empty-at-once
pub fn is_drained(db: &mut Conn, devices: &[(String, String)], algorithm: &str) -> Result<bool> {
    use one_time_keys as k;
    let users: BTreeSet<&str> = devices.iter().map(|(user, _)| user.as_str()).collect();
    let left: Vec<(String, String)> = on!(db, |c| k::table
        .filter(k::user_id.eq_any(&users))
        .filter(k::algorithm.eq(algorithm))
        .select((k::user_id, k::device_id))
        .distinct()
        .kept_for(users.len())
        .load(c))?;
    let left: BTreeSet<(String, String)> = left.into_iter().collect();
    Ok(devices.iter().any(|device| !left.contains(device)))
}

/// The counts of every device that has uploaded keys and that `is_picked` accepts, in order of user id and device id.
///
/// Reads the devices and keys of the whole server: for an experiment that measures what this costs.
pub fn of_everybody(
    db: &mut Conn,
    is_picked: impl Fn(&Addressed) -> bool,
) -> Result<Vec<(DeviceRow, DeviceCounts)>> {
    use {device_keys as d, fallback_keys as f, one_time_keys as o};
    let mut counts: BTreeMap<(String, String), DeviceCounts> = BTreeMap::new();
    let identities: Vec<(String, String)> =
        on!(db, |c| d::table.select((d::user_id, d::device_id)).load(c))?;
    for device in identities {
        counts.entry(device).or_default();
    }
    let one_time: Vec<(String, String, String, i64)> = on!(db, |c| o::table
        .group_by((o::user_id, o::device_id, o::algorithm))
        .select((o::user_id, o::device_id, o::algorithm, count_star()))
        .order((o::user_id, o::device_id, o::algorithm))
        .load(c))?;
    for (user, device, algorithm, number) in one_time {
        let of_device = counts.entry((user, device)).or_default();
        of_device.one_time.push((algorithm, number));
    }
    let fallback: Vec<(String, String, String, bool)> = on!(db, |c| f::table
        .select((f::user_id, f::device_id, f::algorithm, f::used))
        .order((f::user_id, f::device_id, f::algorithm))
        .load(c))?;
    for (user, device, algorithm, used) in fallback {
        let of_device = counts.entry((user, device)).or_default();
        if !used {
            of_device.unused_fallback.push(algorithm);
        }
    }
    let devices: Vec<(DeviceRow, Option<String>)> = on!(db, |c| devices::table
        .inner_join(users::table.on(users::user_id.eq(devices::user_id)))
        .select((DeviceRow::as_select(), users::appservice_id))
        .order((devices::user_id, devices::device_id))
        .load(c))?;
    let addressed = devices
        .into_iter()
        .map(|(device, account_of)| Addressed { device, account_of });
    let picked = addressed
        .filter(is_picked)
        .filter_map(|to| {
            let key = (to.device.user_id.clone(), to.device.device_id.clone());
            counts.remove(&key).map(|counts| (to.device, counts))
        })
        .collect();
    Ok(picked)
}
