//! Records that an appservice has acknowledged a transaction with a 2xx.
//!
//! Next on the way of a to-device message: `actors/src/to_device_inbox/acknowledge.rs`.

use std::sync::Arc;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use schema::transactions::Frozen;
use schema::{Position, Tx};
use serde_json::Value;

use super::{AppserviceSender, RETRY_AFTER, SenderState, freeze, wanted};
use crate::Error;
use crate::hooks::ReportsChanges;
use crate::runtime::faults::DeliveryPoint;
use crate::to_device_inbox::Acknowledged;

impl AppserviceSender {
    // ANCHOR: acknowledge
    /// The appservice has accepted the transaction: one write deletes what it carried and freezes the next one. If that write
    /// fails, the next transaction may be the cause; then the acknowledgement is recorded alone, and repeated until it
    /// succeeds. The request is never repeated. Clause: as.txn.acknowledged-once
    pub(super) fn acknowledge(
        &mut self,
        frozen: Arc<Frozen>,
        answer: Option<Value>,
        ctx: &mut Context<Self>,
    ) {
        self.failed_attempts = 0;
        self.last_error = None;
        self.acknowledged += 1;
        let waits = std::mem::take(&mut self.hinted) != Position::START || self.more;
        self.state = SenderState::Acknowledging(Arc::clone(&frozen));
        let (env, service, paused) = (self.env.clone(), Arc::clone(&self.service), self.paused);
        let (ephemeral, counts_alone) =
            (self.ephemeral.clone(), std::mem::take(&mut self.counts_due));
        let is_first = !paused && std::mem::take(&mut self.is_first);
        let busy = env.trace.busy();
        let write = async move {
            env.faults.pass(DeliveryPoint::BeforeRecord).await;
            let mut then = if paused {
                None
            } else {
                let mut wanted = wanted(&env, &service, ephemeral, counts_alone).await;
                wanted.is_first = is_first;
                Some(wanted)
            };
            loop {
                let alone = then.is_none();
                let (service, taken, then) =
                    (Arc::clone(&service), Arc::clone(&frozen), then.take());
                let (id, taken_id, up_to) = (service.id.clone(), taken.txn_id, Position(taken.cut));
                let answer = answer.clone();
                let write = move |tx: &mut Tx<'_>| {
                    tx.delivered(&service.id, taken.txn_id, answer.as_ref())?;
                    freeze::acknowledge(tx, &service, &taken, then.as_ref())
                };
                // If no other items wait for the appservice, this write need not be committed at once: it shares the commit of a
                // later write.
                let found = match waits {
                    true => env.store.write_always(write).await,
                    false => env.store.write_later(write).await,
                };
                match found {
                    Ok((first, found)) => {
                        env.faults.pass(DeliveryPoint::AfterRecord).await;
                        if let Some(from) = first {
                            env.wake.acknowledged(Acknowledged {
                                service: id,
                                txn: Some(taken_id),
                                from,
                                up_to,
                            });
                        }
                        drop(busy);
                        return found;
                    }
                    // The store is closed: the next start sends the same bytes again, and the appservice recognizes the
                    // transaction id.
                    Err(Error::Storage(schema::Error::Stopped)) => return None,
                    Err(error) => {
                        tracing::error!(service = %id, %error, "an acknowledgement could not be written; the next attempt follows");
                        if alone {
                            let _waiting = env.trace.parked();
                            env.clock.sleep(RETRY_AFTER).await;
                        }
                    }
                }
            }
        };
        ctx.spawn(write.into_actor(self).map(move |found, this, ctx| {
            this.state = SenderState::Idle;
            match found {
                Some(found) => this.found(found, ctx),
                None => {
                    this.is_first |= is_first;
                    if !this.paused {
                        this.look(ctx);
                    }
                }
            }
        }));
    }
    // ANCHOR_END: acknowledge
}
