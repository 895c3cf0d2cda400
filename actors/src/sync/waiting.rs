//! The handlers that add a waiting request and that wake requests.

use std::sync::Arc;

use actix::{Context, Handler};
use tokio::sync::oneshot;

use super::{Sync, Wait, Watch};
use crate::Result;
use crate::runtime::wake::WakeSync;

impl Handler<WakeSync> for Sync {
    type Result = ();

    fn handle(&mut self, msg: WakeSync, _: &mut Context<Self>) {
        let users = msg.users.iter().map(|user| user.as_str());
        let rooms = msg.rooms.iter().map(|room| room.as_str());
        let woken = self.waiters().woken(users, rooms, self.env.store.head());
        for wake in woken {
            // The request may have ended in the meantime.
            let _ = wake.send(self.env.trace.busy());
        }
    }
}

impl Handler<Watch> for Sync {
    type Result = Result<Wait>;

    fn handle(&mut self, msg: Watch, _: &mut Context<Self>) -> Self::Result {
        let (wake, woken) = oneshot::channel();
        let id = {
            let mut waiters = self.waiters();
            if waiters.has_missed(msg.user.as_str(), &msg.rooms, msg.seen) {
                let _ = wake.send(self.env.trace.busy());
                0 // the id of no request
            } else {
                waiters.add(msg.user.to_string(), msg.rooms, wake)
            }
        };
        Ok(Wait::new(id, woken, Arc::clone(&self.waiters)))
    }
}
