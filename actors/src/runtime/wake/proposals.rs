//! What hooks of proposals cause besides wake-ups: timers, and ephemeral events for appservices.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use actix::{Message, Recipient};
use schema::ServiceId;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::runtime::trace::Trace;

/// To `proposals`: a timer was set, and it is committed.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct TimerSet;

/// To `sync`: a proposal sends an ephemeral event to appservices. Only the latest of a subject is sent.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct ProposalEphemeral {
    /// The appservices. Those that do not take ephemeral events do not get it.
    pub services: BTreeSet<ServiceId>,
    /// The event type.
    pub kind: String,
    /// What the proposal distinguishes events of this type by.
    pub subject: String,
    /// The event.
    pub event: Box<RawValue>,
}

/// The recipients of these messages.
#[derive(Default)]
pub(crate) struct ForProposals {
    timers: OnceLock<Recipient<TimerSet>>,
    ephemeral: OnceLock<Recipient<ProposalEphemeral>>,
}

impl ForProposals {
    pub(crate) fn set_timers(&self, to: Recipient<TimerSet>) {
        let _ = self.timers.set(to);
    }

    pub(crate) fn set_ephemeral(&self, to: Recipient<ProposalEphemeral>) {
        let _ = self.ephemeral.set(to);
    }

    /// Notify `proposals` that a timer was set. Call it after the commit.
    pub(crate) fn timer_set(&self, trace: &Trace) {
        if let Some(to) = self.timers.get() {
            trace.record_message("wake", "proposals", &TimerSet);
            to.do_send(TimerSet);
        }
    }

    /// Pass on an ephemeral event. Call it after the commit. It may be dropped when the mailbox is full.
    pub(crate) fn ephemeral(&self, trace: &Trace, event: ProposalEphemeral) {
        if let Some(to) = self.ephemeral.get() {
            trace.record_message("wake", "sync", &event);
            let _ = to.try_send(event);
        }
    }
}
