//! When devices were last used. ([spec])
//!
//! Every request of a device is a use of it, its own or one of a service that masquerades as it; one in five minutes is recorded.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices

use actix::{AsyncContext, Context, Handler, WrapFuture};
use schema::sessions;

use super::{Accounts, DeviceSeen};
use crate::{Actors, Error, Identity, tell};

/// How old the last recorded use is at least when another one is recorded, in milliseconds: people read it as "a few minutes ago".
const EVERY: i64 = 5 * 60 * 1000;

// ANCHOR: seen
/// The device of this identity is in use. Costs a look at memory; a write now and then, which nobody waits for.
pub fn seen(actors: &Actors, who: &Identity, ip: Option<&str>) {
    let (env, Some(device)) = (&actors.env, &who.device) else {
        return;
    };
    if env
        .known
        .is_seen_again(&who.user, device, env.clock.monotonic(), EVERY)
    {
        let seen = DeviceSeen {
            user: who.user.clone(),
            device: device.clone(),
            ip: ip.map(ToOwned::to_owned),
        };
        let accounts = actors.accounts.addr().clone().recipient();
        tell(env, "http", &accounts, "accounts", seen);
    }
}

impl Handler<DeviceSeen> for Accounts {
    type Result = ();

    fn handle(&mut self, msg: DeviceSeen, ctx: &mut Context<Self>) {
        let (now, busy) = (self.env.clock.now(), self.env.trace.busy());
        let write = self.env.store.write_always(move |tx| {
            let (user, device) = (msg.user.as_str(), msg.device.as_str());
            // What was recorded before a restart, or fell out of memory, is not recorded again.
            let before = now - EVERY;
            sessions::seen(tx, user, device, now, before, msg.ip.as_deref())?;
            Ok::<_, Error>(())
        });
        let done = async move {
            if let Err(error) = write.await {
                tracing::warn!(%error, "when a device was last used was not recorded");
            }
            drop(busy);
        };
        ctx.spawn(done.into_actor(self));
    }
}
// ANCHOR_END: seen
