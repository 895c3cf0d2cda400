//! Who is typing.

use actors::ask;
use actors::sync::SetTyping;
use ruma::api::client::typing::create_typing_event::{self, v3::Typing};

use crate::app::App;
use crate::caller::Caller;
use crate::error::Result;
use crate::ruma::Routes;

/// This section's endpoints.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.on(set)
}

/// Say that one is typing in a room, or is not.
///
/// `PUT /_matrix/client/*/rooms/{roomId}/typing/{userId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidtypinguserid
async fn set(
    app: App,
    caller: Caller,
    request: create_typing_event::v3::Request,
) -> Result<create_typing_event::v3::Response> {
    let create_typing_event::v3::Request {
        room_id,
        user_id,
        state,
        ..
    } = request;
    caller.must_be(&user_id)?;
    let time = match state {
        Typing::Yes(info) => Some(info.timeout),
        Typing::No => None,
    };
    ask(
        &app.actors.sync,
        SetTyping {
            user: user_id,
            room: room_id,
            time,
        },
    )
    .await?;
    Ok(create_typing_event::v3::Response::new())
}
