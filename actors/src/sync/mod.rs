//! To be written.

pub mod messages;
pub mod queries;
pub mod rules;

use actix::{Actor, Context};

use crate::Env;

pub use messages::*;

/// To be written.
pub struct Sync {
    env: Env,
}

impl Sync {
    /// To be written.
    #[must_use]
    pub fn new(env: Env) -> Sync {
        Sync { env }
    }
}

impl Actor for Sync {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(4096);
        tracing::trace!(server = %self.env.settings.server_name, "started");
    }
}
