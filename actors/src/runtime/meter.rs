//! Counts for operators, read when the metrics of the server are scraped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use schema::ServiceId;

/// The counts since the start of the actors.
#[derive(Default)]
pub struct Meter {
    attempts: Mutex<BTreeMap<(ServiceId, &'static str), u64>>,
    mailboxes: Mutex<BTreeMap<&'static str, Mailbox>>,
}

impl Meter {
    /// Count an attempt to send a transaction.
    pub(crate) fn attempt(&self, service: &ServiceId, outcome: &'static str) {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        *attempts.entry((service.clone(), outcome)).or_default() += 1;
    }

    /// The attempts to send transactions, by appservice and outcome: `acknowledged` with a 2xx, `refused` with another status, or
    /// `unanswered`.
    pub fn attempts(&self) -> BTreeMap<(ServiceId, &'static str), u64> {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.clone()
    }

    /// The mailbox of an actor.
    pub(crate) fn mailbox(&self, actor: &'static str) -> Mailbox {
        let mut mailboxes = self
            .mailboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        mailboxes.entry(actor).or_default().clone()
    }

    /// For each actor, how many requests were sent to it that it has not begun to handle.
    pub fn mailboxes(&self) -> Vec<(&'static str, i64)> {
        let mailboxes = self
            .mailboxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let depth = |mailbox: &Mailbox| mailbox.0.load(Ordering::Relaxed);
        mailboxes
            .iter()
            .map(|(actor, m)| (*actor, depth(m)))
            .collect()
    }
}

/// The number of requests in the mailbox of an actor. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Mailbox(Arc<AtomicI64>);

impl Mailbox {
    /// Count a request until the guard is dropped.
    pub(crate) fn enter(&self) -> InMailbox {
        self.0.fetch_add(1, Ordering::Relaxed);
        InMailbox(self.clone())
    }
}

/// A guard that counts a request as in the mailbox until it is dropped.
pub(crate) struct InMailbox(Mailbox);

impl Drop for InMailbox {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
