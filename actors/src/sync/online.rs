//! The users that are online because of requests to `/sync`: while one is under way, and for a short time after it. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a user stays online after its last request; up to twice as long.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// The most users that are online because of requests; for further users `/sync` does not set the presence.
const MOST: usize = 10_000;

/// The `set_presence` value that changes nothing. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
pub(super) const OFFLINE: &str = "offline";

/// A user with requests.
#[derive(Debug, Default)]
struct User {
    /// The number of its requests under way.
    requests: usize,
    /// Whether a request began or ended since the last [`Online::is_over`].
    asked: bool,
}

/// The users with requests to `/sync`.
#[derive(Debug, Default)]
pub(super) struct Online(Mutex<BTreeMap<String, User>>);

impl Online {
    fn users(&self) -> MutexGuard<'_, BTreeMap<String, User>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins. Returns whether the user was not online because of earlier requests; `None` if too many users are online
    /// already.
    pub(super) fn begin(&self, user: &str) -> Option<bool> {
        let mut users = self.users();
        let is_first = !users.contains_key(user);
        if is_first && users.len() >= MOST {
            return None;
        }
        let known = users.entry(user.to_owned()).or_default();
        known.requests += 1;
        known.asked = true;
        Some(is_first)
    }

    pub(super) fn end(&self, user: &str) {
        if let Some(known) = self.users().get_mut(user) {
            known.requests = known.requests.saturating_sub(1);
            known.asked = true;
        }
    }

    /// Whether the user had no request since the last call. If so, the user is removed.
    pub(super) fn is_over(&self, user: &str) -> bool {
        let mut users = self.users();
        let Some(known) = users.get_mut(user) else {
            return true;
        };
        if known.requests > 0 || known.asked {
            known.asked = false;
            return false;
        }
        users.remove(user);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_online_until_it_has_not_asked_for_a_while() {
        let online = Online::default();
        assert_eq!(online.begin("@a"), Some(true));
        assert_eq!(online.begin("@a"), Some(false));
        online.end("@a");
        assert!(!online.is_over("@a"));
        assert!(!online.is_over("@a"), "a request is under way");
        online.end("@a");
        assert!(!online.is_over("@a"), "it has just ended");
        assert!(online.is_over("@a"));
        assert_eq!(online.begin("@a"), Some(true));
    }
}
