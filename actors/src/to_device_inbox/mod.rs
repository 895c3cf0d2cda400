//! The to-device inbox: one row for each message and device.
//!
//! *Owns* `inbox`, `shared_contents`; shares `client_transactions`. Owes messages to services in `owed`.
//!
//! *Asks* nobody.
//!
//! *Tells* [`Wake`](crate::runtime::wake::Wake): the senders of services that are owed a message, and the `/sync` requests that wait.
//!
//! *Promises* that an answered message is on the disk, once; that nothing leaves before it is acknowledged: by `since`
//! for a device, by [`Acknowledged`], which follows a 2xx, for the service that decides over the device.
//!
//! *Spec* [Send-to-Device messaging](https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging),
//! [MSC4203](https://github.com/matrix-org/matrix-spec-proposals/pull/4203).

mod acknowledge;
mod contents;
mod deposit;
mod messages;
pub mod queries;
pub mod rules;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, WrapFuture};
use schema::{Position, appservices};

use crate::Env;
use crate::runtime::life::Life;

pub use messages::*;

/// The actor.
pub struct ToDeviceInbox {
    env: Env,
    life: Life,
}

impl ToDeviceInbox {
    /// An inbox over this storage.
    #[must_use]
    pub fn new(env: Env) -> ToDeviceInbox {
        ToDeviceInbox {
            env,
            life: Life::default(),
        }
    }
}

impl Actor for ToDeviceInbox {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.life.watch(ctx, &self.env, "to_device_inbox");
        ctx.set_mailbox_capacity(4096);
        // What was acknowledged before the last end, and perhaps not said to this actor.
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
