//! The to-device inbox: one row for each to-device message and device.
//!
//! *Owns* `inbox`, `shared_contents`; shares `client_transactions`. Owes copies of messages to appservices in `owed`.
//!
//! *Asks* no actor.
//!
//! *Tells* [`Wake`](crate::runtime::wake::Wake) to wake the senders of appservices that are owed a copy, and waiting `/sync`
//! requests.
//!
//! *Promises* that a message is stored once and committed before the reply; that no message is deleted before it is
//! acknowledged: by the `since` of a device, or by [`Acknowledged`], which follows a 2xx, for the appservice that decides over
//! the device.
//!
//! *Spec* [Send-to-Device messaging](https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging),
//! [MSC4203](https://github.com/matrix-org/matrix-spec-proposals/pull/4203).

mod acknowledge;
mod contents;
mod deposit;
mod hooked;
mod messages;
pub mod queries;
pub mod rules;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use schema::{Position, appservices};

use crate::Env;
use crate::runtime::watchdog::Watchdog;

pub(crate) use deposit::deposit;
pub use messages::*;

/// The actor.
pub struct ToDeviceInbox {
    env: Env,
    watchdog: Watchdog,
}

impl ToDeviceInbox {
    /// The inbox in this storage.
    pub fn new(env: Env) -> ToDeviceInbox {
        ToDeviceInbox {
            env,
            watchdog: Watchdog::default(),
        }
    }
}

impl Actor for ToDeviceInbox {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.watchdog.watch(ctx, &self.env, "to_device_inbox");
        ctx.set_mailbox_capacity(4096);
        // Repeat the deletions that were due when the last run of the server ended.
        let (env, busy) = (self.env.clone(), self.env.trace.busy());
        let rows = async move { env.store.read(appservices::all).await };
        ctx.spawn(rows.into_actor(self).map(|rows, _, ctx| {
            for row in rows.unwrap_or_default() {
                ctx.notify(Acknowledged {
                    service: row.appservice_id.into(),
                    txn: None,
                    from: Position::START,
                    up_to: Position(row.acknowledged),
                });
            }
            drop(busy);
        }));
    }
}
