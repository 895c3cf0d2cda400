//! What services said lately: the keys of their users, and which of their one-time keys were handed out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ruma::{OwnedUserId, UserId};
use schema::ServiceId;
use serde_json::value::RawValue;

use crate::key_store::OneTimeKeys;
use crate::key_store::queries::UserKeys;
use crate::runtime::bounded::Bounded;

/// How long an answer is used, also one that says nothing, in milliseconds: keys can be stale for so long.
const MOMENT: i64 = 10_000;

/// How many bytes of answers are remembered: the keys of some thousand users.
const ANSWERS: usize = 8 << 20;

/// How many bytes of the names of handed-out keys are remembered: some ten thousand. A service that repeats a key does so soon,
/// when it is asked again before it has noted its answer.
const GIVEN: usize = 2 << 20;

/// What was said of each user: a query gets it without asking again, whichever other users it names.
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
    all.map(|key: &Box<RawValue>| key.get().len()).sum()
}

impl KeyAnswers {
    /// What is known of these users, and the users about which the service must be asked.
    pub(super) fn known(
        &mut self,
        service: &ServiceId,
        users: BTreeSet<OwnedUserId>,
        now: i64,
    ) -> (BTreeMap<OwnedUserId, Arc<UserKeys>>, BTreeSet<OwnedUserId>) {
        let (mut said, mut unknown) = (BTreeMap::new(), BTreeSet::new());
        for user in users {
            match self.0.get(&(service.clone(), user.clone())) {
                Some((until, keys)) if now < until => {
                    said.insert(user, keys);
                }
                _ => {
                    unknown.insert(user);
                }
            }
        }
        (said, unknown)
    }

    /// Remember what the service said of the users that it was asked about. Where it said nothing, that is remembered too.
    pub(super) fn learn(
        &mut self,
        service: &ServiceId,
        asked: BTreeSet<OwnedUserId>,
        mut said: UserKeys,
        now: i64,
    ) -> BTreeMap<OwnedUserId, Arc<UserKeys>> {
        let mut learned = BTreeMap::new();
        for user in asked {
            let keys = Arc::new(of_user(&mut said, &user));
            let until = now + MOMENT;
            self.0
                .put((service.clone(), user.clone()), (until, Arc::clone(&keys)));
            learned.insert(user, keys);
        }
        learned
    }
}

fn of_user(said: &mut UserKeys, user: &UserId) -> UserKeys {
    fn part<T>(all: &mut BTreeMap<OwnedUserId, T>, user: &UserId) -> BTreeMap<OwnedUserId, T> {
        all.remove_entry(user).into_iter().collect()
    }
    UserKeys {
        device_keys: part(&mut said.device_keys, user),
        master_keys: part(&mut said.master_keys, user),
        self_signing_keys: part(&mut said.self_signing_keys, user),
        user_signing_keys: part(&mut said.user_signing_keys, user),
    }
}

/// Which one-time keys of services were handed out: a key that a service names twice is not used twice.
pub(super) struct GivenKeys(Bounded<String, ()>);

impl Default for GivenKeys {
    fn default() -> GivenKeys {
        GivenKeys(Bounded::new(GIVEN, |key, ()| key.len()))
    }
}

impl GivenKeys {
    /// Take out the keys that were handed out before, and note the others. What was taken out: a line each.
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
                        again.push(format!("{key}: it was given out before"));
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
    fn each_user_is_asked_about_once_in_a_while_by_whichever_query() {
        let (mut answers, irc) = (KeyAnswers::default(), ServiceId::from("irc"));
        answers.learn(&irc, users(0..3), UserKeys::default(), 0);
        let mut unknown = |who, now| answers.known(&irc, who, now).1;
        assert_eq!(unknown(users(1..5), MOMENT - 1), users(3..5));
        assert_eq!(unknown(users(1..5), MOMENT), users(1..5));
        let other = answers.known(&ServiceId::from("other"), users(0..3), 1);
        assert_eq!(other.1, users(0..3), "each service is asked for itself");
    }

    #[test]
    fn a_key_is_given_once_as_far_as_is_remembered() {
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
