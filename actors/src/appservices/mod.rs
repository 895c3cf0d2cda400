//! To be written.

use actix::{Actor, Context};

use crate::Env;

/// To be written.
pub struct Appservices {
    env: Env,
}

impl Appservices {
    /// To be written.
    #[must_use]
    pub fn new(env: Env) -> Appservices {
        Appservices { env }
    }
}

impl Actor for Appservices {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(4096);
        tracing::trace!(server = %self.env.settings.server_name, "started");
    }
}
