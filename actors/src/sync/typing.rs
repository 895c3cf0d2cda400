//! Setting typing, and ending it when it expires.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, ResponseActFuture, WrapFuture};
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use schema::{ServiceId, Tx, memberships};

use super::volatile::VolatileState;
use super::{SetTyping, Sync};
use crate::services::{CarriesInterests, interested_in_room};
use crate::{Error, Refusal, Result, guarded};

/// The longest time that a user counts as typing, whatever `timeout` the client sends.
const TYPING: Duration = Duration::from_secs(120);

/// The delay before a failed write is repeated.
const RETRY_AFTER: Duration = Duration::from_secs(1);

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
            let (volatile, user, room) = (Arc::clone(&self.volatile), user.clone(), room.clone());
            move |tx| {
                if !memberships::is_joined(tx, room.as_str(), user.as_str())? {
                    return Err(Refusal::Forbidden("you are not in this room".into()).into());
                }
                set_typing(tx, &volatile, &room, &user, until)
            }
        });
        let done = guarded(&self.env, "sync", write);
        Box::pin(
            done.into_actor(self)
                .map(move |done: Result<_>, this, ctx| {
                    match done {
                        Ok(Some(services)) => this.typed(room.clone(), services),
                        Ok(None) => {}
                        Err(error) => {
                            // The earlier time of the user is in force again. It may have ended while this write replaced it.
                            this.end_typing(room, user, ctx);
                            return Err(error);
                        }
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

impl Sync {
    /// Notify appservices and waiting clients that typing in a room changed.
    fn typed(&mut self, room: OwnedRoomId, services: BTreeSet<ServiceId>) {
        let (services, now) = (self.listening(services), self.env.clock.monotonic());
        for service in &services {
            self.pending.typing(service, room.as_str(), now);
        }
        self.env.wake.services(&services, None);
        self.env.wake.rooms(vec![room]);
    }

    /// End a user's typing if its time is over. Clause: cs.sync.typing
    fn end_typing(&mut self, room: OwnedRoomId, user: OwnedUserId, ctx: &mut Context<Self>) {
        let now = self.env.clock.monotonic();
        if !self
            .volatile
            .has_typing_ended(room.as_str(), user.as_str(), now)
        {
            return;
        }
        let volatile = Arc::clone(&self.volatile);
        let (write, busy) = (
            self.env.store.write_always({
                let (room, user) = (room.clone(), user.clone());
                move |tx| set_typing(tx, &volatile, &room, &user, None)
            }),
            self.env.trace.busy(),
        );
        ctx.spawn(write.into_actor(self).map(move |done, this, ctx| {
            match done {
                Ok(Some(services)) => this.typed(room, services),
                Ok(None) | Err(Error::Storage(schema::Error::Stopped)) => {}
                Err(error) => {
                    tracing::error!(%error, "could not end an expired typing notification; the next attempt follows");
                    let pause = this.env.clock.sleep(RETRY_AFTER).into_actor(this);
                    ctx.spawn(pause.map(move |(), this, ctx| {
                        this.end_typing(room, user, ctx);
                        drop(busy);
                    }));
                }
            }
        }));
    }
}

/// Part of a write: set until when a user is typing. Returns the appservices to notify; `None` if nothing changed.
/// Clause: as.ephemeral.room
fn set_typing(
    tx: &mut Tx<'_>,
    volatile: &Arc<VolatileState>,
    room: &RoomId,
    user: &UserId,
    until: Option<i64>,
) -> Result<Option<BTreeSet<ServiceId>>> {
    let (undo, undone) = (volatile.undo_typing(room.as_str()), Arc::clone(volatile));
    tx.on_rollback(move || undo(&undone));
    let taken = volatile.set_typing(room.as_str(), user.as_str(), until, || tx.next_position());
    let interests = tx.interests();
    Ok(taken
        .map(|_| interested_in_room(tx, &interests, room.as_str()))
        .transpose()?)
}
