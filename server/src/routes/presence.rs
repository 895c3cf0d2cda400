//! Presence.

use std::time::Duration;

use actors::ask;
use actors::sync::{SetPresence, queries};
use ruma::api::client::presence::{get_presence, set_presence};

use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.on(set).on(get)
}

/// Set the caller's presence.
///
/// `PUT /_matrix/client/*/presence/{userId}/status` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3presenceuseridstatus
async fn set(
    app: App,
    caller: Caller,
    request: set_presence::v3::Request,
) -> Result<set_presence::v3::Response> {
    let set_presence::v3::Request {
        user_id,
        presence,
        status_msg,
        ..
    } = request;
    caller.must_be(&user_id)?;
    ask(
        &app.actors.sync,
        SetPresence {
            user: user_id,
            state: presence.to_string(),
            message: status_msg,
        },
    )
    .await?;
    Ok(set_presence::v3::Response::new())
}

/// Get a user's presence.
///
/// `GET /_matrix/client/*/presence/{userId}/status` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3presenceuseridstatus
async fn get(
    app: App,
    caller: Caller,
    request: get_presence::v3::Request,
) -> Result<get_presence::v3::Response> {
    let env = &app.actors.env;
    let by = &caller.identity()?.user;
    let found = queries::presence(&app.actors, by, &request.user_id).await?;
    let ago = u64::try_from(env.clock.monotonic() - found.since).unwrap_or(0);
    let mut response = get_presence::v3::Response::new(found.state.as_str().into());
    response.currently_active = Some(found.state == "online");
    response.last_active_ago = Some(Duration::from_millis(ago));
    response.status_msg = found.message;
    Ok(response)
}
