//! To be written.

mod known;
pub mod messages;
pub mod queries;
pub mod rules;

use actix::{Actor, Context};

use crate::Env;

pub use known::Known;
pub use messages::*;

/// To be written.
pub struct Accounts {
    env: Env,
}

impl Accounts {
    /// To be written.
    #[must_use]
    pub fn new(env: Env) -> Accounts {
        Accounts { env }
    }
}

impl Actor for Accounts {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(4096);
        tracing::trace!(server = %self.env.settings.server_name, "started");
    }
}
