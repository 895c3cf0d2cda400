//! Rooms: their events, state, memberships, aliases and receipts.
//!
//! *Owns* `rooms`, `events`, `room_state`, `memberships`, `aliases`, `receipts`; the write of an event also appends to the
//! device-list log and adds the rows owed to application services.
//!
//! *Asks* no actor.
//!
//! *Tells* `device_lists` that a membership changed, and [`Wake`](crate::runtime::wake::Wake): the senders, and the clients that
//! wait on the room or user.
//!
//! *Promises* that each room's history is a single line in which each event was allowed by the state before it; that an event, the
//! state and membership it sets, and the rows by which appservices are owed it are stored together or not at all; that a repeated
//! transaction id gets the same answer; that the cost of an event does not grow with the number of members.
//!
//! *Spec* [Rooms](https://spec.matrix.org/v1.19/client-server-api/#rooms-1),
//! [Events](https://spec.matrix.org/v1.19/client-server-api/#events), [room version 11](https://spec.matrix.org/v1.19/rooms/v11/),
//! [room version 12](https://spec.matrix.org/v1.19/rooms/v12/).
//!
//! Next on the way of a leave: `actors/src/rooms/append.rs`.

mod admission;
mod append;
mod create;
mod each;
mod effects;
mod marks;
mod members;
pub mod messages;
mod names;
mod open;
mod pdu;
pub mod queries;
pub mod rules;
mod sending;
#[cfg(test)]
mod tests;

use actix::{Actor, Context, Recipient, ResponseFuture};
use schema::Tx;

use crate::device_lists::MembershipChanged;
use crate::runtime::watchdog::Watchdog;
use crate::{Env, Error, Result, guarded};
use effects::{Effects, notify};

pub use messages::*;
pub(crate) use rules::rules_of as version_rules;
pub(crate) use sending::add_event;

/// The actor that writes rooms.
pub struct Rooms {
    env: Env,
    device_lists: Recipient<MembershipChanged>,
    watchdog: Watchdog,
}

impl Rooms {
    /// `device_lists` is sent each change of a membership, after its commit.
    pub fn new(env: Env, device_lists: Recipient<MembershipChanged>) -> Rooms {
        Rooms {
            env,
            device_lists,
            watchdog: Watchdog::default(),
        }
    }

    /// Run a write, and notify others of its [`Effects`] after the commit.
    fn commit<T: Send + 'static>(
        &self,
        write: impl Fn(&Env, &mut Tx<'_>, &mut Effects) -> Result<T> + Send + 'static,
    ) -> ResponseFuture<Result<T>> {
        let env = self.env.clone();
        let write = self.env.store.write(move |tx| {
            let mut effects = Effects::default();
            let done = write(&env, tx, &mut effects)?;
            Ok::<_, Error>((done, effects))
        });
        let (env, device_lists) = (self.env.clone(), self.device_lists.clone());
        guarded(&self.env, "rooms", async move {
            let (done, effects) = write.await?;
            notify(&env, &device_lists, effects);
            Ok(done)
        })
    }
}

fn refused<T: 'static>(error: Error) -> ResponseFuture<Result<T>> {
    Box::pin(std::future::ready(Err(error)))
}

impl Actor for Rooms {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.watchdog.watch(ctx, &self.env, "rooms");
        ctx.set_mailbox_capacity(4096);
    }
}
