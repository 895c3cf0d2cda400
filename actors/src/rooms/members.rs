//! Joins, knocks, invites, leaves, kicks, bans and unbans.
//!
//! Next on the way of a leave: `actors/src/rooms/mod.rs`.

use actix::{Context, Handler, ResponseFuture};
use ruma::canonical_json::{CanonicalJsonObject, CanonicalJsonValue};
use ruma::{OwnedRoomAliasId, OwnedRoomId, RoomId, UserId};
use schema::{Tx, accounts, memberships, rooms};

use super::Rooms;
use super::effects::Effects;
use super::messages::{Action, ChangeMembership, Enter, Entrance, Forget};
use super::names;
use super::open::OpenRoom;
use super::rules;
use super::rules::draft::Draft;
use super::rules::parsed;
use crate::{Env, Refusal, Result};

impl Handler<Enter> for Rooms {
    type Result = ResponseFuture<Result<OwnedRoomId>>;

    fn handle(&mut self, msg: Enter, _: &mut Context<Self>) -> Self::Result {
        let now = self.env.clock.now();
        self.commit(move |env, tx, effects| enter(env, tx, msg.clone(), now, effects))
    }
}

impl Handler<ChangeMembership> for Rooms {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: ChangeMembership, _: &mut Context<Self>) -> Self::Result {
        let now = self.env.clock.now();
        self.commit(move |env, tx, effects| change(env, tx, msg.clone(), now, effects))
    }
}

impl Handler<Forget> for Rooms {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: Forget, _: &mut Context<Self>) -> Self::Result {
        self.commit(move |_, tx, effects| forget(tx, &msg, effects))
    }
}

/// The content of a member event; for a join, an invite or a knock, with the display name and avatar of the user's profile.
/// ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#mroommember
pub(crate) fn content_for(
    tx: &mut Tx<'_>,
    user: &UserId,
    membership: &str,
    reason: Option<String>,
) -> Result<CanonicalJsonObject> {
    let mut content = CanonicalJsonObject::new();
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            content.insert(key.to_owned(), CanonicalJsonValue::String(value));
        }
    };
    put("membership", Some(membership.to_owned()));
    put("reason", reason);
    if matches!(membership, "join" | "invite" | "knock")
        && let Some(profile) = accounts::user(tx, user.as_str())?
    {
        put("displayname", profile.display_name);
        put("avatar_url", profile.avatar_url);
    }
    Ok(content)
}

/// Join a room or knock on it; nothing changes if the user has that membership already.
pub(crate) fn enter(
    env: &Env,
    tx: &mut Tx<'_>,
    msg: Enter,
    now: i64,
    effects: &mut Effects,
) -> Result<OwnedRoomId> {
    let id: OwnedRoomId = match OwnedRoomId::try_from(msg.room.clone()) {
        Ok(id) => id,
        Err(_) => {
            let alias: OwnedRoomAliasId = parsed(msg.room.as_str())?;
            names::resolve(tx, &alias)?
        }
    };
    let user = &msg.by.user;
    let unknown = || Refusal::NotFound("there is no such room on this server".into());
    let row = rooms::room(tx, id.as_str())?.ok_or_else(unknown)?;
    let mut room = OpenRoom::row(env, row)?;
    let membership = memberships::get(tx, id.as_str(), user.as_str())?
        .map(|m| m.membership)
        .unwrap_or_default();
    let target = match msg.how {
        Entrance::Join => "join",
        Entrance::Knock => "knock",
    };
    if membership == target {
        return Ok(id);
    }
    let content = content_for(tx, user, target, msg.reason)?;
    let draft = Draft::state(user, "m.room.member", user.as_str(), content, now);
    room.append(tx, &draft, effects)?;
    Ok(id)
}

/// Invite, kick, ban or unban a user, or leave.
pub(crate) fn change(
    env: &Env,
    tx: &mut Tx<'_>,
    msg: ChangeMembership,
    now: i64,
    effects: &mut Effects,
) -> Result<()> {
    let mut room = OpenRoom::room(env, tx, &msg.room)?;
    let membership = memberships::get(tx, msg.room.as_str(), msg.user.as_str())?
        .map(|m| m.membership)
        .unwrap_or_default();
    // A user outside of the room must not learn who its members are; the authorisation rules refuse the action.
    if msg.by.user == msg.user
        || memberships::is_joined(tx, msg.room.as_str(), msg.by.user.as_str())?
    {
        rules::check_action(msg.action, &membership)?;
    }
    let target = match msg.action {
        Action::Invite => "invite",
        Action::Leave | Action::Kick | Action::Unban => "leave",
        Action::Ban => "ban",
    };
    let content = content_for(tx, &msg.user, target, msg.reason)?;
    let draft = Draft::state(
        &msg.by.user,
        "m.room.member",
        msg.user.as_str(),
        content,
        now,
    );
    room.append(tx, &draft, effects)?;
    Ok(())
}

/// Forget a room, and wake the user's other devices. Forgetting it again changes nothing. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget
pub(crate) fn forget(tx: &mut Tx<'_>, msg: &Forget, effects: &mut Effects) -> Result<()> {
    let (room, user) = (msg.room.as_str(), msg.by.user.as_str());
    let gone = memberships::get(tx, room, user)?
        .filter(|m| matches!(m.membership.as_str(), "leave" | "ban"));
    let Some(row) = gone else {
        return Err(
            Refusal::Unknown("you can forget a room only after you have left it".into()).into(),
        );
    };
    if !row.is_forgotten() {
        let at = tx.next_position();
        memberships::forget(tx, room, user, at)?;
        effects.users.insert(msg.by.user.clone());
    }
    Ok(())
}

/// Send a member event with the user's current profile to a room, if the user is still joined.
pub(crate) fn rename(
    env: &Env,
    tx: &mut Tx<'_>,
    room: &RoomId,
    user: &UserId,
    now: i64,
    effects: &mut Effects,
) -> Result<()> {
    if !memberships::is_joined(tx, room.as_str(), user.as_str())? {
        return Ok(());
    }
    let mut room = OpenRoom::room(env, tx, room)?;
    let content = content_for(tx, user, "join", None)?;
    let draft = Draft::state(user, "m.room.member", user.as_str(), content, now);
    room.append(tx, &draft, effects)?;
    Ok(())
}
