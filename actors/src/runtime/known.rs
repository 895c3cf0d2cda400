//! What has been looked up lately: whose token it is, which users and devices exist. Every request asks one of these.
//!
//! Only what exists is remembered, within [`BYTES`]. What a write takes away is forgotten after its commit and before its reply, so a
//! revoked token is rejected as soon as the logout has been answered.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};

use crate::runtime::bounded::Bounded;
use crate::runtime::identity::Identity;

/// How many bytes of tokens, of users, of devices and of their last uses are remembered: some thousand each.
const BYTES: usize = 2 << 20;

struct Inner {
    /// How often something was forgotten.
    epoch: u64,
    tokens: Bounded<String, (OwnedUserId, OwnedDeviceId)>,
    users: Bounded<String, ()>,
    devices: Bounded<String, ()>,
    /// When a device's last use was handed on to be recorded, in milliseconds.
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
        self.lock()
            .devices
            .get(device_key(user, device).as_str())
            .is_some()
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
        let news = inner
            .seen
            .get(key.as_str())
            .is_none_or(|at| now - at >= every);
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
}
