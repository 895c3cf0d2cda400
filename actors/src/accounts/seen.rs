//! The time and address at which each device was last used. ([spec])
//!
//! Every request of a device counts, also one of an application service that acts for it; at most one in five minutes is written.
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices

use actix::{AsyncContext, Context, Handler, WrapFuture};
use schema::sessions;

use super::{Accounts, DeviceSeen};
use crate::{Actors, Error, Identity, tell};

/// The shortest time between two writes for a device, in milliseconds. Users see it as "a few minutes ago".
const EVERY: i64 = 5 * 60 * 1000;

// ANCHOR: seen
/// Record a use of the device. Usually only a lookup in memory; now and then a write, which the request does not wait for.
/// Clause: as.acting.last-seen
pub fn seen(actors: &Actors, who: &Identity, ip: Option<&str>) {
    let (env, Some(device)) = (&actors.env, &who.device) else {
        return;
    };
    if env
        .identities
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
            // The cache is bounded and empty after a restart, so the time in the device's row decides whether the last write was
            // recent.
            let before = now - EVERY;
            sessions::seen(tx, user, device, now, before, msg.ip.as_deref())?;
            Ok::<_, Error>(())
        });
        let done = async move {
            if let Err(error) = write.await {
                tracing::warn!(%error, "could not record when a device was last used");
            }
            drop(busy);
        };
        ctx.spawn(done.into_actor(self));
    }
}
// ANCHOR_END: seen
