//! The budget for bytes of request bodies, held from their arrival until the request is answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The most bytes of all bodies together.
const ALL: usize = 64 << 20;

/// The most bytes of one caller: two of the largest bodies.
const OF_ONE: usize = ALL / 4;

/// The most bytes of all callers without a token together, so that they leave room for authenticated callers.
const ANONYMOUS: usize = ALL / 4;

/// How long a body may take before the minimum pace applies.
const GRACE: Duration = Duration::from_secs(10);

/// The minimum pace in bytes per second, slower than a mobile phone on a bad connection.
const PACE: u64 = 8 << 10;

/// The longest time in which this many bytes may have arrived.
pub(crate) fn allowed(arrived: usize) -> Duration {
    let arrived = u64::try_from(arrived).unwrap_or(u64::MAX);
    GRACE + Duration::from_millis(arrived.saturating_mul(1000) / PACE)
}

#[derive(Default)]
struct ReservedBytes {
    all: usize,
    anonymous: usize,
    of: BTreeMap<String, usize>,
    /// How often there was no room.
    refused: u64,
}

/// The reserved bytes by caller. Clones share one budget.
#[derive(Clone, Default)]
pub(crate) struct Bodies(Arc<Mutex<ReservedBytes>>);

/// The bytes that one body has reserved; released when dropped.
pub(crate) struct Reserved {
    bodies: Bodies,
    caller: String,
    anonymous: bool,
    bytes: usize,
}

impl Bodies {
    fn lock(&self) -> MutexGuard<'_, ReservedBytes> {
        // No code that holds the lock can panic, so a poisoned lock is consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes reserved by all bodies.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().all
    }

    /// How often there was no room for more bytes.
    pub(super) fn refused(&self) -> u64 {
        self.lock().refused
    }

    /// A reservation of no bytes, for a body that has not begun to arrive.
    pub(crate) fn begin(&self, caller: String, anonymous: bool) -> Reserved {
        Reserved {
            bodies: self.clone(),
            caller,
            anonymous,
            bytes: 0,
        }
    }
}

impl Reserved {
    /// Reserve this many bytes more; `false`, and no change, if the budget has no room for them.
    #[must_use]
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let mut held = self.bodies.lock();
        let of_caller = held.of.get(&self.caller).copied().unwrap_or_default();
        let room = held.all + bytes <= ALL
            && of_caller + bytes <= OF_ONE
            && (!self.anonymous || held.anonymous + bytes <= ANONYMOUS);
        if room && bytes > 0 {
            held.all += bytes;
            held.anonymous += if self.anonymous { bytes } else { 0 };
            held.of.insert(self.caller.clone(), of_caller + bytes);
            self.bytes += bytes;
        }
        held.refused += u64::from(!room);
        room
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut held = self.bodies.lock();
        held.all -= self.bytes;
        held.anonymous -= if self.anonymous { self.bytes } else { 0 };
        let left = held.of.get(&self.caller).map_or(0, |of| of - self.bytes);
        if left == 0 {
            held.of.remove(&self.caller);
        } else {
            held.of.insert(self.caller.clone(), left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_free_again() {
        let bodies = Bodies::default();
        let hold = |caller: &str, anonymous: bool, bytes: usize| {
            let mut one = bodies.begin(caller.to_owned(), anonymous);
            one.grow(bytes).then_some(one)
        };
        let alice = hold("alice", false, OF_ONE).expect("there is room");
        assert!(hold("alice", false, 1).is_none(), "one caller has a share");
        let strangers = hold("192.0.2.1", true, ANONYMOUS).expect("there is room");
        assert!(hold("192.0.2.2", true, 1).is_none(), "so have strangers");
        let rest: Vec<_> = ["bob", "carol"]
            .map(|name| hold(name, false, OF_ONE).expect("there is room"))
            .into();
        assert!(hold("dave", false, 1).is_none(), "and all together");
        drop(alice);
        assert!(hold("dave", false, OF_ONE).is_some());
        drop((strangers, rest));
        let held = bodies.lock();
        assert_eq!((held.all, held.anonymous, held.of.len()), (0, 0, 0));
    }

    #[test]
    fn a_body_must_keep_a_pace() {
        assert_eq!(allowed(0), Duration::from_secs(10));
        assert_eq!(allowed(8 << 10), Duration::from_secs(11));
        assert_eq!(allowed(8 << 20), Duration::from_secs(10 + 1024));
    }
}
