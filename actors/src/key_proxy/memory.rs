//! Two caches of recent answers by appservices: the keys of their users, and the one-time keys that were given away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ruma::{OwnedUserId, UserId};
use schema::ServiceId;

use crate::key_store::OneTimeKeys;
use crate::key_store::queries::UserKeys;
use crate::runtime::bounded::Bounded;

/// How long an answer is used, even an empty one, in milliseconds. Cached keys can be outdated for this time.
const VALID_FOR: i64 = 10_000;

/// The most bytes of cached answers: the keys of some thousand users.
const ANSWERS: usize = 8 << 20;

/// The most bytes of the names of keys that were given away: some ten thousand. An appservice that repeats a key does so soon,
/// when it is asked again before it has recorded its answer.
const GIVEN_AWAY: usize = 2 << 20;

/// The answers, by user: a query uses an answer whichever other users it names.
pub(super) struct KeyAnswers(Bounded<(ServiceId, OwnedUserId), (i64, Arc<UserKeys>)>);

impl Default for KeyAnswers {
    fn default() -> KeyAnswers {
        KeyAnswers(Bounded::new(ANSWERS, |(service, user), (_, keys)| {
            service.as_str().len() + user.as_str().len() + size(keys)
        }))
    }
}

fn size(keys: &UserKeys) -> usize {
    let of_devices = keys.device_keys.values().flat_map(BTreeMap::values);
    let signing = [
        &keys.master_keys,
        &keys.self_signing_keys,
        &keys.user_signing_keys,
    ];
    let all = of_devices.chain(signing.into_iter().flat_map(BTreeMap::values));
    all.map(|key| key.get().len()).sum()
}

impl KeyAnswers {
    /// The cached keys of these users, and the users about whom the appservice must be asked.
    pub(super) fn known(
        &mut self,
        service: &ServiceId,
        users: BTreeSet<OwnedUserId>,
        now: i64,
    ) -> (BTreeMap<OwnedUserId, Arc<UserKeys>>, BTreeSet<OwnedUserId>) {
        let (mut cached, mut unknown) = (BTreeMap::new(), BTreeSet::new());
        for user in users {
            match self.0.get(&(service.clone(), user.clone())) {
                Some((until, keys)) if now < until => {
                    cached.insert(user, keys);
                }
                _ => {
                    unknown.insert(user);
                }
            }
        }
        (cached, unknown)
    }

    /// Cache the appservice's answer about these users. A user missing from the answer is cached too.
    pub(super) fn learn(
        &mut self,
        service: &ServiceId,
        asked: BTreeSet<OwnedUserId>,
        mut answer: UserKeys,
        now: i64,
    ) -> BTreeMap<OwnedUserId, Arc<UserKeys>> {
        let mut learned = BTreeMap::new();
        for user in asked {
            let keys = Arc::new(of_user(&mut answer, &user));
            let until = now + VALID_FOR;
            self.0
                .put((service.clone(), user.clone()), (until, Arc::clone(&keys)));
            learned.insert(user, keys);
        }
        learned
    }
}

fn of_user(answer: &mut UserKeys, user: &UserId) -> UserKeys {
    fn part<T>(all: &mut BTreeMap<OwnedUserId, T>, user: &UserId) -> BTreeMap<OwnedUserId, T> {
        all.remove_entry(user).into_iter().collect()
    }
    UserKeys {
        device_keys: part(&mut answer.device_keys, user),
        master_keys: part(&mut answer.master_keys, user),
        self_signing_keys: part(&mut answer.self_signing_keys, user),
        user_signing_keys: part(&mut answer.user_signing_keys, user),
    }
}

/// The one-time keys of appservices that were given away: a key that an appservice sends twice is used once.
pub(super) struct GivenKeys(Bounded<String, ()>);

impl Default for GivenKeys {
    fn default() -> GivenKeys {
        GivenKeys(Bounded::new(GIVEN_AWAY, |key, ()| key.len()))
    }
}

impl GivenKeys {
    /// Remove the keys that were given away before, and record the others. Returns a line for each removed key.
    pub(super) fn first_time(&mut self, keys: &mut OneTimeKeys) -> Vec<String> {
        let mut again = Vec::new();
        for (user, devices) in keys.iter_mut() {
            devices.retain(|device, keys| {
                keys.retain(|id, _| {
                    let key = format!("{user} {device} {id}");
                    let is_new = self.0.get(&key).is_none();
                    if is_new {
                        self.0.put(key, ());
                    } else {
                        again.push(format!("{key}: it was given away before"));
                    }
                    is_new
                });
                !keys.is_empty()
            });
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn users(numbers: std::ops::Range<usize>) -> BTreeSet<OwnedUserId> {
        numbers
            .map(|n| UserId::parse(format!("@irc_{n}:test")).expect("a user id"))
            .collect()
    }

    #[test]
    fn an_answer_about_a_user_serves_every_query_for_a_while() {
        let (mut answers, irc) = (KeyAnswers::default(), ServiceId::from("irc"));
        answers.learn(&irc, users(0..3), UserKeys::default(), 0);
        let mut unknown = |who, now| answers.known(&irc, who, now).1;
        assert_eq!(unknown(users(1..5), VALID_FOR - 1), users(3..5));
        assert_eq!(unknown(users(1..5), VALID_FOR), users(1..5));
        let other = answers.known(&ServiceId::from("other"), users(0..3), 1);
        assert_eq!(other.1, users(0..3), "each service has its own answers");
    }

    #[test]
    fn a_key_is_given_away_once_while_it_is_cached() {
        let key = |n: usize| -> OneTimeKeys {
            let keys = json!({"@irc_bob:test": {"GHOST": {format!("signed_curve25519:{n}"): {}}}});
            serde_json::from_value(keys).expect("keys")
        };
        let mut given = GivenKeys::default();
        assert!(given.first_time(&mut key(0)).is_empty());
        let mut again = key(0);
        assert_eq!(given.first_time(&mut again).len(), 1);
        assert!(again.values().all(|devices| devices.is_empty()));
        for n in 1..20_000 {
            assert!(given.first_time(&mut key(n)).is_empty());
        }
        assert!(given.first_time(&mut key(0)).is_empty(), "forgotten");
    }
}
