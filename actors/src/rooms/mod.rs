//! Rooms: their events, state, memberships, aliases and receipts.
//!
//! *Owns* `rooms`, `events`, `room_state`, `memberships`, `aliases`, `receipts`; in the write of an event also what it
//! logs for device lists and what it owes application services.
//!
//! *Asks* nobody.
//!
//! *Tells* `device_lists` that a membership changed, and [`Wake`](crate::runtime::wake::Wake): senders, and who waits on the room or is concerned.
//!
//! *Promises* that each room's history is one line in which every event was allowed by the state before it; that an event,
//! the state and membership it makes, and everything it owes are kept together or not at all; that a transaction id is
//! answered alike however often it comes; that the cost of an event does not grow with the members of its room.
//!
//! *Spec* [Rooms](https://spec.matrix.org/v1.19/client-server-api/#rooms-1), [Events](https://spec.matrix.org/v1.19/client-server-api/#events),
//! [room version 11](https://spec.matrix.org/v1.19/rooms/v11/), [room version 12](https://spec.matrix.org/v1.19/rooms/v12/).

mod admission;
mod append;
mod create;
mod each;
mod marks;
mod members;
pub mod messages;
mod names;
mod news;
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
use crate::runtime::life::Life;
use crate::{Env, Error, Result, guarded};
use news::{News, announce};

pub use messages::*;
pub(crate) use rules::rules_of as version_rules;

/// The actor.
pub struct Rooms {
    env: Env,
    device_lists: Recipient<MembershipChanged>,
    life: Life,
}

impl Rooms {
    /// A keeper of rooms over this storage.
    #[must_use]
    pub fn new(env: Env, device_lists: Recipient<MembershipChanged>) -> Rooms {
        Rooms {
            env,
            device_lists,
            life: Life::default(),
        }
    }

    /// Write, and after the commit tell the actors, services and clients that it concerns.
    fn commit<T: Send + 'static>(
        &self,
        write: impl Fn(&Env, &mut Tx<'_>, &mut News) -> Result<T> + Send + 'static,
    ) -> ResponseFuture<Result<T>> {
        let env = self.env.clone();
        let write = self.env.store.write(move |tx| {
            let mut news = News::default();
            let done = write(&env, tx, &mut news)?;
            Ok::<_, Error>((done, news))
        });
        let (env, device_lists) = (self.env.clone(), self.device_lists.clone());
        guarded(&self.env, "rooms", async move {
            let (done, news) = write.await?;
            announce(&env, &device_lists, news);
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
        self.life.watch(ctx, &self.env, "rooms");
        ctx.set_mailbox_capacity(4096);
    }
}
