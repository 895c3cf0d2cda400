//! Key counts of more than one device: whether one that a service must hear of is out of keys, and those of everybody.
//! The counts of one device, and who is owed them: [`crate::appservices`].

use std::collections::BTreeMap;

use diesel::dsl::{count_star, exists, not};
use diesel::prelude::*;

use crate::accounts::{Addressed, DeviceRow};
use crate::appservices::Counts;
use crate::registration::ServiceId;
use crate::tables::{device_keys, devices, fallback_keys, one_time_keys, owed_counts, users};
use crate::{Conn, Position, Result};

/// Whether a service is owed, up to a position, the counts of a device that has no one-time key of this algorithm left.
///
/// Asked of the rows themselves: whatever took the last key, and whether or not the server has started anew since.
///
/// # Errors
/// When the database fails.
pub fn is_owed_a_drain(
    db: &mut Conn,
    service: &ServiceId,
    algorithm: &str,
    up_to: Position,
) -> Result<bool> {
    use {one_time_keys as keys, owed_counts as owed};
    Ok(on!(db, |c| {
        let left = keys::table
            .filter(keys::user_id.eq(owed::user_id))
            .filter(keys::device_id.eq(owed::device_id))
            .filter(keys::algorithm.eq(algorithm));
        let drained = owed::table
            .filter(owed::appservice_id.eq(service.as_str()))
            .filter(owed::position.le(up_to.0))
            .filter(owed::txn.is_null())
            .filter(not(exists(left)));
        diesel::select(exists(drained)).get_result(c)
    })?)
}

/// Every device that has uploaded keys and is picked, with its counts, in order of user and device.
///
/// Costs in proportion to all devices of the server: that is the point of who asks for it.
///
/// # Errors
/// When the database fails.
pub fn of_everybody(
    db: &mut Conn,
    is_picked: impl Fn(&Addressed) -> bool,
) -> Result<Vec<(DeviceRow, Counts)>> {
    use {device_keys as d, fallback_keys as f, one_time_keys as o};
    let mut counts: BTreeMap<(String, String), Counts> = BTreeMap::new();
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
