//! Answers to `/sync`: who waits for what, and what is never written down.
//!
//! *Owns* no table: the waiters, typing and presence, and what services have still to be told of these and of receipts, all in
//! memory.
//!
//! *Asks* nobody. A request to `/sync` asks `to_device_inbox` to delete what its `since` acknowledges.
//!
//! *Tells* [`Wake`](crate::runtime::wake::Wake): who waits in a room where somebody types, and the senders of services that want to know.
//!
//! *Promises* that whoever waits is woken by whatever is committed after what it has seen; that a wake costs no more than those
//! it concerns; that two answers in a row leave nothing out between them.
//!
//! *Spec* [Syncing](https://spec.matrix.org/v1.19/client-server-api/#syncing),
//! [Typing](https://spec.matrix.org/v1.19/client-server-api/#typing-notifications),
//! [Presence](https://spec.matrix.org/v1.19/client-server-api/#presence),
//! [ephemeral data for services](https://spec.matrix.org/v1.19/application-service-api/#pushing-ephemeral-data).

mod answer;
mod ask;
mod devices;
mod events;
mod filter;
mod fleeting;
mod gather;
mod history;
mod messages;
mod online;
mod pending;
mod personal;
mod pieces;
pub mod queries;
mod room;
pub mod rules;
#[cfg(test)]
mod tests;
mod token;
mod unread;
mod waiters;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, ResponseActFuture, WrapFuture};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use schema::ServiceId;
use schema::{Tx, appservices, device_lists, memberships};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::appservice_sender::{DropEphemeral, TakeEphemeral};
use crate::runtime::life::Life;
use crate::runtime::trace::Busy;
use crate::runtime::wake::{NewReceipt, WakeSync};
use crate::{Env, Error, Refusal, Result, guarded};
use pending::Pending;
use waiters::Waiters;

pub use answer::{Question, answer};
pub use ask::StateAt;
pub use devices::DeviceLists;
pub use filter::Filter;
pub use fleeting::{Fleeting, Presence};

pub use messages::*;
pub use token::Token;

/// For how long typing is believed at most, whatever the client says.
const TYPING: Duration = Duration::from_secs(120);

/// How many rooms hear of a change of presence: who is in more is a bot.
const PRESENCE_ROOMS: i64 = 1000;

/// The actor.
pub struct Sync {
    env: Env,
    /// Shared with the waits themselves, which take themselves out when they are given up.
    waiters: Arc<Mutex<Waiters<Busy>>>,
    pending: Pending,
    fleeting: Arc<Fleeting>,
    life: Life,
}

impl Sync {
    /// Nobody waits yet.
    #[must_use]
    pub fn new(env: Env, fleeting: Arc<Fleeting>) -> Sync {
        Sync {
            env,
            waiters: Arc::default(),
            pending: Pending::default(),
            fleeting,
            life: Life::default(),
        }
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters<Busy>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of these services, those that are sent what is fleeting.
    fn listening(&self, services: BTreeSet<ServiceId>) -> BTreeSet<ServiceId> {
        let interests = self.env.store.interests();
        let listens = |id: &ServiceId| {
            interests.service(id).is_some_and(|s| {
                s.is_reachable()
                    && (s.registration.receive_ephemeral || s.registration.push_ephemeral)
            })
        };
        services.into_iter().filter(listens).collect()
    }

    /// Somebody began or ceased to type: everybody in the room hears of it.
    fn typed(&mut self, room: OwnedRoomId, services: BTreeSet<ServiceId>) {
        let (services, now) = (self.listening(services), self.env.clock.monotonic());
        for service in &services {
            self.pending.typing(service, room.as_str(), now);
        }
        self.env.wake.services(&services, None);
        self.env.wake.rooms(vec![room]);
    }

    /// A user that syncs no more is offline after a while.
    fn watch_sync(&self, user: OwnedUserId, ctx: &mut Context<Self>) {
        let end = self.env.clock.sleep(online::GRACE).into_actor(self);
        ctx.spawn(end.map(|(), this, ctx| {
            if !this.fleeting.online().is_over(user.as_str()) {
                this.watch_sync(user, ctx);
                return;
            }
            let known = this.fleeting.presence(user.as_str());
            if let Some(known) = known.filter(|known| known.state != online::OFFLINE) {
                ctx.notify(SetPresence {
                    user,
                    state: online::OFFLINE.to_owned(),
                    message: known.message,
                });
            }
        }));
    }

    /// Typing that was not said again ends by itself.
    fn end_typing(&mut self, room: OwnedRoomId, user: OwnedUserId, ctx: &mut Context<Self>) {
        let now = self.env.clock.monotonic();
        if !self
            .fleeting
            .has_typing_ended(room.as_str(), user.as_str(), now)
        {
            return;
        }
        let fleeting = Arc::clone(&self.fleeting);
        let (write, busy) = (
            self.env.store.write_always({
                let room = room.clone();
                move |tx| set_typing(tx, &fleeting, &room, &user, None)
            }),
            self.env.trace.busy(),
        );
        ctx.spawn(write.into_actor(self).map(|done, this, _| {
            match done {
                Ok(Some(services)) => this.typed(room, services),
                Ok(None) => {}
                Err(error) => tracing::error!(%error, "typing could not be ended"),
            }
            drop(busy);
        }));
    }
}

impl Actor for Sync {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.life.watch(ctx, &self.env, "sync");
        ctx.set_mailbox_capacity(4096);
    }
}

impl Handler<WakeSync> for Sync {
    type Result = ();

    fn handle(&mut self, msg: WakeSync, _: &mut Context<Self>) {
        let users = msg.users.iter().map(|user| user.as_str());
        let rooms = msg.rooms.iter().map(|room| room.as_str());
        let woken = self.waiters().woken(users, rooms, self.env.store.head());
        for wake in woken {
            // Who has just given up does not hear it.
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
                0 // nobody's number
            } else {
                waiters.add(msg.user.to_string(), msg.rooms, wake)
            }
        };
        Ok(Wait::new(id, woken, Arc::clone(&self.waiters)))
    }
}

/// Part of a write: the user is typing until a time, or is not. Whom to tell, if that is news.
fn set_typing(
    tx: &mut Tx<'_>,
    fleeting: &Arc<Fleeting>,
    room: &RoomId,
    user: &UserId,
    until: Option<i64>,
) -> Result<Option<BTreeSet<ServiceId>>> {
    let (undo, undone) = (fleeting.undo_typing(room.as_str()), Arc::clone(fleeting));
    tx.on_rollback(move || undo(&undone));
    let taken = fleeting.set_typing(room.as_str(), user.as_str(), until, || tx.next_position());
    let interests = tx.interests();
    Ok(taken
        .map(|_| appservices::interested_in_room(tx, &interests, room.as_str()))
        .transpose()?)
}

impl Handler<SetTyping> for Sync {
    type Result = ResponseActFuture<Self, Result<()>>;

    fn handle(&mut self, msg: SetTyping, _: &mut Context<Self>) -> Self::Result {
        let SetTyping { user, room, time } = msg;
        let time = time.map(|time| time.min(TYPING));
        let until = time.map(|time| {
            let length = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
            self.env.clock.monotonic().saturating_add(length)
        });
        let write = self.env.store.write({
            let (fleeting, user, room) = (Arc::clone(&self.fleeting), user.clone(), room.clone());
            move |tx| {
                if !memberships::is_joined(tx, room.as_str(), user.as_str())? {
                    return Err(Refusal::Forbidden("you are not in this room".into()).into());
                }
                set_typing(tx, &fleeting, &room, &user, until)
            }
        });
        let done = guarded(&self.env, "sync", write);
        Box::pin(
            done.into_actor(self)
                .map(move |done: Result<_>, this, ctx| {
                    if let Some(services) = done? {
                        this.typed(room.clone(), services);
                    }
                    if let Some(time) = time {
                        let end = this.env.clock.sleep(time);
                        ctx.spawn(
                            end.into_actor(this)
                                .map(|(), this, ctx| this.end_typing(room, user, ctx)),
                        );
                    }
                    Ok(())
                }),
        )
    }
}

impl Handler<SetPresence> for Sync {
    type Result = ResponseActFuture<Self, Result<()>>;

    fn handle(&mut self, msg: SetPresence, _: &mut Context<Self>) -> Self::Result {
        let (user, fleeting) = (msg.user.clone(), Arc::clone(&self.fleeting));
        let checked = rules::check_presence(&msg.state, msg.message.as_deref());
        let presence = Presence {
            state: msg.state,
            message: msg.message,
            since: self.env.clock.monotonic(),
        };
        let write = checked.map(|()| {
            self.env.store.write(move |tx| {
                let user = msg.user.as_str();
                let (undo, undone) = (fleeting.undo_presence(user), Arc::clone(&fleeting));
                tx.on_rollback(move || undo(&undone));
                if !fleeting.set_presence(user, presence.clone(), || tx.next_position()) {
                    return Ok(None);
                }
                let mut services: BTreeSet<ServiceId> =
                    device_lists::services_sharing_with(tx, user)?
                        .into_iter()
                        .collect();
                let interests = tx.interests();
                let claims = interests.in_user(user).into_iter();
                let privy = claims.filter(|(s, claim)| rules::is_privy(s, Some(*claim)));
                services.extend(privy.map(|(s, _)| s.id.clone()));
                let rooms = schema::sync::joined_rooms(tx, user, "", PRESENCE_ROOMS)?;
                Ok::<_, Error>(Some((services, rooms)))
            })
        });
        let done = guarded(&self.env, "sync", async move { write?.await });
        Box::pin(done.into_actor(self).map(move |done: Result<_>, this, _| {
            let Some((services, rooms)) = done? else {
                return Ok(());
            };
            let (services, now) = (this.listening(services), this.env.clock.monotonic());
            for service in &services {
                this.pending.presence(service, user.as_str(), now);
            }
            this.env.wake.services(&services, None);
            this.env.wake.users(vec![user]);
            this.env.wake.rooms(
                rooms
                    .into_iter()
                    .filter_map(|id| RoomId::parse(id).ok())
                    .collect(),
            );
            Ok(())
        }))
    }
}

impl Handler<Syncing> for Sync {
    type Result = ResponseActFuture<Self, Result<()>>;

    fn handle(&mut self, msg: Syncing, ctx: &mut Context<Self>) -> Self::Result {
        if msg.is_first {
            self.watch_sync(msg.user.clone(), ctx);
        }
        let known = self.fleeting.presence(msg.user.as_str());
        let message = known.and_then(|presence| presence.message);
        let presence = SetPresence {
            user: msg.user,
            state: msg.state,
            message,
        };
        Handler::<SetPresence>::handle(self, presence, ctx)
    }
}

impl Handler<NewReceipt> for Sync {
    type Result = ();

    fn handle(&mut self, msg: NewReceipt, ctx: &mut Context<Self>) {
        let interests = self.env.store.interests();
        if interests.services().is_empty() {
            return;
        }
        let busy = self.env.trace.busy();
        let room = msg.room.to_string();
        let concerned = {
            let interests = Arc::clone(&interests);
            self.env
                .store
                .read(move |db| appservices::interested_in_room(db, &interests, &room))
        };
        ctx.spawn(concerned.into_actor(self).map(move |concerned, this, _| {
            // What is fleeting may be lost: the row of the receipt is not.
            let mut services = this.listening(concerned.unwrap_or_default());
            if msg.kind == "m.read.private" {
                services.retain(|id| {
                    let claim = interests.claim(id, msg.user.as_str());
                    interests
                        .service(id)
                        .is_some_and(|s| rules::is_privy(s, claim))
                });
            }
            let now = this.env.clock.monotonic();
            for service in &services {
                this.pending.receipt(service, &msg, now);
            }
            this.env.wake.services(&services, None);
            drop(busy);
        }));
    }
}

impl Handler<TakeEphemeral> for Sync {
    type Result = Vec<Box<RawValue>>;

    fn handle(&mut self, msg: TakeEphemeral, _: &mut Context<Self>) -> Self::Result {
        let now = self.env.clock.monotonic();
        self.pending
            .take(&msg.service, msg.limit, &self.fleeting, now)
            .unwrap_or_else(|error| {
                tracing::error!(service = %msg.service, %error, "what is fleeting was dropped");
                Vec::new()
            })
    }
}

impl Handler<DropEphemeral> for Sync {
    type Result = ();

    fn handle(&mut self, msg: DropEphemeral, _: &mut Context<Self>) {
        self.pending.forget(&msg.service);
    }
}

impl Handler<Observe> for Sync {
    type Result = Result<View>;

    fn handle(&mut self, _: Observe, _: &mut Context<Self>) -> Self::Result {
        Ok(View {
            waiting: self.waiters().len(),
            pending: self.pending.sizes(),
        })
    }
}
