//! Ephemeral events for appservice transactions: typing, receipts and presence.

use actix::{Context, Handler};
use serde_json::value::RawValue;

use super::Sync;
use crate::appservice_sender::{DropEphemeral, TakeEphemeral};

impl Handler<TakeEphemeral> for Sync {
    type Result = Vec<Box<RawValue>>;

    fn handle(&mut self, msg: TakeEphemeral, _: &mut Context<Self>) -> Self::Result {
        let now = self.env.clock.monotonic();
        self.pending
            .take(&msg.service, msg.limit, &self.volatile, now)
            .unwrap_or_else(|error| {
                tracing::error!(service = %msg.service, %error, "dropped ephemeral events");
                Vec::new()
            })
    }
}

impl Handler<DropEphemeral> for Sync {
    type Result = ();

    fn handle(&mut self, msg: DropEphemeral, _: &mut Context<Self>) {
        self.pending.forget(&msg.service);
    }
}
