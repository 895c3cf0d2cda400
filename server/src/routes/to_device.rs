//! To-device messages. `Deposit` and `Target` are in `actors/src/to_device_inbox/messages.rs`.
//!
//! Next on the way of a to-device message: `actors/src/to_device_inbox/deposit.rs`.

use actors::ask;
use actors::to_device_inbox::{Deposit, Target};
use ruma::api::client::to_device::send_event_to_device;
use ruma::to_device::DeviceIdOrAllDevices;

use super::questions;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::incoming::variable;
use crate::http::limits::LARGE_BODY;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.on_path(send).takes(LARGE_BODY).content()
}

/// Send to-device messages.
///
/// `PUT /_matrix/client/*/sendToDevice/{eventType}/{txnId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid
// ANCHOR: send
async fn send(
    app: App,
    caller: Caller,
    path: Vec<String>,
    request: send_event_to_device::v3::Request,
) -> Result<send_event_to_device::v3::Response> {
    let send_event_to_device::v3::Request {
        txn_id, messages, ..
    } = request;
    // As the client wrote it: ruma may put another name in its place.
    let event_type = variable(path, 0);
    let from = caller.identity()?.clone();
    // Appservices first create the users of their namespaces that do not exist yet.
    questions::about_users(&app, &caller, messages.keys().map(|user| &**user)).await?;
    let target = |to| match to {
        DeviceIdOrAllDevices::DeviceId(id) => Target::Device(id),
        DeviceIdOrAllDevices::AllDevices => Target::All,
    };
    let messages = messages
        .into_iter()
        .map(|(user, devices)| {
            (
                user,
                devices
                    .into_iter()
                    .map(|(to, content)| (target(to), content.into_json()))
                    .collect(),
            )
        })
        .collect();
    ask(
        &app.actors.to_device_inbox,
        Deposit {
            from,
            txn: txn_id,
            event_type,
            messages,
        },
    )
    .await?;
    Ok(send_event_to_device::v3::Response::new())
}
// ANCHOR_END: send
