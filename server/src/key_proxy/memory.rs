//! What services said lately about the keys of their users.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actors::key_store::queries::UserKeys;
use ruma::{OwnedUserId, UserId};
use schema::ServiceId;

/// How long it counts what a service said, or that it said nothing, in milliseconds. As long at most, keys that it changes
/// meanwhile are seen as they were.
const MOMENT: i64 = 10_000;

/// How many users are remembered. Beyond it everything is forgotten, and asked anew.
const LIMIT: usize = 2_000;

type Known = BTreeMap<(ServiceId, OwnedUserId), (i64, Arc<UserKeys>)>;

/// What was said, of each user by itself: whoever queries which others besides gets it without asking again.
#[derive(Default)]
pub(crate) struct KeyAnswers(Mutex<Known>);

impl KeyAnswers {
    fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing between lock and unlock leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of these users still, and about whom the service must be asked.
    pub(crate) fn known(
        &self,
        service: &ServiceId,
        users: BTreeSet<OwnedUserId>,
        now: i64,
    ) -> (BTreeMap<OwnedUserId, Arc<UserKeys>>, BTreeSet<OwnedUserId>) {
        let known = self.lock();
        let (mut said, mut unknown) = (BTreeMap::new(), BTreeSet::new());
        for user in users {
            match known.get(&(service.clone(), user.clone())) {
                Some((until, keys)) if now < *until => {
                    said.insert(user, Arc::clone(keys));
                }
                _ => {
                    unknown.insert(user);
                }
            }
        }
        (said, unknown)
    }

    /// This is what it said of those about whom it was asked: of some of them perhaps nothing, which is remembered alike.
    pub(crate) fn learn(
        &self,
        service: &ServiceId,
        asked: BTreeSet<OwnedUserId>,
        mut said: UserKeys,
        now: i64,
    ) -> BTreeMap<OwnedUserId, Arc<UserKeys>> {
        let mut known = self.lock();
        if known.len() + asked.len() > LIMIT {
            known.retain(|_, (until, _)| now < *until);
            if known.len() + asked.len() > LIMIT {
                known.clear();
            }
        }
        let mut learned = BTreeMap::new();
        for user in asked {
            let keys = Arc::new(of_user(&mut said, &user));
            known.insert(
                (service.clone(), user.clone()),
                (now + MOMENT, Arc::clone(&keys)),
            );
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

#[cfg(test)]
mod tests {
    use super::*;

    fn users(numbers: std::ops::Range<usize>) -> BTreeSet<OwnedUserId> {
        numbers
            .map(|n| UserId::parse(format!("@irc_{n}:test")).expect("a user id"))
            .collect()
    }

    #[test]
    fn each_user_is_asked_about_once_in_a_while_whoever_else_is_queried() {
        let (answers, irc) = (KeyAnswers::default(), ServiceId::from("irc"));
        answers.learn(&irc, users(0..3), UserKeys::default(), 0);
        let unknown = |who, now| answers.known(&irc, who, now).1;
        assert_eq!(unknown(users(1..5), MOMENT - 1), users(3..5));
        assert_eq!(unknown(users(1..5), MOMENT), users(1..5));
        let other = answers.known(&ServiceId::from("other"), users(0..3), 1);
        assert_eq!(other.1, users(0..3), "services are asked for themselves");
    }

    #[test]
    fn the_memory_is_bounded() {
        let (answers, irc) = (KeyAnswers::default(), ServiceId::from("irc"));
        for n in 0..3 * LIMIT {
            answers.learn(&irc, users(n..n + 1), UserKeys::default(), 0);
            assert!(answers.lock().len() <= LIMIT);
        }
    }
}
