//! To be written.

pub mod messages;
pub use messages::*;

use actix::{Actor, Context};

use crate::Env;

/// To be written.
pub struct DeviceLists {
    env: Env,
}

impl DeviceLists {
    /// To be written.
    #[must_use]
    pub fn new(env: Env) -> DeviceLists {
        DeviceLists { env }
    }
}

impl Actor for DeviceLists {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(4096);
        tracing::trace!(server = %self.env.settings.server_name, "started");
    }
}
