//! What the trace holds of attempts at transactions, of requests of clients, and of messages to devices.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::Env;
use crate::runtime::trace::TracedMessage;

/// What the trace held at one moment, oldest first.
pub(super) struct Traced(Vec<TracedMessage>);

/// An attempt, without its body.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TracedAttempt {
    service: String,
    transaction: i64,
    pub(super) attempt: u32,
    pub(super) at: i64,
    pub(super) outcome: String,
}

/// The user and the device that made a request.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Requester {
    #[serde(default)]
    pub(super) user: Option<String>,
    #[serde(default)]
    pub(super) device: Option<String>,
}

/// A request to send messages to devices.
#[derive(Deserialize)]
struct TracedDeposit {
    from: Requester,
    messages: BTreeMap<String, BTreeMap<String, IgnoredAny>>,
}

impl Traced {
    /// What the trace holds now.
    pub(super) fn now(env: &Env) -> Traced {
        Traced(env.trace.following(0, usize::MAX).messages)
    }

    fn bodies<T: DeserializeOwned>(&self, what: &str) -> impl Iterator<Item = (&TracedMessage, T)> {
        let of_type = self.0.iter().filter(move |seen| seen.what == what);
        of_type.filter_map(|seen| Some((seen, serde_json::from_str(seen.body.get()).ok()?)))
    }

    /// The attempts at transactions to this appservice, oldest first, by transaction.
    pub(super) fn attempts(&self, service: &str) -> BTreeMap<i64, Vec<TracedAttempt>> {
        let mut all: BTreeMap<i64, Vec<TracedAttempt>> = BTreeMap::new();
        for (_, attempt) in self.bodies::<TracedAttempt>("Attempt") {
            if attempt.service == service {
                all.entry(attempt.transaction).or_default().push(attempt);
            }
        }
        all
    }

    /// The requests of clients, by name.
    pub(super) fn requesters(&self) -> BTreeMap<Arc<str>, Requester> {
        let requests = self.bodies("Request");
        requests
            .map(|(seen, by)| (Arc::clone(&seen.cause), by))
            .collect()
    }

    /// When a user first named this device in a request that sends messages to devices, in milliseconds since the epoch.
    pub(super) fn named_at(&self, sender: &str, user: &str, device: &str) -> Option<i64> {
        let fits = |deposit: &TracedDeposit| {
            let devices = deposit.messages.get(user);
            deposit.from.user.as_deref() == Some(sender)
                && devices.is_some_and(|devices| devices.contains_key(device))
        };
        let mut deposits = self.bodies::<TracedDeposit>("Deposit");
        deposits
            .find(|(_, deposit)| fits(deposit))
            .map(|(seen, _)| seen.at)
    }
}
