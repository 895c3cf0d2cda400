//! The state of rooms.

use actors::ask;
use actors::rooms::{SetState, queries, rules};
use ruma::api::client::state::get_state_event_for_key::v3::StateEventFormat;
use ruma::api::client::state::{get_state_event_for_key, get_state_events, send_state_event};
use ruma::serde::Raw;

use super::questions;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::incoming::variable;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.on(all).on_path(one).on_path(set).content()
}

/// The whole state of a room.
///
/// `GET /_matrix/client/*/rooms/{roomId}/state` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstate
async fn all(
    app: App,
    caller: Caller,
    request: get_state_events::v3::Request,
) -> Result<get_state_events::v3::Response> {
    let by = caller.identity()?;
    let events = queries::state(&app.actors.env, by, &request.room_id).await?;
    let events = events.into_iter().map(Raw::from_json).collect();
    Ok(get_state_events::v3::Response::new(events))
}

/// One state event of a room: its content or, on request, the whole event.
///
/// `GET /_matrix/client/*/rooms/{roomId}/state/{eventType}/{stateKey}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidstateeventtypestatekey
async fn one(
    app: App,
    caller: Caller,
    path: Vec<String>,
    request: get_state_event_for_key::v3::Request,
) -> Result<get_state_event_for_key::v3::Response> {
    let by = caller.identity()?;
    let kind = variable(path, 1);
    let (content, event) = queries::state_event(
        &app.actors.env,
        by,
        &request.room_id,
        &kind,
        &request.state_key,
    )
    .await?;
    let wanted = match request.format {
        StateEventFormat::Event => event,
        _ => content,
    };
    Ok(get_state_event_for_key::v3::Response::new(wanted))
}

/// Send a state event.
///
/// `PUT /_matrix/client/*/rooms/{roomId}/state/{eventType}/{stateKey}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey
async fn set(
    app: App,
    caller: Caller,
    path: Vec<String>,
    request: send_state_event::v3::Request,
) -> Result<send_state_event::v3::Response> {
    let by = caller.identity()?.clone();
    let kind = variable(path, 1);
    if let Some(invited) = rules::invited(&kind, &request.state_key, request.body.json()) {
        questions::about_users(&app, &caller, [invited]).await?;
    }
    let set = SetState {
        by,
        room: request.room_id,
        kind,
        state_key: request.state_key,
        content: request.body.into_json(),
        at: request.timestamp.map(|ts| ts.get().into()),
    };
    let id = ask(&app.actors.rooms, set).await?;
    Ok(send_state_event::v3::Response::new(id))
}
