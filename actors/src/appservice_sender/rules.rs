//! What goes into a transaction, and when a failed one is tried again.

use std::collections::BTreeSet;
use std::time::Duration;

use schema::Position;
use schema::registration::CountsPolicy;
use sha2::{Digest, Sha256};

/// The most events, to-device messages or ephemeral items in a transaction.
pub const ITEMS: usize = 100;

/// The most bytes of items in a transaction; a single larger item goes alone.
pub const BYTES: usize = 1 << 20;

/// The most devices whose counts are told in one transaction.
pub const COUNTS: usize = 500;

/// What is owed of one kind, in order: positions and sizes of the oldest, one more than may go where there are more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owed {
    /// Position and size in bytes, by position.
    pub items: Vec<(Position, usize)>,
    /// How many may go.
    pub limit: usize,
}

// ANCHOR: cut
/// The position up to which the next transaction carries everything: the largest one up to `head` at which no kind exceeds its
/// limit and all kinds together stay below [`BYTES`]. The oldest item always goes, however large it is.
///
/// Nothing above the cut is taken, of any kind: so a room key never comes after the event that it decrypts, and acknowledging
/// is one comparison.
#[must_use]
pub fn cut(head: Position, kinds: &[Owed]) -> Position {
    let mut cut = head;
    for kind in kinds {
        if let Some((beyond, _)) = kind.items.get(kind.limit) {
            cut = cut.min(beyond.before());
        }
    }
    let mut all: Vec<(Position, usize)> = kinds
        .iter()
        .flat_map(|k| &k.items)
        .copied()
        .filter(|(p, _)| *p <= cut)
        .collect();
    all.sort_unstable();
    let mut bytes = 0;
    for (i, (position, size)) in all.iter().enumerate() {
        bytes += size;
        if bytes > BYTES && i > 0 {
            // Items of one position belong together: the cut falls before all of them.
            return cut.min(position.before()).max(all[0].0);
        }
    }
    cut
}
// ANCHOR_END: cut

/// A user's device: the full user id and the device id.
pub type Device = (String, String);

// ANCHOR: spoken_of
/// The devices whose counts a transaction tells, each once: those that changed, and as a service's policy has it those that
/// receive a message in the transaction and the sender's own. At most [`COUNTS`], the changed ones first.
///
/// Only devices that the service decides over are given: a bridge sets up encryption for whomever it sees named.
/// [`CountsPolicy::Always`] tells these and everybody else.
#[must_use]
pub fn spoken_of(
    policy: CountsPolicy,
    changed: &[Device],
    received: &[Device],
    own: &[Device],
) -> Vec<Device> {
    let company: [&[Device]; 2] = match policy {
        CountsPolicy::Changed => [&[], &[]],
        CountsPolicy::Recipients | CountsPolicy::Always => [received, own],
    };
    let mut seen = BTreeSet::new();
    let all = changed.iter().chain(company.into_iter().flatten());
    let once = all.filter(|device| seen.insert(*device));
    once.take(COUNTS).cloned().collect()
}
// ANCHOR_END: spoken_of

/// How long to wait after so many failed attempts: doubles from 1 s to 5 min, less up to a quarter so that services that failed
/// together do not all come back together. The same seed and attempt give the same delay. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#pushing-events
#[must_use]
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

/// Whether a service has taken a transaction: any 2xx, whatever its body. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#put_matrixappv1transactionstxnid
#[must_use]
pub fn is_acknowledged(status: u16) -> bool {
    (200..300).contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owed(limit: usize, items: &[(i64, usize)]) -> Owed {
        Owed {
            limit,
            items: items.iter().map(|(p, s)| (Position(*p), *s)).collect(),
        }
    }

    #[test]
    fn cuts() {
        let cases: &[(&str, i64, Vec<Owed>, i64)] = &[
            ("nothing owed", 9, vec![], 9),
            (
                "everything fits",
                9,
                vec![owed(2, &[(1, 1), (3, 1)]), owed(2, &[(2, 1)])],
                9,
            ),
            (
                "one kind is at its limit",
                9,
                vec![
                    owed(2, &[(1, 1), (3, 1), (5, 1)]),
                    owed(2, &[(4, 1), (6, 1)]),
                ],
                4,
            ),
            (
                "the lowest limit wins",
                9,
                vec![owed(1, &[(1, 1), (7, 1)]), owed(1, &[(2, 1), (3, 1)])],
                2,
            ),
            ("bytes", 9, vec![owed(9, &[(1, BYTES), (2, 1)])], 1),
            (
                "bytes across kinds",
                9,
                vec![owed(9, &[(1, BYTES / 2), (4, 1)]), owed(9, &[(3, BYTES)])],
                2,
            ),
            (
                "a single large item goes alone",
                9,
                vec![owed(9, &[(2, BYTES * 2), (3, 1)])],
                2,
            ),
        ];
        for (what, head, kinds, expected) in cases {
            assert_eq!(cut(Position(*head), kinds), Position(*expected), "{what}");
        }
    }

    /// The same question answered by trying every position.
    fn brute(head: i64, kinds: &[Owed]) -> i64 {
        let fits = |p: i64| {
            let counts = kinds
                .iter()
                .all(|k| k.items.iter().filter(|(at, _)| at.0 <= p).count() <= k.limit);
            let taken: Vec<usize> = kinds
                .iter()
                .flat_map(|k| &k.items)
                .filter(|(at, _)| at.0 <= p)
                .map(|(_, s)| *s)
                .collect();
            counts && (taken.iter().sum::<usize>() <= BYTES || taken.len() == 1)
        };
        (0..=head).rev().find(|p| fits(*p)).unwrap_or(0)
    }

    #[test]
    fn the_cut_is_the_largest_position_that_fits() {
        let mut state = 7u64;
        let mut random = move |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for round in 0..3_000 {
            let mut kinds: Vec<Owed> = (0..3)
                .map(|_| owed(1 + usize::try_from(random(4)).unwrap(), &[]))
                .collect();
            let head = 1 + i64::try_from(random(12)).unwrap();
            for position in 1..=head {
                let size =
                    [1, BYTES / 3, BYTES / 2, BYTES + 1][usize::try_from(random(4)).unwrap()];
                let kind = usize::try_from(random(4)).unwrap();
                if let Some(kind) = kinds.get_mut(kind) {
                    kind.items.push((Position(position), size));
                }
            }
            assert_eq!(
                cut(Position(head), &kinds).0,
                brute(head, &kinds),
                "round {round}: {kinds:?} up to {head}"
            );
        }
    }

    #[test]
    fn whose_counts_are_told() {
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
                spoken_of(*policy, &changed, &received, &devices(&["bot", "got"])),
                devices(expected),
                "{policy:?}"
            );
        }
        let many: Vec<Device> = (0..COUNTS)
            .map(|i| (i.to_string(), String::new()))
            .collect();
        let told = spoken_of(CountsPolicy::Recipients, &many, &received, &[]);
        assert_eq!(told, many, "what changed comes first");
    }

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
