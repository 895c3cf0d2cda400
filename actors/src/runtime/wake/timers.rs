//! The notification that a proposal has set a timer.

use std::sync::OnceLock;

use actix::{Message, Recipient};
use serde::Serialize;

use crate::runtime::trace::Trace;

/// To `proposals`: a timer was set, and it is committed.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct TimerSet;

/// The recipient of [`TimerSet`].
#[derive(Default)]
pub(crate) struct Timers(OnceLock<Recipient<TimerSet>>);

impl Timers {
    pub(crate) fn set(&self, to: Recipient<TimerSet>) {
        let _ = self.0.set(to);
    }

    /// Notify `proposals` that a timer was set. Call it after the commit.
    pub(crate) fn notify(&self, trace: &Trace) {
        if let Some(to) = self.0.get() {
            trace.record_message("wake", "proposals", &TimerSet);
            to.do_send(TimerSet);
        }
    }
}
