//! Deletes acknowledged messages: acknowledged by a device, or by the appservice that decides over it.
//!
//! The last file on the way of a to-device message. At start, `ToDeviceInbox::started` (`mod.rs`) repeats the deletions whose
//! `Acknowledged` was lost.

use std::time::Duration;

use actix::{AsyncContext, Context, Handler, ResponseFuture, WrapFuture};
use schema::{Position, inbox, observed};

use super::{Acknowledge, Acknowledged, ToDeviceInbox};
use crate::hooks::{AT_ONCE, ReportsChanges};
use crate::runtime::trace;
use crate::{Error, Result, guarded};

/// The delay before a failed write is repeated.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Handler<Acknowledge> for ToDeviceInbox {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: Acknowledge, _: &mut Context<Self>) -> Self::Result {
        let write = self.env.store.write(move |tx| {
            // A token above the head was never issued, so it acknowledges nothing.
            if msg.up_to <= tx.head() {
                let (user, device) = (msg.user.as_str(), msg.device.as_str());
                tx.received(|db| {
                    inbox::after(db, user, device, Position::START, msg.up_to, AT_ONCE)
                })?;
                inbox::acknowledge_device(tx, user, device, msg.up_to)?;
            }
            Ok(())
        });
        guarded(&self.env, "to_device_inbox", write)
    }
}

// ANCHOR: acknowledged
impl Handler<Acknowledged> for ToDeviceInbox {
    type Result = ();

    /// The sender's write has recorded the 2xx, so no transaction carries the rows between these positions any more and they can be
    /// deleted. A message that the appservice is still owed stays: it was set aside because it cannot be sent, its kind is switched
    /// off for the appservice, or a back-fill has owed it since. `inbox::acknowledge_service` checks this. Clause: as.to-device.exclusive
    fn handle(&mut self, msg: Acknowledged, ctx: &mut Context<Self>) {
        let (env, busy) = (self.env.clone(), self.env.trace.busy());
        let cause = msg.cause();
        let empty = async move {
            loop {
                let (service, from, up_to) = (msg.service.clone(), msg.from, msg.up_to);
                // No transaction needs the rows any more, so their deletion can wait for the next commit.
                let write = env.store.write_later(move |tx| {
                    tx.received(|db| observed::taken_by(db, &service, from, up_to, AT_ONCE))?;
                    Ok::<_, Error>(inbox::acknowledge_service(tx, &service, from, up_to)?)
                });
                match write.await {
                    Ok(()) | Err(Error::Storage(schema::Error::Stopped)) => break,
                    Err(error) => {
                        tracing::error!(service = %msg.service, %error, "acknowledged messages could not be deleted; the next attempt follows");
                        let _waiting = env.trace.parked();
                        env.clock.sleep(RETRY_AFTER).await;
                    }
                }
            }
            drop(busy);
        };
        ctx.spawn(trace::caused_by(cause, empty).into_actor(self));
    }
}
// ANCHOR_END: acknowledged
