//! Changes of membership.
//!
//! Next on the way of a leave: `actors/src/rooms/members.rs`.

use actors::rooms::{Action, ChangeMembership, Enter, Entrance, Forget};
use actors::{Refusal, ask};
use ruma::api::client::knock::knock_room;
use ruma::api::client::membership::invite_user::v3::InvitationRecipient;
use ruma::api::client::membership::{
    ban_user, forget_room, invite_user, join_room_by_id, join_room_by_id_or_alias, kick_user,
    leave_room, unban_user,
};
use ruma::{OwnedRoomId, OwnedRoomOrAliasId, OwnedUserId, RoomAliasId};

use super::questions;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .on(join)
        .content()
        .on(join_by_id)
        .content()
        .on(knock)
        .content()
        .on(invite)
        .content()
        .on(leave)
        .content()
        .on(kick)
        .content()
        .on(ban)
        .content()
        .on(unban)
        .content()
        .on(forget)
}

async fn enter(
    app: &App,
    caller: &Caller,
    room: OwnedRoomOrAliasId,
    how: Entrance,
    reason: Option<String>,
) -> Result<OwnedRoomId> {
    let by = caller.identity()?.clone();
    if let Ok(alias) = <&RoomAliasId>::try_from(&*room) {
        questions::about_alias(app, caller, alias).await?;
    }
    let enter = Enter {
        by,
        room,
        how,
        reason,
    };
    Ok(ask(&app.actors.rooms, enter).await?)
}

async fn change(
    app: &App,
    caller: &Caller,
    room: OwnedRoomId,
    user: OwnedUserId,
    action: Action,
    reason: Option<String>,
) -> Result<()> {
    let by = caller.identity()?.clone();
    let change = ChangeMembership {
        by,
        room,
        user,
        action,
        reason,
    };
    Ok(ask(&app.actors.rooms, change).await?)
}

/// Join a room by its id or an alias.
///
/// `POST /_matrix/client/*/join/{roomIdOrAlias}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3joinroomidoralias
async fn join(
    app: App,
    caller: Caller,
    request: join_room_by_id_or_alias::v3::Request,
) -> Result<join_room_by_id_or_alias::v3::Response> {
    let (room, reason) = (request.room_id_or_alias, request.reason);
    let room = enter(&app, &caller, room, Entrance::Join, reason).await?;
    Ok(join_room_by_id_or_alias::v3::Response::new(room))
}

/// Join a room by its id.
///
/// `POST /_matrix/client/*/rooms/{roomId}/join` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidjoin
async fn join_by_id(
    app: App,
    caller: Caller,
    request: join_room_by_id::v3::Request,
) -> Result<join_room_by_id::v3::Response> {
    let (room, reason) = (request.room_id.into(), request.reason);
    let room = enter(&app, &caller, room, Entrance::Join, reason).await?;
    Ok(join_room_by_id::v3::Response::new(room))
}

/// Knock: ask for an invite.
///
/// `POST /_matrix/client/*/knock/{roomIdOrAlias}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3knockroomidoralias
async fn knock(
    app: App,
    caller: Caller,
    request: knock_room::v3::Request,
) -> Result<knock_room::v3::Response> {
    let (room, reason) = (request.room_id_or_alias, request.reason);
    let room = enter(&app, &caller, room, Entrance::Knock, reason).await?;
    Ok(knock_room::v3::Response::new(room))
}

/// Invite a user. If the user does not exist, the appservice whose namespace contains it is asked to create it; the invite is sent
/// in any case.
///
/// `POST /_matrix/client/*/rooms/{roomId}/invite` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidinvite
async fn invite(
    app: App,
    caller: Caller,
    request: invite_user::v3::Request,
) -> Result<invite_user::v3::Response> {
    let InvitationRecipient::UserId(invited) = request.recipient else {
        return Err(
            Refusal::Forbidden("there is no identity server to invite through".into()).into(),
        );
    };
    let (user, reason) = (invited.user_id, invited.reason);
    questions::about_users(&app, &caller, [&*user]).await?;
    change(&app, &caller, request.room_id, user, Action::Invite, reason).await?;
    Ok(invite_user::v3::Response::new())
}

/// Leave a room, reject an invite, or retract a knock.
///
/// `POST /_matrix/client/*/rooms/{roomId}/leave` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidleave
async fn leave(
    app: App,
    caller: Caller,
    request: leave_room::v3::Request,
) -> Result<leave_room::v3::Response> {
    let (user, reason) = (caller.identity()?.user.clone(), request.reason);
    change(&app, &caller, request.room_id, user, Action::Leave, reason).await?;
    Ok(leave_room::v3::Response::new())
}

/// Remove a user from the room.
///
/// `POST /_matrix/client/*/rooms/{roomId}/kick` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidkick
async fn kick(
    app: App,
    caller: Caller,
    request: kick_user::v3::Request,
) -> Result<kick_user::v3::Response> {
    let (user, reason) = (request.user_id, request.reason);
    change(&app, &caller, request.room_id, user, Action::Kick, reason).await?;
    Ok(kick_user::v3::Response::new())
}

/// Ban a user, which also removes it from the room.
///
/// `POST /_matrix/client/*/rooms/{roomId}/ban` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidban
async fn ban(
    app: App,
    caller: Caller,
    request: ban_user::v3::Request,
) -> Result<ban_user::v3::Response> {
    let (user, reason) = (request.user_id, request.reason);
    change(&app, &caller, request.room_id, user, Action::Ban, reason).await?;
    Ok(ban_user::v3::Response::new())
}

/// Lift a ban.
///
/// `POST /_matrix/client/*/rooms/{roomId}/unban` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidunban
async fn unban(
    app: App,
    caller: Caller,
    request: unban_user::v3::Request,
) -> Result<unban_user::v3::Response> {
    let (user, reason) = (request.user_id, request.reason);
    change(&app, &caller, request.room_id, user, Action::Unban, reason).await?;
    Ok(unban_user::v3::Response::new())
}

/// Forget a room that the caller has left.
///
/// `POST /_matrix/client/*/rooms/{roomId}/forget` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget
async fn forget(
    app: App,
    caller: Caller,
    request: forget_room::v3::Request,
) -> Result<forget_room::v3::Response> {
    let by = caller.identity()?.clone();
    let room = request.room_id;
    ask(&app.actors.rooms, Forget { by, room }).await?;
    Ok(forget_room::v3::Response::new())
}
