//! Reports to hooks what a device has seen.

use actix::{Context, Handler, ResponseFuture};

use super::{Proposals, Synced};
use crate::hooks::{Change, ReportsChanges};
use crate::{Result, guarded};

impl Handler<Synced> for Proposals {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: Synced, _: &mut Context<Self>) -> Self::Result {
        let write = self.env.store.write(move |tx| {
            tx.changed(&Change::Synced {
                user: msg.user.as_str(),
                device: msg.device.as_str(),
                up_to: msg.up_to,
            })
        });
        guarded(&self.env, "proposals", write)
    }
}
