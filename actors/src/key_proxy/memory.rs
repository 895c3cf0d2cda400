//! What services said lately about the keys of their users.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::key_store::queries::UserKeys;
use ruma::{OwnedUserId, UserId};
use schema::ServiceId;

/// How long an answer is used, also one that says nothing, in milliseconds: keys can be stale for so long.
const MOMENT: i64 = 10_000;

/// How many users are remembered. Beyond it everything is forgotten and asked for again.
const LIMIT: usize = 2_000;

type Known = BTreeMap<(ServiceId, OwnedUserId), (i64, Arc<UserKeys>)>;

/// What was said of each user: a query gets it without asking again, whichever other users it names.
#[derive(Default)]
pub(super) struct KeyAnswers(Known);

impl KeyAnswers {
    /// What is known of these users, and the users about which the service must be asked.
    pub(super) fn known(
        &self,
        service: &ServiceId,
        users: BTreeSet<OwnedUserId>,
        now: i64,
    ) -> (BTreeMap<OwnedUserId, Arc<UserKeys>>, BTreeSet<OwnedUserId>) {
        let (mut said, mut unknown) = (BTreeMap::new(), BTreeSet::new());
        for user in users {
            match self.0.get(&(service.clone(), user.clone())) {
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

    /// Remember what the service said of the users that it was asked about. Where it said nothing, that is remembered too.
    pub(super) fn learn(
        &mut self,
        service: &ServiceId,
        asked: BTreeSet<OwnedUserId>,
        mut said: UserKeys,
        now: i64,
    ) -> BTreeMap<OwnedUserId, Arc<UserKeys>> {
        let known = &mut self.0;
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
        let (mut answers, irc) = (KeyAnswers::default(), ServiceId::from("irc"));
        answers.learn(&irc, users(0..3), UserKeys::default(), 0);
        let unknown = |who, now| answers.known(&irc, who, now).1;
        assert_eq!(unknown(users(1..5), MOMENT - 1), users(3..5));
        assert_eq!(unknown(users(1..5), MOMENT), users(1..5));
        let other = answers.known(&ServiceId::from("other"), users(0..3), 1);
        assert_eq!(other.1, users(0..3), "services are asked for themselves");
    }

    #[test]
    fn the_memory_is_bounded() {
        let (mut answers, irc) = (KeyAnswers::default(), ServiceId::from("irc"));
        for n in 0..3 * LIMIT {
            answers.learn(&irc, users(n..n + 1), UserKeys::default(), 0);
            assert!(answers.0.len() <= LIMIT);
        }
    }
}
