//! The attempts at a transaction and the requests of clients, as the trace holds them.

use std::collections::BTreeMap;
use std::sync::Arc;

use schema::ServiceId;
use serde::Deserialize;

use crate::Env;
use crate::runtime::trace::TracedMessage;

/// An attempt, without its body.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TracedAttempt {
    service: String,
    transaction: i64,
    pub(super) attempt: u32,
    pub(super) at: i64,
    pub(super) outcome: String,
}

/// The attempts at a transaction that the trace holds, oldest first.
pub(super) fn attempts_of(env: &Env, service: &ServiceId, transaction: i64) -> Vec<TracedAttempt> {
    let read = |seen: &TracedMessage| serde_json::from_str(seen.body.get()).ok();
    let all = env.trace.after(0);
    let attempts = all
        .iter()
        .filter(|seen| seen.what == "Attempt")
        .filter_map(read);
    let fits = |attempt: &TracedAttempt| {
        attempt.transaction == transaction && attempt.service == service.as_str()
    };
    attempts.filter(fits).collect()
}

/// The user and the device that made a request.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Requester {
    #[serde(default)]
    pub(super) user: Option<String>,
    #[serde(default)]
    pub(super) device: Option<String>,
}

/// The requests that the trace holds, by name.
pub(super) fn requesters(env: &Env) -> BTreeMap<Arc<str>, Requester> {
    let all = env.trace.following(0, usize::MAX).messages.into_iter();
    let requests = all.filter(|seen| seen.what == "Request");
    let read =
        |seen: TracedMessage| Some((seen.cause, serde_json::from_str(seen.body.get()).ok()?));
    requests.filter_map(read).collect()
}

/// A request to send messages to devices that the trace holds.
#[derive(Debug, Deserialize)]
pub(super) struct TracedDeposit {
    pub(super) from: Requester,
    messages: BTreeMap<String, BTreeMap<String, serde::de::IgnoredAny>>,
}

/// The requests of a user that name a device by its id, each with its time and name.
pub(super) fn naming(
    env: &Env,
    sender: &str,
    user: &str,
    device: &str,
) -> Vec<(i64, Arc<str>, TracedDeposit)> {
    let all = env.trace.after(0).into_iter();
    let deposits = all.filter(|seen| seen.what == "Deposit" && seen.body.get().contains(device));
    let read = |seen: TracedMessage| {
        Some((
            seen.at,
            seen.cause,
            serde_json::from_str(seen.body.get()).ok()?,
        ))
    };
    let fits = |(_, _, deposit): &(i64, Arc<str>, TracedDeposit)| {
        let named = deposit
            .messages
            .get(user)
            .is_some_and(|devices| devices.contains_key(device));
        named && deposit.from.user.as_deref() == Some(sender)
    };
    deposits.filter_map(read).filter(fits).collect()
}
