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

use actix::{Actor, Context, Handler, Recipient, ResponseFuture};
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use schema::Tx;

use crate::device_lists::MembershipChanged;
use crate::runtime::life::Life;
use crate::{Env, Error, Result, guarded};
use each::{Act, EachRoom};
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

    /// Write, and when it is committed tell everybody whom it concerns.
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

impl Rooms {
    /// Do the same in each room of a user: in the first before the reply, in the others after it.
    fn in_each_room(&self, user: OwnedUserId, act: Act) -> ResponseFuture<Result<()>> {
        let env = self.env.clone();
        let mut rooms = EachRoom::new(env.clone(), self.device_lists.clone(), user, act);
        guarded(&self.env, "rooms", async move {
            if rooms.page().await? {
                let busy = env.trace.busy();
                let rest = guarded(&env, "rooms", rooms.rest());
                actix::spawn(async move {
                    if let Err(error) = rest.await {
                        tracing::error!(%error, "a change of a user did not reach all of its rooms");
                    }
                    drop(busy);
                });
            }
            Ok(())
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

impl Handler<CreateRoom> for Rooms {
    type Result = ResponseFuture<Result<OwnedRoomId>>;

    fn handle(&mut self, msg: CreateRoom, _: &mut Context<Self>) -> Self::Result {
        let default = &self.env.settings.default_room_version;
        let version = msg.version.clone().unwrap_or_else(|| default.clone());
        let plan = match rules::rules_of(&version).and_then(|_| rules::plan::plan(&msg, &version)) {
            Ok(plan) => plan,
            Err(error) => return refused(error),
        };
        let now = self.env.clock.now();
        self.commit(move |env, tx, news| {
            create::create(env, tx, &msg, &version, plan.clone(), now, news)
        })
    }
}

// ANCHOR: send
impl Handler<SendEvent> for Rooms {
    type Result = ResponseFuture<Result<OwnedEventId>>;

    fn handle(&mut self, msg: SendEvent, _: &mut Context<Self>) -> Self::Result {
        let content = match rules::canonical(&msg.content) {
            Ok(content) => content,
            Err(error) => return refused(error),
        };
        let now = self.env.clock.now();
        self.commit(move |env, tx, news| {
            sending::send(env, tx, msg.clone(), content.clone(), now, news)
        })
    }
}
// ANCHOR_END: send

impl Handler<SetState> for Rooms {
    type Result = ResponseFuture<Result<OwnedEventId>>;

    fn handle(&mut self, msg: SetState, _: &mut Context<Self>) -> Self::Result {
        let content = match rules::canonical(&msg.content) {
            Ok(content) => content,
            Err(error) => return refused(error),
        };
        let now = self.env.clock.now();
        self.commit(move |env, tx, news| {
            sending::set_state(env, tx, msg.clone(), content.clone(), now, news)
        })
    }
}

impl Handler<Redact> for Rooms {
    type Result = ResponseFuture<Result<OwnedEventId>>;

    fn handle(&mut self, msg: Redact, _: &mut Context<Self>) -> Self::Result {
        let now = self.env.clock.now();
        self.commit(move |env, tx, news| sending::redact(env, tx, msg.clone(), now, news))
    }
}

impl Handler<Enter> for Rooms {
    type Result = ResponseFuture<Result<OwnedRoomId>>;

    fn handle(&mut self, msg: Enter, _: &mut Context<Self>) -> Self::Result {
        let now = self.env.clock.now();
        self.commit(move |env, tx, news| members::enter(env, tx, msg.clone(), now, news))
    }
}

impl Handler<ChangeMembership> for Rooms {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: ChangeMembership, _: &mut Context<Self>) -> Self::Result {
        let now = self.env.clock.now();
        self.commit(move |env, tx, news| members::change(env, tx, msg.clone(), now, news))
    }
}

impl Handler<Forget> for Rooms {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: Forget, _: &mut Context<Self>) -> Self::Result {
        self.commit(move |_, tx, news| members::forget(tx, &msg, news))
    }
}

impl Handler<PutAlias> for Rooms {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: PutAlias, _: &mut Context<Self>) -> Self::Result {
        self.commit(move |env, tx, _| names::put(env, tx, &msg))
    }
}

impl Handler<DeleteAlias> for Rooms {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: DeleteAlias, _: &mut Context<Self>) -> Self::Result {
        self.commit(move |env, tx, _| names::delete(env, tx, &msg))
    }
}

impl Handler<SetListed> for Rooms {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: SetListed, _: &mut Context<Self>) -> Self::Result {
        self.commit(move |env, tx, _| names::set_listed(env, tx, &msg))
    }
}

impl Handler<MarkRead> for Rooms {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: MarkRead, _: &mut Context<Self>) -> Self::Result {
        let now = self.env.clock.now();
        self.commit(move |_, tx, news| marks::mark(tx, &msg, now, news))
    }
}

impl Handler<ProfileChanged> for Rooms {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: ProfileChanged, _: &mut Context<Self>) -> Self::Result {
        self.in_each_room(msg.user, Act::Rename)
    }
}

impl Handler<UserDeactivated> for Rooms {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: UserDeactivated, _: &mut Context<Self>) -> Self::Result {
        self.in_each_room(msg.user, Act::Leave)
    }
}
