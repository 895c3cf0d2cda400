//! Changes to a user that need an event in each of its rooms. Each room gets a write of its own, so that a user in a thousand rooms
//! does not delay other requests. Each write reads the user's profile and membership again.

use actix::Recipient;
use actix::{Context, Handler, ResponseFuture};
use ruma::{OwnedRoomId, OwnedUserId};
use schema::memberships::{self, MembershipRow};

use super::Rooms;
use super::effects::Effects;
use super::effects::notify;
use super::members;
use super::messages::{Action, ChangeMembership};
use super::messages::{ProfileChanged, UserDeactivated};
use super::rules::parsed;
use crate::device_lists::MembershipChanged;
use crate::{Env, Error, Identity, Result, guarded};

impl Handler<ProfileChanged> for Rooms {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: ProfileChanged, _: &mut Context<Self>) -> Self::Result {
        self.in_each_room(msg.user, RoomChange::Rename)
    }
}

impl Handler<UserDeactivated> for Rooms {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: UserDeactivated, _: &mut Context<Self>) -> Self::Result {
        self.in_each_room(msg.user, RoomChange::Leave)
    }
}

impl Rooms {
    /// Make a change in each room of a user: in the first [`PAGE`] rooms before the reply, in the others after it.
    fn in_each_room(&self, user: OwnedUserId, change: RoomChange) -> ResponseFuture<Result<()>> {
        let env = self.env.clone();
        let mut rooms = EachRoom::new(env.clone(), self.device_lists.clone(), user, change);
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

/// How many rooms are read at a time, and how many are changed before the reply.
const PAGE: i64 = 100;

/// The change to make in each room.
#[derive(Debug, Clone, Copy)]
pub(super) enum RoomChange {
    /// Send a member event with the user's current display name and avatar.
    Rename,
    /// Leave the room, decline the invite or take back the knock.
    Leave,
}

impl RoomChange {
    /// The memberships of the user for which a room is changed.
    fn memberships(self) -> &'static [&'static str] {
        match self {
            RoomChange::Rename => &["join"],
            RoomChange::Leave => &["join", "invite", "knock"],
        }
    }
}

/// An iteration over a user's rooms, in order of membership and id.
pub(super) struct EachRoom {
    env: Env,
    device_lists: Recipient<MembershipChanged>,
    user: OwnedUserId,
    change: RoomChange,
    /// The memberships whose rooms are not all changed yet, the current one first.
    left: &'static [&'static str],
    /// The id of the last room read for the current membership; empty at its start.
    last: String,
}

impl EachRoom {
    pub(super) fn new(
        env: Env,
        device_lists: Recipient<MembershipChanged>,
        user: OwnedUserId,
        change: RoomChange,
    ) -> EachRoom {
        EachRoom {
            env,
            device_lists,
            user,
            left: change.memberships(),
            change,
            last: String::new(),
        }
    }

    /// Change the next [`PAGE`] rooms. Returns whether more rooms may be left. A room that refuses the event is skipped.
    pub(super) async fn page(&mut self) -> Result<bool> {
        let mut done = 0;
        while done < PAGE {
            let rooms = self.next(PAGE - done).await?;
            if rooms.is_empty() {
                return Ok(false);
            }
            for row in rooms {
                done += 1;
                let room: OwnedRoomId = parsed(&row.room_id)?;
                match self.change(&room).await {
                    Ok(()) => {}
                    Err(Error::Refused(refusal)) => {
                        tracing::warn!(%room, user = %self.user, change = ?self.change, %refusal, "a room is passed over");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(true)
    }

    /// Change all rooms that are left.
    pub(super) async fn rest(mut self) -> Result<()> {
        while self.page().await? {}
        Ok(())
    }

    /// The rows of the next rooms, at most `limit`; empty at the end.
    async fn next(&mut self, limit: i64) -> Result<Vec<MembershipRow>> {
        while let Some((membership, others)) = self.left.split_first() {
            let (user, last, membership) = (self.user.clone(), self.last.clone(), *membership);
            let read = self.env.store.read(move |db| {
                let user = user.as_str();
                Ok::<_, Error>(memberships::of_user(db, user, membership, &last, limit)?)
            });
            let rooms = read.await?;
            if let Some(end) = rooms.last() {
                self.last.clone_from(&end.room_id);
                return Ok(rooms);
            }
            (self.left, self.last) = (others, String::new());
        }
        Ok(Vec::new())
    }

    async fn change(&self, room: &OwnedRoomId) -> Result<()> {
        let (env, now, change) = (self.env.clone(), self.env.clock.now(), self.change);
        let (user, room) = (self.user.clone(), room.clone());
        let write = self.env.store.write_always(move |tx| {
            let mut effects = Effects::default();
            match change {
                RoomChange::Rename => members::rename(&env, tx, &room, &user, now, &mut effects)?,
                RoomChange::Leave => {
                    members::change(&env, tx, leave(&user, &room), now, &mut effects)?;
                }
            }
            Ok::<_, Error>(effects)
        });
        notify(&self.env, &self.device_lists, write.await?);
        Ok(())
    }
}

fn leave(user: &OwnedUserId, room: &OwnedRoomId) -> ChangeMembership {
    ChangeMembership {
        by: Identity {
            user: user.clone(),
            device: None,
            appservice: None,
        },
        room: room.clone(),
        user: user.clone(),
        action: Action::Leave,
        reason: None,
    }
}
