//! To be written.

pub mod format;
pub mod messages;
mod pdu;
pub mod queries;
pub mod rules;

use actix::{Actor, Context};

use crate::Env;

pub use messages::*;

/// To be written.
pub struct Rooms {
    env: Env,
}

impl Rooms {
    /// To be written.
    #[must_use]
    pub fn new(env: Env) -> Rooms {
        Rooms { env }
    }
}

impl Actor for Rooms {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(4096);
        tracing::trace!(server = %self.env.settings.server_name, "started");
    }
}
