//! Writes of proposals' own endpoints.

use actix::{Context, Handler, ResponseFuture};
use serde_json::Value;

use super::{Proposals, WritePart};
use crate::hooks::with_part;
use crate::{Result, guarded};

impl Handler<WritePart> for Proposals {
    type Result = ResponseFuture<Result<Value>>;

    fn handle(&mut self, msg: WritePart, _: &mut Context<Self>) -> Self::Result {
        let write = self
            .env
            .store
            .write(move |tx| with_part(tx, msg.number, |part| (msg.run)(part)));
        guarded(&self.env, "proposals", write)
    }
}
