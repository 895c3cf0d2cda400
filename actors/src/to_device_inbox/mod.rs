//! To be written.

pub mod messages;
pub use messages::*;

use actix::{Actor, Context};

use crate::Env;

/// To be written.
pub struct ToDeviceInbox {
    env: Env,
}

impl ToDeviceInbox {
    /// To be written.
    #[must_use]
    pub fn new(env: Env) -> ToDeviceInbox {
        ToDeviceInbox { env }
    }
}

impl Actor for ToDeviceInbox {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(4096);
        tracing::trace!(server = %self.env.settings.server_name, "started");
    }
}
