//! Typing notifications.
//!
//! Parsed without ruma's types: ruma requires `timeout`, which the specification makes optional.

use std::time::Duration;

use actors::ask;
use actors::sync::SetTyping;
use ruma::{OwnedRoomId, OwnedUserId};
use serde::Deserialize;

use crate::http::answer::Json;
use crate::http::caller::{Auth, Caller};
use crate::http::error::{Error, Result};
use crate::http::incoming::Raw;
use crate::http::registry::Routes;
use crate::state::App;

/// The default timeout, taken from the specification's examples.
const TIME: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
struct Typing {
    typing: bool,
    /// Milliseconds.
    timeout: Option<u64>,
}

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    ["r0", "v3"].into_iter().fold(routes, |routes, version| {
        let path = format!("/_matrix/client/{version}/rooms/{{room_id}}/typing/{{user_id}}");
        routes.raw("PUT", &path, Auth::User, set)
    })
}

/// Set whether the caller is typing in a room.
///
/// `PUT /_matrix/client/*/rooms/{roomId}/typing/{userId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidtypinguserid
async fn set(app: App, caller: Caller, request: Raw) -> Result<Json> {
    let body: Typing = request.json()?;
    let [room, user] = <[String; 2]>::try_from(request.path)
        .map_err(|_| Error::invalid_param("the path has two variables"))?;
    let room = OwnedRoomId::try_from(room).map_err(|e| Error::invalid_param(e.to_string()))?;
    let user = OwnedUserId::try_from(user).map_err(|e| Error::invalid_param(e.to_string()))?;
    caller.must_be(&user)?;
    let time = body.timeout.map_or(TIME, Duration::from_millis);
    let message = SetTyping {
        user,
        room,
        time: body.typing.then_some(time),
    };
    ask(&app.actors.sync, message).await?;
    Ok(Json("{}".to_owned()))
}
