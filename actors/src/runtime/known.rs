//! What has been looked up lately: whose token it is, which users and devices exist. Every request asks one of these.
//!
//! Only what exists is remembered, and never more than [`LIMIT`] twice over. What a write takes away is forgotten after its
//! commit and before its reply, so a token that was revoked is not honoured by whoever asks after that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::runtime::identity::Identity;

/// How many tokens, users or devices a generation holds. A few hundred bytes each: at most some megabytes in all.
const LIMIT: usize = 4096;

/// A bounded memory in two generations: when the young one is full it becomes the old one, and the old one is forgotten.
/// What is asked for stays, without a clock and without an order to keep.
struct Generations<V> {
    young: BTreeMap<String, V>,
    old: BTreeMap<String, V>,
}

impl<V> Default for Generations<V> {
    fn default() -> Self {
        Generations {
            young: BTreeMap::new(),
            old: BTreeMap::new(),
        }
    }
}

impl<V: Clone> Generations<V> {
    fn get(&mut self, key: &str) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.remove_entry(key)?;
        self.put(key, value.clone());
        Some(value)
    }

    fn put(&mut self, key: String, value: V) {
        if self.young.len() >= LIMIT {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    fn forget(&mut self, key: &str) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

#[derive(Default)]
struct Inner {
    /// How often something was forgotten.
    epoch: u64,
    tokens: Generations<(OwnedUserId, OwnedDeviceId)>,
    users: Generations<()>,
    devices: Generations<()>,
    /// When a device's last use was handed on to be recorded, in milliseconds.
    seen: Generations<i64>,
}

/// A moment before a look-up. What was looked up is remembered only if nothing was forgotten since:
/// the look-up may have seen what the write took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Before(u64);

/// What a write took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gone {
    /// Hashes of tokens.
    pub(crate) tokens: BTreeSet<String>,
    /// Devices.
    pub(crate) devices: BTreeSet<(OwnedUserId, OwnedDeviceId)>,
    /// Users.
    pub(crate) users: BTreeSet<OwnedUserId>,
}

/// What has been looked up lately.
#[derive(Default)]
pub struct Known(Mutex<Inner>);

/// User ids hold no U+0000, so the pair cannot be mistaken for another.
fn device_key(user: &UserId, device: &DeviceId) -> String {
    format!("{user}\0{device}")
}

impl Known {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing between lock and unlock leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn before(&self) -> Before {
        Before(self.lock().epoch)
    }

    pub(crate) fn token(&self, hash: &str) -> Option<Identity> {
        let (user, device) = self.lock().tokens.get(hash)?;
        Some(Identity {
            user,
            device: Some(device),
            appservice: None,
        })
    }

    pub(crate) fn has_user(&self, user: &UserId) -> bool {
        self.lock().users.get(user.as_str()).is_some()
    }

    pub(crate) fn has_device(&self, user: &UserId, device: &DeviceId) -> bool {
        self.lock().devices.get(&device_key(user, device)).is_some()
    }

    /// Whether the last use of this device that was handed on to be recorded is at least `every` milliseconds old. If so, the
    /// one of now counts as handed on.
    pub(crate) fn is_seen_again(
        &self,
        user: &UserId,
        device: &DeviceId,
        now: i64,
        every: i64,
    ) -> bool {
        let (mut inner, key) = (self.lock(), device_key(user, device));
        let news = inner.seen.get(&key).is_none_or(|at| now - at >= every);
        if news {
            inner.seen.put(key, now);
        }
        news
    }

    pub(crate) fn learn_token(
        &self,
        before: Before,
        hash: String,
        user: OwnedUserId,
        device: OwnedDeviceId,
    ) {
        self.learn(before, |inner| inner.tokens.put(hash, (user, device)));
    }

    pub(crate) fn learn_user(&self, before: Before, user: &UserId) {
        self.learn(before, |inner| inner.users.put(user.to_string(), ()));
    }

    pub(crate) fn learn_device(&self, before: Before, user: &UserId, device: &DeviceId) {
        self.learn(before, |inner| {
            inner.devices.put(device_key(user, device), ());
        });
    }

    fn learn(&self, before: Before, what: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        if inner.epoch == before.0 {
            what(&mut inner);
        }
    }

    /// These are gone: their write is committed.
    pub(crate) fn forget(&self, gone: &Gone) {
        let mut inner = self.lock();
        inner.epoch += 1;
        for token in &gone.tokens {
            inner.tokens.forget(token);
        }
        for (user, device) in &gone.devices {
            let key = device_key(user, device);
            inner.devices.forget(&key);
            inner.seen.forget(&key);
        }
        for user in &gone.users {
            inner.users.forget(user.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use ruma::{device_id, user_id};

    use super::*;

    #[test]
    fn what_is_gone_is_not_known_and_is_not_learned_from_an_older_look() {
        let (known, alice, laptop) = (
            Known::default(),
            user_id!("@alice:test"),
            device_id!("LAPTOP"),
        );
        let gone = Gone {
            tokens: BTreeSet::from(["hash".to_owned()]),
            devices: BTreeSet::from([(alice.to_owned(), laptop.to_owned())]),
            users: BTreeSet::from([alice.to_owned()]),
        };
        let all = || {
            (
                known.token("hash").is_some(),
                known.has_user(alice),
                known.has_device(alice, laptop),
            )
        };
        let learn = |before: Before| {
            known.learn_token(before, "hash".to_owned(), alice.into(), laptop.into());
            known.learn_user(before, alice);
            known.learn_device(before, alice, laptop);
        };
        learn(known.before());
        assert_eq!(all(), (true, true, true));
        let looked = known.before();
        known.forget(&gone);
        assert_eq!(all(), (false, false, false));
        learn(looked);
        assert_eq!(all(), (false, false, false));
        learn(known.before());
        assert_eq!(all(), (true, true, true));
    }

    #[test]
    fn a_use_is_handed_on_once_in_a_while() {
        let (known, alice, laptop) = (
            Known::default(),
            user_id!("@alice:test"),
            device_id!("LAPTOP"),
        );
        let seen = |now| known.is_seen_again(alice, laptop, now, 100);
        assert_eq!(
            [seen(0), seen(99), seen(100), seen(199), seen(250)],
            [true, false, true, false, true]
        );
        // Another device may be made under the same id.
        known.forget(&Gone {
            devices: BTreeSet::from([(alice.to_owned(), laptop.to_owned())]),
            ..Gone::default()
        });
        assert!(seen(251));
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_asked_for() {
        let mut generations = Generations::default();
        generations.put("asked for".to_owned(), ());
        for i in 0..3 * LIMIT {
            generations.put(i.to_string(), ());
            assert!(generations.get("asked for").is_some());
        }
        assert!(generations.young.len() + generations.old.len() <= 2 * LIMIT + 1);
        assert!(generations.get("0").is_none());
    }
}
