//! Device lists: which users each application service must track, and which changes of their device lists it is owed.
//!
//! *Owns* `tracked`, and the position up to which it has read `device_list_log`. (The device-list log, and the counts of joined
//! members per room, are written by the writes that change keys or memberships.)
//!
//! *Asks* no actor.
//!
//! *Tells* [`Wake`](crate::runtime::wake::Wake) which senders to wake after a pass is committed, so that a leave and its `left`
//! travel together.
//!
//! *Promises* that after any sequence of events, when all is read and sent, an appservice tracks exactly the users who share a
//! room with one of its joined members; a lost notification or a crash only delays that.
//!
//! *Spec*
//! [Tracking the device list for a user](https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user),
//! [MSC3202](https://github.com/matrix-org/matrix-spec-proposals/pull/3202).
//!
//! Next on the way of a leave: `actors/src/device_lists/pass/mod.rs`.

pub(crate) mod held;
mod messages;
pub(crate) mod pass;
mod prune;
pub mod rules;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use schema::Position;

use crate::runtime::faults::DeliveryPoint;
use crate::runtime::watchdog::Watchdog;
use crate::{Env, Error};

pub use messages::*;

/// The delay before a failed pass is repeated.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The actor.
pub struct DeviceLists {
    env: Env,
    /// Whether the registrations are in force. Before that, a pass would find no appservice, and would mark the lines as read.
    ready: bool,
    /// Whether a pass is running.
    running: bool,
    /// Whether the registrations changed during the pass.
    again: bool,
    /// The position up to which the log has been read, or is being read by the running pass.
    read: Option<Position>,
    watchdog: Watchdog,
}

impl DeviceLists {
    /// The actor for the device lists in this storage.
    pub fn new(env: Env) -> DeviceLists {
        DeviceLists {
            env,
            ready: false,
            running: false,
            again: false,
            read: None,
            watchdog: Watchdog::default(),
        }
    }

    /// Whether there may be a committed line that no pass has read or is reading.
    fn is_behind(&self) -> bool {
        self.read
            .is_none_or(|read| read < self.env.store.device_list_log())
    }

    /// Called when the log may have new lines. Repeated calls, and calls for lines that were read already, cost nothing.
    fn hint(&mut self, ctx: &mut Context<Self>) {
        if self.ready && !self.running && self.is_behind() {
            self.run(ctx);
        }
    }

    /// Read the unread lines of the log. Only one pass runs at a time.
    fn run(&mut self, ctx: &mut Context<Self>) {
        if self.running {
            self.again = true;
            return;
        }
        self.running = true;
        self.again = false;
        self.read = Some(self.env.store.device_list_log());
        let env = self.env.clone();
        let busy = env.trace.busy();
        let pass = async move {
            let failed = match pass::run(&env).await {
                Ok(()) | Err(Error::Storage(schema::Error::Stopped)) => None,
                Err(error) => Some(error),
            };
            if let Some(error) = &failed {
                tracing::error!(%error, "a device-list pass failed and will be repeated");
                let _waiting = env.trace.parked();
                env.clock.sleep(RETRY_AFTER).await;
            }
            drop(busy);
            failed.is_some()
        };
        ctx.spawn(pass.into_actor(self).map(|failed, this, ctx| {
            this.running = false;
            if failed || this.again || this.is_behind() {
                this.run(ctx);
            }
        }));
    }
}

impl Actor for DeviceLists {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.watchdog.watch(ctx, &self.env, "device_lists");
        ctx.set_mailbox_capacity(256);
        self.prune_later(ctx);
        let (trace, log) = (self.env.trace.clone(), ctx.address().downgrade());
        let hinted = AtomicI64::new(self.env.store.device_list_log().0);
        let faults = self.env.faults.clone();
        self.env.store.on_device_list_log(move |end| {
            // A lost notification is made up for after the next commit, whatever it is about.
            if end.0 <= hinted.load(Ordering::Acquire) || faults.lose(DeliveryPoint::LogHint) {
                return;
            }
            hinted.store(end.0, Ordering::Release);
            if let Some(log) = log.upgrade() {
                trace.record_message("store", "device_lists", &LogAppended);
                // A full mailbox already holds notifications: the log is read to its end when the last of them is handled.
                let _ = log.try_send(LogAppended);
            }
        });
    }
}

impl Handler<LogAppended> for DeviceLists {
    type Result = ();

    fn handle(&mut self, _: LogAppended, ctx: &mut Context<Self>) {
        self.hint(ctx);
    }
}

// The next two only name the fact in the trace: `LogAppended` already leads to the pass.
impl Handler<MembershipChanged> for DeviceLists {
    type Result = ();

    fn handle(&mut self, _: MembershipChanged, ctx: &mut Context<Self>) {
        self.hint(ctx);
    }
}

impl Handler<KeysChanged> for DeviceLists {
    type Result = ();

    fn handle(&mut self, _: KeysChanged, ctx: &mut Context<Self>) {
        self.hint(ctx);
    }
}

impl Handler<InterestAdded> for DeviceLists {
    type Result = ();

    fn handle(&mut self, _: InterestAdded, ctx: &mut Context<Self>) {
        self.ready = true;
        self.run(ctx);
    }
}
