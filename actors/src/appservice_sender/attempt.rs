//! Records each attempt to send a transaction: in the counts for operators, in the log, and in the trace of a development server.

use serde_json::value::RawValue;

use super::{AppserviceSender, Attempt, SenderState, rules};
use crate::Result;
use crate::runtime::requests;
use crate::transport::ServiceResponse;

impl AppserviceSender {
    /// Record an attempt at the transaction that is being sent, its outcome, and how long it took.
    pub(super) fn record(&self, answer: &Result<ServiceResponse>, micros: u64) {
        let SenderState::Sending(frozen) = &self.state else {
            return;
        };
        let outcome = match answer {
            Ok(answer) if rules::is_acknowledged(answer.status) => "acknowledged",
            Ok(_) => "refused",
            Err(_) => "unanswered",
        };
        let (service, attempt) = (&self.service.id, self.failed_attempts + 1);
        self.env.meter.attempt(service, outcome);
        let is_traced = self.env.trace.is_on();
        if !is_traced && !requests::are_logged() {
            return;
        }
        let outcome = match answer {
            Ok(answer) => answer.status.to_string(),
            Err(error) => error.to_string(),
        };
        requests::log_attempt(service, (frozen.txn_id, attempt), &outcome, micros);
        if !is_traced {
            return;
        }
        let attempt = Attempt {
            service: service.clone(),
            transaction: frozen.txn_id,
            attempt,
            at: self.env.clock.now(),
            outcome,
            path: answer.as_ref().ok().and_then(|a| a.legacy.clone()),
            body: RawValue::from_string(frozen.body.clone()).unwrap_or_default(),
        };
        attempt.record(&self.env, micros);
    }
}
