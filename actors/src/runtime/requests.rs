//! Log lines that follow a request into the transactions that carry what it owes.
//!
//! A request has an id, the end of its cause in the trace. It is on the line of the request itself (`server/src/http/router.rs`) and on
//! the line `owed`, which names the position up to which the request owes an appservice something. Transactions are slices of one order: the
//! first transaction of the appservice whose `up_to` is not below that position carries the item. So nothing but lines is needed to find
//! it, and no row has to store an id.

use schema::transactions::Frozen;
use schema::{Position, ServiceId};
use tracing::Level;

use crate::runtime::trace;

/// The target of these lines. They have the level `debug`, so a filter that contains `requests=debug` shows them.
pub const TARGET: &str = "requests";

/// Whether these lines are logged.
pub fn are_logged() -> bool {
    tracing::enabled!(target: TARGET, Level::DEBUG)
}

// ANCHOR: id
/// The id of a request, from the cause of what it does: the client's own, if it sent one, or else the whole cause. In a development
/// server a cause begins with the number, the method and the route.
pub fn id(cause: &str) -> &str {
    cause.splitn(4, ' ').nth(3).unwrap_or(cause)
}
// ANCHOR_END: id

/// The current request owes these appservices something, up to a position if it has one.
pub(crate) fn log_owed<'a>(
    services: impl IntoIterator<Item = &'a &'a ServiceId>,
    up_to: Option<Position>,
) {
    if !are_logged() {
        return;
    }
    let cause = trace::cause();
    for service in services {
        tracing::debug!(target: TARGET, request = id(&cause), %service, up_to = up_to.map(|p| p.0), "owed");
    }
}

/// A transaction is sent for the first time since it was frozen, or since the start.
pub(crate) fn log_frozen(service: &ServiceId, frozen: &Frozen) {
    tracing::debug!(target: TARGET, %service, transaction = frozen.txn_id, up_to = frozen.cut, bytes = frozen.body.len(), "frozen");
}

/// An attempt to send a transaction has ended.
pub(crate) fn log_attempt(
    service: &ServiceId,
    (transaction, attempt): (i64, u32),
    outcome: &str,
    micros: u64,
) {
    tracing::debug!(target: TARGET, %service, transaction, attempt, outcome, micros, "attempt");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_client_ends_the_cause_of_a_development_server() {
        assert_eq!(id("17 PUT /path/{id} mine-1"), "mine-1");
        assert_eq!(id("17 PUT /path/{id}"), "17 PUT /path/{id}");
        assert_eq!((id("mine-1"), id("")), ("mine-1", ""));
    }
}
