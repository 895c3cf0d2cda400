//! A cache of recent look-ups that every request needs: the owner of a token, and whether a user or a device exists.
//!
//! Only what exists is cached, within `BYTES`. What a write removes is dropped from the cache after the commit and before the
//! reply, so a revoked token is rejected as soon as the logout has been answered.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::runtime::bounded::Bounded;
use crate::runtime::identity::Identity;

/// The bytes of each of the four caches (tokens, users, devices, last uses): some thousand entries each.
const BYTES: usize = 2 << 20;

struct Inner {
    /// How often entries were removed since the start of the server.
    epoch: u64,
    tokens: Bounded<String, (OwnedUserId, OwnedDeviceId)>,
    users: Bounded<String, ()>,
    devices: Bounded<String, ()>,
    /// When the last use of a device was passed on to be recorded, in milliseconds.
    seen: Bounded<String, i64>,
}

impl Default for Inner {
    fn default() -> Inner {
        Inner {
            epoch: 0,
            tokens: Bounded::new(BYTES, |hash, (user, device)| {
                hash.len() + user.as_str().len() + device.as_str().len()
            }),
            users: Bounded::new(BYTES, |user, ()| user.len()),
            devices: Bounded::new(BYTES, |device, ()| device.len()),
            seen: Bounded::new(BYTES, |device, _| device.len()),
        }
    }
}

/// The state of the cache before a look-up. The result is cached only if nothing was removed since, because the look-up may
/// have read a row that the write removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheEpoch(u64);

/// The tokens, devices and users that a write removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    /// Hashes of tokens.
    pub(crate) tokens: BTreeSet<String>,
    /// Devices.
    pub(crate) devices: BTreeSet<(OwnedUserId, OwnedDeviceId)>,
    /// Users.
    pub(crate) users: BTreeSet<OwnedUserId>,
}

/// The cache.
#[derive(Default)]
pub struct IdentityCache(Mutex<Inner>);

/// User ids hold no U+0000, so two different pairs cannot have the same key.
fn device_key(user: &UserId, device: &DeviceId) -> String {
    format!("{user}\0{device}")
}

impl IdentityCache {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete when the lock is released, even after a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn before(&self) -> CacheEpoch {
        CacheEpoch(self.lock().epoch)
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
        self.lock()
            .devices
            .get(device_key(user, device).as_str())
            .is_some()
    }

    /// Whether the last recorded use of this device is at least `every` milliseconds old. If so, now becomes its last recorded
    /// use.
    pub(crate) fn is_seen_again(
        &self,
        user: &UserId,
        device: &DeviceId,
        now: i64,
        every: i64,
    ) -> bool {
        let (mut inner, key) = (self.lock(), device_key(user, device));
        let is_due = inner
            .seen
            .get(key.as_str())
            .is_none_or(|at| now - at >= every);
        if is_due {
            inner.seen.put(key, now);
        }
        is_due
    }

    pub(crate) fn learn_token(
        &self,
        before: CacheEpoch,
        hash: String,
        user: OwnedUserId,
        device: OwnedDeviceId,
    ) {
        self.learn(before, |inner| inner.tokens.put(hash, (user, device)));
    }

    pub(crate) fn learn_user(&self, before: CacheEpoch, user: &UserId) {
        self.learn(before, |inner| inner.users.put(user.to_string(), ()));
    }

    pub(crate) fn learn_device(&self, before: CacheEpoch, user: &UserId, device: &DeviceId) {
        self.learn(before, |inner| {
            inner.devices.put(device_key(user, device), ());
        });
    }

    fn learn(&self, before: CacheEpoch, what: impl FnOnce(&mut Inner)) {
        let mut inner = self.lock();
        if inner.epoch == before.0 {
            what(&mut inner);
        }
    }

    /// Remove from the cache what a committed write removed from the database.
    pub(crate) fn forget(&self, gone: &Removed) {
        let mut inner = self.lock();
        inner.epoch += 1;
        for token in &gone.tokens {
            inner.tokens.forget(token.as_str());
        }
        for (user, device) in &gone.devices {
            let key = device_key(user, device);
            inner.devices.forget(key.as_str());
            inner.seen.forget(key.as_str());
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
    fn a_removed_entry_is_not_cached_again_by_an_older_look_up() {
        let (known, alice, laptop) = (
            IdentityCache::default(),
            user_id!("@alice:test"),
            device_id!("LAPTOP"),
        );
        let gone = Removed {
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
        let learn = |before: CacheEpoch| {
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
    fn the_use_of_a_device_is_recorded_at_intervals() {
        let (known, alice, laptop) = (
            IdentityCache::default(),
            user_id!("@alice:test"),
            device_id!("LAPTOP"),
        );
        let seen = |now| known.is_seen_again(alice, laptop, now, 100);
        assert_eq!(
            [seen(0), seen(99), seen(100), seen(199), seen(250)],
            [true, false, true, false, true]
        );
        // A new device may get the same id.
        known.forget(&Removed {
            devices: BTreeSet::from([(alice.to_owned(), laptop.to_owned())]),
            ..Removed::default()
        });
        assert!(seen(251));
    }
}
