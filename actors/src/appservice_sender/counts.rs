//! The key counts in a transaction: which devices are included, and the format.
//!
//! Next on the way of a claim: `actors/src/appservice_sender/freeze.rs`.

use std::collections::BTreeMap;

use ruma::UserId;
use schema::counts::{self, DeviceCounts};
use schema::{Tx, accounts};

use super::rules::{self, Device};
use crate::Result;
use crate::hooks::{OwedDraft, Withholding};
use crate::services::{CarriesInterests, CountsPolicy, Service, authority};
use crate::wire::PerDevice;

/// The algorithm whose count is included even if it is zero: a client uploads new keys only for algorithms that it sees.
pub const SIGNED_CURVE25519: &str = "signed_curve25519";

/// The counts of a transaction.
#[derive(Debug, Default)]
pub(super) struct TransactionCounts {
    /// Unclaimed one-time keys by algorithm, with an explicit zero where there are none.
    pub(super) one_time: PerDevice<BTreeMap<String, i64>>,
    /// Algorithms with an unused fallback key; an empty list where there are none.
    pub(super) unused_fallback: PerDevice<Vec<String>>,
}

/// Read the key counts for a transaction with these changes and these messages, as they are now. The policy of the registration
/// decides which devices are included (`rules.rs`). Clause: as.counts.without-keys
pub(super) fn to_send(
    tx: &mut Tx<'_>,
    service: &Service,
    changed: &[Device],
    received: &[Device],
) -> Result<TransactionCounts> {
    let (mut result, withholding) = (TransactionCounts::default(), Withholding::of(tx));
    let lets = |(user, device): &Device| {
        withholding.lets_service(service, &OwedDraft::Count { user, device })
    };
    if !service.takes_device_lists {
        return Ok(result);
    }
    if service.counts == CountsPolicy::Always {
        let interests = tx.interests();
        let decides = |to: &accounts::Addressed| {
            let claim = interests.claim(&service.id, &to.device.user_id);
            authority(claim, &service.id, to).is_some()
        };
        for (device, counts) in counts::of_everybody(tx, decides)? {
            let device = (device.user_id, device.device_id);
            if lets(&device) {
                result.add(device, counts)?;
            }
        }
    }
    let own: Vec<Device> = accounts::devices_of(tx, &[&service.sender])?
        .into_iter()
        .map(|to| (to.device.user_id, to.device.device_id))
        .collect();
    let devices = rules::devices_with_counts(service.counts, changed, received, &own);
    for device in devices.into_iter().filter(lets) {
        match counts::counts_of(tx, &device.0, &device.1)? {
            Some(counts) => result.add(device, counts)?,
            // No key of the device is left, because the last one was claimed. The appservice must know that, so that it uploads new
            // ones.
            None if changed.contains(&device) => result.add(device, DeviceCounts::default())?,
            None => {}
        }
    }
    Ok(result)
}

impl TransactionCounts {
    /// Add a device, with an explicit zero, and with an empty list where the fallback key is used or missing.
    /// Clause: as.counts.zero, as.counts.fallback
    fn add(&mut self, (user, device): Device, counts: DeviceCounts) -> Result<()> {
        let user = UserId::parse(user).map_err(|e| schema::Error::Damaged(e.to_string()))?;
        let mut numbers: BTreeMap<String, i64> = counts.one_time.into_iter().collect();
        numbers.entry(SIGNED_CURVE25519.to_owned()).or_insert(0);
        let of_user = self.one_time.entry(user.clone()).or_default();
        of_user.insert(device.as_str().into(), numbers);
        let of_user = self.unused_fallback.entry(user).or_default();
        of_user.insert(device.as_str().into(), counts.unused_fallback);
        Ok(())
    }
}
