//! Setting presence: by request, and when requests to `/sync` begin and end.

use std::collections::BTreeSet;
use std::sync::Arc;

use actix::{ActorFutureExt, AsyncContext, Context, Handler, ResponseActFuture, WrapFuture};
use ruma::{OwnedUserId, RoomId};
use schema::{ServiceId, service_rooms};

use super::volatile::Presence;
use super::{SetPresence, Sync, Syncing, online, rules};
use crate::services::CarriesInterests;
use crate::{Error, Result, guarded};

/// The most rooms of a user that are woken when its presence changes; a user in more rooms is usually a bot.
const PRESENCE_ROOMS: i64 = 1000;

impl Handler<SetPresence> for Sync {
    type Result = ResponseActFuture<Self, Result<()>>;

    /// Clause: as.ephemeral.presence
    fn handle(&mut self, msg: SetPresence, _: &mut Context<Self>) -> Self::Result {
        let (user, volatile) = (msg.user.clone(), Arc::clone(&self.volatile));
        let checked = rules::check_presence(&msg.state, msg.message.as_deref());
        let presence = Presence {
            state: msg.state,
            message: msg.message,
            since: self.env.clock.monotonic(),
        };
        let write = checked.map(|()| {
            self.env.store.write(move |tx| {
                let user = msg.user.as_str();
                let (undo, undone) = (volatile.undo_presence(user), Arc::clone(&volatile));
                tx.on_rollback(move || undo(&undone));
                if !volatile.set_presence(user, presence.clone(), || tx.next_position()) {
                    return Ok(None);
                }
                let mut services: BTreeSet<ServiceId> =
                    service_rooms::services_sharing_with(tx, user)?
                        .into_iter()
                        .collect();
                let interests = tx.interests();
                let claims = interests.in_user(user).into_iter();
                let receivers =
                    claims.filter(|(s, claim)| rules::may_receive_private(s, Some(*claim)));
                services.extend(receivers.map(|(s, _)| s.id.clone()));
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
        let known = self.volatile.presence(msg.user.as_str());
        let message = known.and_then(|presence| presence.message);
        let presence = SetPresence {
            user: msg.user,
            state: msg.state,
            message,
        };
        Handler::<SetPresence>::handle(self, presence, ctx)
    }
}

impl Sync {
    /// Set a user to offline when it has had no request to `/sync` for a while.
    fn watch_sync(&self, user: OwnedUserId, ctx: &mut Context<Self>) {
        let end = self.env.clock.sleep(online::GRACE).into_actor(self);
        ctx.spawn(end.map(|(), this, ctx| {
            if !this.volatile.online().is_over(user.as_str()) {
                this.watch_sync(user, ctx);
                return;
            }
            let known = this.volatile.presence(user.as_str());
            if let Some(known) = known.filter(|known| known.state != online::OFFLINE) {
                ctx.notify(SetPresence {
                    user,
                    state: online::OFFLINE.to_owned(),
                    message: known.message,
                });
            }
        }));
    }
}
