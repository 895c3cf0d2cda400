//! Passing receipts on to application services that receive ephemeral events.

use std::sync::Arc;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};

use super::{Sync, rules};
use crate::runtime::wake::NewReceipt;
use crate::services::{CarriesInterests, interested_in_room};

impl Handler<NewReceipt> for Sync {
    type Result = ();

    /// Clause: as.ephemeral.room
    fn handle(&mut self, msg: NewReceipt, ctx: &mut Context<Self>) {
        let interests = self.env.store.interests();
        if interests.services().is_empty() {
            return;
        }
        let busy = self.env.trace.busy();
        let room = msg.room.to_string();
        let concerned = {
            let interests = Arc::clone(&interests);
            self.env
                .store
                .read(move |db| interested_in_room(db, &interests, &room))
        };
        ctx.spawn(concerned.into_actor(self).map(move |concerned, this, _| {
            // On a failed read the appservices miss this event; clients read the stored receipt.
            let mut services = this.listening(concerned.unwrap_or_default());
            if msg.kind == "m.read.private" {
                services.retain(|id| {
                    let claim = interests.claim(id, msg.user.as_str());
                    interests
                        .service(id)
                        .is_some_and(|s| rules::may_receive_private(s, claim))
                });
            }
            let now = this.env.clock.monotonic();
            for service in &services {
                this.pending.receipt(service, &msg, now);
            }
            this.env.wake.services(&services, None);
            drop(busy);
        }));
    }
}
