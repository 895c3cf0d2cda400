//! Passing ephemeral events of proposals on to application services.

use actix::{Context, Handler};

use super::Sync;
use crate::runtime::wake::ProposalEphemeral;

impl Handler<ProposalEphemeral> for Sync {
    type Result = ();

    fn handle(&mut self, msg: ProposalEphemeral, _: &mut Context<Self>) {
        let services = self.listening(msg.services.clone());
        let now = self.env.clock.monotonic();
        for service in &services {
            self.pending.of_proposal(service, &msg, now);
        }
        self.env.wake.services(&services, None);
    }
}
