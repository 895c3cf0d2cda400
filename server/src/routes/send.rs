//! Messages and redactions.

use actors::ask;
use actors::rooms::{Redact, SendEvent};
use ruma::api::client::message::send_message_event;
use ruma::api::client::redact::redact_event;

use super::bodies::Kept;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::incoming::variable;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.on_path(send).content().on(redact).content().empty()
}

/// Send a message event to a room.
///
/// `PUT /_matrix/client/*/rooms/{roomId}/send/{eventType}/{txnId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidsendeventtypetxnid
async fn send(
    app: App,
    caller: Caller,
    path: Vec<String>,
    request: send_message_event::v3::Request,
) -> Result<send_message_event::v3::Response> {
    let event = SendEvent {
        by: caller.identity()?.clone(),
        room: request.room_id,
        kind: variable(path, 1),
        txn: request.txn_id,
        content: request.body.into_json(),
        at: request.timestamp.map(|ts| ts.get().into()),
    };
    let id = ask(&app.actors.rooms, event).await?;
    Ok(send_message_event::v3::Response::new(id))
}

/// Redact an event.
///
/// `PUT /_matrix/client/*/rooms/{roomId}/redact/{eventId}/{txnId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidredacteventidtxnid
async fn redact(
    app: App,
    caller: Caller,
    Kept { request, body }: Kept<redact_event::v3::Request>,
) -> Result<redact_event::v3::Response> {
    let redact = Redact {
        by: caller.identity()?.clone(),
        room: request.room_id,
        event: request.event_id,
        txn: request.txn_id,
        content: body,
    };
    let id = ask(&app.actors.rooms, redact).await?;
    Ok(redact_event::v3::Response::new(id))
}
