//! To be written.

pub mod messages;
pub mod queries;
pub mod rules;

use actix::{Actor, Context};

use crate::Env;

pub use messages::*;

/// To be written.
pub struct KeyStore {
    env: Env,
}

impl KeyStore {
    /// To be written.
    #[must_use]
    pub fn new(env: Env) -> KeyStore {
        KeyStore { env }
    }
}

impl Actor for KeyStore {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(4096);
        tracing::trace!(server = %self.env.settings.server_name, "started");
    }
}
