//! The limits of a transaction, and the delay before a failed one is retried.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::services::CountsPolicy;

use schema::{Position, owed};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// The most events, to-device messages or ephemeral items in a transaction.
pub const ITEMS: usize = 100;

/// The most bytes of items in a transaction; a single larger item goes alone.
pub const BYTES: usize = 1 << 20;

/// The most devices with counts in one transaction.
pub const COUNTS: usize = 500;

/// The most device-list changes in a transaction. With user ids of usual length the limit of bytes is reached far earlier.
const LISTS: usize = 10_000;

/// The most items of a kind in a transaction, with the name of the limit: kinds with the same name share it.
pub fn limit(kind: &str) -> (&'static str, usize) {
    match kind {
        owed::EVENT => ("events", ITEMS),
        owed::TO_DEVICE | owed::OBSERVED | owed::GRANTED => ("to_device", ITEMS),
        owed::DEVICE_LIST => ("device_lists", LISTS),
        owed::COUNT => ("counts", COUNTS),
        _ => ("others", ITEMS),
    }
}

// ANCHOR: cut
/// The position up to which the next transaction carries everything: the largest one up to `head` at which the items, given as
/// position and size in order, stay below [`BYTES`] together. Items at one position go together, and the oldest position always
/// goes, whatever its size. Clause: as.to-device.before-event, own.txn.one-cut
///
/// No item of any kind above that position is taken, so a room key never arrives after the event that it decrypts.
pub fn cut(head: Position, items: &[(Position, usize)]) -> Position {
    let mut bytes = 0;
    for (i, (position, size)) in items.iter().enumerate() {
        bytes += size;
        if bytes > BYTES && i > 0 {
            return position.before().max(items[0].0);
        }
    }
    head
}
// ANCHOR_END: cut

/// A user's device: the full user id and the device id.
pub type Device = (String, String);

// ANCHOR: devices_with_counts
/// The devices whose counts a transaction includes, each once: those that changed and, depending on the appservice's policy,
/// those that receive a message in the transaction and those of its sender. At most [`COUNTS`], the changed ones first.
///
/// Only devices over which the appservice decides may be passed in: a bridge sets up encryption for every user that it sees.
/// With [`CountsPolicy::Always`] the caller adds all other such devices. Clause: as.counts.recipient, as.counts.sender
pub fn devices_with_counts(
    policy: CountsPolicy,
    changed: &[Device],
    received: &[Device],
    own: &[Device],
) -> Vec<Device> {
    let also: [&[Device]; 2] = match policy {
        CountsPolicy::Changed => [&[], &[]],
        CountsPolicy::Recipients | CountsPolicy::Always => [received, own],
    };
    let mut seen = BTreeSet::new();
    let all = changed.iter().chain(also.into_iter().flatten());
    let once = all.filter(|device| seen.insert(*device));
    once.take(COUNTS).cloned().collect()
}
// ANCHOR_END: devices_with_counts

/// The delay after this many failed attempts: it doubles from 1 s to 5 min, minus up to a quarter, so that appservices that
/// failed together are not retried together. The same seed and attempt give the same delay. ([spec]) Clause: as.txn.back-off
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#pushing-events
pub fn back_off(failed_attempts: u32, seed: &str) -> Duration {
    const LONGEST: u64 = 300_000;
    let doubled = 1_000u64
        .checked_shl(failed_attempts.saturating_sub(1).min(20))
        .unwrap_or(LONGEST)
        .min(LONGEST);
    let hash = Sha256::digest(format!("{seed}/{failed_attempts}"));
    let chance = u64::from(u16::from_be_bytes([hash[0], hash[1]]));
    let jitter = if failed_attempts <= 1 {
        0
    } else {
        doubled / 4 * chance / u64::from(u16::MAX)
    };
    Duration::from_millis(doubled - jitter)
}

/// Whether an appservice has accepted a transaction: any 2xx, whatever its body. ([spec]) Clause: as.txn.success
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#put_matrixappv1transactionstxnid
pub fn is_acknowledged(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Why a row cannot be sent, if the error comes from the row itself. Other errors are returned.
pub(super) fn reason(error: Error) -> Result<String> {
    match error {
        Error::Storage(storage) if storage.is_damage() => Ok(storage.to_string()),
        Error::Refused(refusal) => Ok(refusal.to_string()),
        other => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clause: as.to-device.before-event
    /// Clause: own.txn.one-cut
    #[test]
    fn cuts() {
        type Items<'a> = &'a [(i64, usize)];
        let cases: &[(&str, Items<'_>, i64)] = &[
            ("nothing is owed", &[], 9),
            ("everything fits", &[(1, 1), (3, BYTES - 1)], 9),
            ("one byte too many", &[(1, BYTES), (4, 1), (5, 1)], 3),
            (
                "a single large item goes alone",
                &[(2, BYTES * 2), (3, 1)],
                2,
            ),
            ("the last item is too large", &[(2, 1), (9, BYTES)], 8),
            (
                "what stands at one position goes together",
                &[(2, 1), (2, BYTES), (5, 1)],
                2,
            ),
            (
                "what does not fit goes together later",
                &[(2, 1), (4, 1), (4, BYTES)],
                3,
            ),
        ];
        for (what, items, expected) in cases {
            let items: Vec<_> = items
                .iter()
                .map(|(p, size)| (Position(*p), *size))
                .collect();
            assert_eq!(cut(Position(9), &items), Position(*expected), "{what}");
        }
    }

    #[test]
    fn devices_whose_counts_are_sent() {
        let devices = |names: &[&str]| -> Vec<Device> {
            let device = |name: &&str| ((*name).to_owned(), "D".to_owned());
            names.iter().map(device).collect()
        };
        let cases: &[(CountsPolicy, &[&str])] = &[
            (CountsPolicy::Recipients, &["changed", "both", "got", "bot"]),
            (CountsPolicy::Changed, &["changed", "both"]),
            (CountsPolicy::Always, &["changed", "both", "got", "bot"]),
        ];
        let (changed, received) = (devices(&["changed", "both"]), devices(&["both", "got"]));
        for (policy, expected) in cases {
            assert_eq!(
                devices_with_counts(*policy, &changed, &received, &devices(&["bot", "got"])),
                devices(expected),
                "{policy:?}"
            );
        }
        let many: Vec<Device> = (0..COUNTS)
            .map(|i| (i.to_string(), String::new()))
            .collect();
        let devices = devices_with_counts(CountsPolicy::Recipients, &many, &received, &[]);
        assert_eq!(devices, many, "what changed comes first");
    }

    /// Clause: as.txn.back-off
    #[test]
    fn back_off_grows_to_five_minutes() {
        assert_eq!(back_off(1, "irc"), Duration::from_secs(1));
        let mut last = Duration::ZERO;
        for attempt in 1..40 {
            let delay = back_off(attempt, "irc");
            assert!(
                delay <= Duration::from_secs(300) && delay >= Duration::from_secs(1),
                "{attempt}: {delay:?}"
            );
            if attempt < 9 {
                assert!(delay > last, "{attempt}: {delay:?} after {last:?}");
            }
            last = delay;
        }
        assert!(back_off(30, "irc") >= Duration::from_secs(225));
        assert_ne!(
            back_off(30, "irc"),
            back_off(30, "xmpp"),
            "services that failed together come back apart"
        );
    }

    /// Clause: as.txn.success
    #[test]
    fn any_success_is_an_acknowledgement() {
        assert!(is_acknowledged(200) && is_acknowledged(202) && is_acknowledged(299));
        assert!(
            !is_acknowledged(199)
                && !is_acknowledged(302)
                && !is_acknowledged(401)
                && !is_acknowledged(500)
        );
    }
}
