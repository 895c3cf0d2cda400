//! Sends a frozen transaction, and the same bytes again after a failure. `Transport::transaction` makes the request, if need be
//! under the older path too; `rules::is_acknowledged` is any 2xx; `rules::back_off` waits 1 s to 5 min.
//!
//! Next on the way of a to-device message: `actors/src/appservice_sender/acknowledge.rs`.

use std::sync::Arc;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use bytes::Bytes;
use schema::transactions::Frozen;

use super::{AppserviceSender, SenderState, rules};
use crate::Refusal;
use crate::runtime::clock::Stopwatch;
use crate::runtime::faults::DeliveryPoint;

impl AppserviceSender {
    /// Make one attempt to send the frozen transaction. Clause: as.txn.same-body-on-retry, as.to-device.on-retry
    pub(super) fn send(&mut self, frozen: Arc<Frozen>, ctx: &mut Context<Self>) {
        if self.paused {
            self.state = SenderState::Idle;
            return;
        }
        let (transport, service, body) = (
            self.transport.clone(),
            Arc::clone(&self.service),
            Bytes::from(frozen.body.clone()),
        );
        let (txn_id, clock) = (frozen.txn_id, self.env.clock.clone());
        self.state = SenderState::Sending(frozen);
        let busy = self.env.trace.busy();
        let faults = self.env.faults.clone();
        let answer_bytes = self.env.hooks.answer_bytes();
        let attempt = async move {
            faults.pass(DeliveryPoint::BeforeRequest).await;
            let since = Stopwatch::start();
            let answer = transport
                .transaction(&service, txn_id, body, &clock, answer_bytes)
                .await;
            let micros = since.micros();
            faults.pass(DeliveryPoint::AfterAnswer).await;
            (answer, micros, busy)
        };
        ctx.spawn(
            attempt
                .into_actor(self)
                .map(|(answer, micros, busy), this, ctx| {
                    this.record(&answer, micros);
                    let outcome = match answer {
                        Ok(answer) if rules::is_acknowledged(answer.status) => Ok(answer.json),
                        Ok(answer) => Err(Refusal::BadStatus {
                            status: answer.status,
                            body: answer.body,
                        }
                        .to_string()),
                        Err(error) => Err(error.to_string()),
                    };
                    match (
                        outcome,
                        std::mem::replace(&mut this.state, SenderState::Idle),
                    ) {
                        (Ok(json), SenderState::Sending(frozen)) => {
                            this.acknowledge(frozen, json, ctx);
                        }
                        (Err(why), SenderState::Sending(frozen)) => this.wait(frozen, why, ctx),
                        (_, other) => this.state = other,
                    }
                    drop(busy);
                }),
        );
    }

    /// The attempt failed: schedule the next one, with the same bytes. Clause: as.txn.retry
    fn wait(&mut self, frozen: Arc<Frozen>, why: String, ctx: &mut Context<Self>) {
        self.failed_attempts += 1;
        let delay = rules::back_off(self.failed_attempts, self.service.id.as_str());
        tracing::warn!(service = %self.service.id, transaction = frozen.txn_id, attempt = self.failed_attempts, why,
            again_in = ?delay, "the application service did not acknowledge a transaction");
        self.last_error = Some(why);
        self.drop_ephemeral();
        if self.paused {
            return;
        }
        let until = self.env.clock.now() + i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        let timer = self.env.clock.sleep(delay);
        let timer = ctx.spawn(timer.into_actor(self).map(|(), this, ctx| this.retry(ctx)));
        self.state = SenderState::Waiting(frozen, timer, until);
    }

    pub(super) fn retry(&mut self, ctx: &mut Context<Self>) {
        match std::mem::replace(&mut self.state, SenderState::Idle) {
            SenderState::Waiting(frozen, timer, _) => {
                ctx.cancel_future(timer);
                self.send(frozen, ctx);
            }
            other => self.state = other,
        }
    }
}
