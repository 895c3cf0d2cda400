//! Which one-time keys of services were given out lately: a service that names one twice does not get it used twice.

use std::collections::{BTreeSet, VecDeque};

use crate::key_store::OneTimeKeys;

/// How many keys are remembered. A service that repeats itself does so soon: when it was asked again before it had noted what
/// it said.
const LIMIT: usize = 10_000;

/// The keys, and the order in which they are forgotten.
#[derive(Default)]
pub(super) struct GivenKeys {
    given: BTreeSet<String>,
    order: VecDeque<String>,
}

impl GivenKeys {
    /// Take out what was given before, and note the rest as given. What was taken out: a line each.
    pub(super) fn first_time(&mut self, keys: &mut OneTimeKeys) -> Vec<String> {
        let GivenKeys { given, order } = self;
        let mut again = Vec::new();
        for (user, devices) in keys.iter_mut() {
            devices.retain(|device, keys| {
                keys.retain(|id, _| {
                    let key = format!("{user} {device} {id}");
                    let new = given.insert(key.clone());
                    if new {
                        order.push_back(key);
                    } else {
                        again.push(format!("{key}: it was given out before"));
                    }
                    new
                });
                !keys.is_empty()
            });
        }
        while order.len() > LIMIT
            && let Some(oldest) = order.pop_front()
        {
            given.remove(&oldest);
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(n: usize) -> OneTimeKeys {
        let keys = json!({"@irc_bob:test": {"GHOST": {format!("signed_curve25519:{n}"): {}}}});
        serde_json::from_value(keys).expect("keys")
    }

    #[test]
    fn a_key_is_given_once_as_far_as_is_remembered() {
        let mut given = GivenKeys::default();
        for n in 0..LIMIT {
            assert!(given.first_time(&mut key(n)).is_empty());
        }
        let mut again = key(0);
        assert_eq!(given.first_time(&mut again).len(), 1);
        assert!(again.values().all(|devices| devices.is_empty()));
        given.first_time(&mut key(LIMIT));
        assert!(given.first_time(&mut key(0)).is_empty(), "forgotten");
    }
}
