//! Device lists: whom each application service must track, and what it has still to be told.
//!
//! *Owns* `tracked`, `owed_device_lists`, the cursor over `device_list_log`. (The log and the count of members per room are
//! written by the writes that make the facts: their own row is their durable copy.)
//!
//! *Asks* nobody.
//!
//! *Tells* [`Wake`](crate::wake::Wake): senders, after its pass is committed; so a leave and its `left` travel together.
//!
//! *Promises* that after any schedule of events, drained, a service has been told to track exactly those who share a room
//! with a joined member of it; a lost hint or a crash delays that, and nothing more.
//!
//! *Spec* [Tracking the device list for a user](https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user),
//! [MSC3202](https://github.com/matrix-org/matrix-spec-proposals/pull/3202).

mod messages;
pub(crate) mod pass;
pub mod rules;

use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};

use crate::{Env, Error};

pub use messages::*;

/// How long to wait before a pass that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The actor.
pub struct DeviceLists {
    env: Env,
    /// A pass is running.
    running: bool,
    /// A hint came while it was.
    again: bool,
}

impl DeviceLists {
    /// A keeper of device lists over this storage.
    #[must_use]
    pub fn new(env: Env) -> DeviceLists {
        DeviceLists {
            env,
            running: false,
            again: false,
        }
    }

    /// Read the log from the cursor to the head. One pass at a time; hints that come meanwhile make one more.
    fn run(&mut self, ctx: &mut Context<Self>) {
        if self.running {
            self.again = true;
            return;
        }
        self.running = true;
        self.again = false;
        let env = self.env.clone();
        let busy = env.trace.busy();
        let pass = async move {
            let failed = match pass::run(&env).await {
                Ok(()) | Err(Error::Storage(schema::Error::Stopped)) => None,
                Err(error) => Some(error),
            };
            if let Some(error) = &failed {
                tracing::error!(%error, "a device-list pass failed; it is tried again");
                let _waiting = env.trace.parked();
                env.clock.sleep(AGAIN).await;
            }
            drop(busy);
            failed.is_some()
        };
        ctx.spawn(pass.into_actor(self).map(|failed, this, ctx| {
            this.running = false;
            if failed || this.again {
                this.run(ctx);
            }
        }));
    }
}

impl Actor for DeviceLists {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        // Nothing is read before `InterestAdded` says that the registrations are in force: a pass that knew no services
        // would find nobody to tell.
        ctx.set_mailbox_capacity(256);
    }
}

impl Handler<MembershipChanged> for DeviceLists {
    type Result = ();

    fn handle(&mut self, _: MembershipChanged, ctx: &mut Context<Self>) {
        self.run(ctx);
    }
}

impl Handler<KeysChanged> for DeviceLists {
    type Result = ();

    fn handle(&mut self, _: KeysChanged, ctx: &mut Context<Self>) {
        self.run(ctx);
    }
}

impl Handler<InterestAdded> for DeviceLists {
    type Result = ();

    fn handle(&mut self, _: InterestAdded, ctx: &mut Context<Self>) {
        self.run(ctx);
    }
}
