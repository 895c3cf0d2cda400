//! Devices. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#device-management

use actix_web::http::StatusCode;
use actors::accounts::{DeleteDevices, PutDevice, queries};
use actors::ask;
use ruma::api::client::device::{
    delete_device, delete_devices, get_device, get_devices, update_device,
};
use schema::accounts::DeviceRow;
use serde::Serialize;
use serde_json::json;

use super::confirmed::{self, Confirmed};
use crate::http::answer::Json;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .on_json(list)
        .on_json(get)
        .on_status(put)
        .empty()
        .on(delete)
        .on(delete_many)
}

/// A device, as it is answered. What is not known is `null`: some clients ask for each member.
#[derive(Debug, Serialize)]
struct Device {
    device_id: String,
    display_name: Option<String>,
    last_seen_ip: Option<String>,
    last_seen_ts: Option<i64>,
}

impl From<DeviceRow> for Device {
    fn from(row: DeviceRow) -> Device {
        Device {
            device_id: row.device_id,
            display_name: row.display_name,
            last_seen_ip: row.last_seen_ip,
            last_seen_ts: row.last_seen_ts,
        }
    }
}

/// All devices of the user.
///
/// `GET /_matrix/client/*/devices` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices
async fn list(app: App, caller: Caller, _: get_devices::v3::Request) -> Result<Json> {
    let rows = queries::devices(&app.actors.env, &caller.identity()?.user).await?;
    let devices: Vec<Device> = rows.into_iter().map(Device::from).collect();
    Ok(Json(json!({ "devices": devices }).to_string()))
}

/// One device of the user.
///
/// `GET /_matrix/client/*/devices/{deviceId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devicesdeviceid
async fn get(app: App, caller: Caller, request: get_device::v3::Request) -> Result<Json> {
    let user = &caller.identity()?.user;
    let row = queries::device(&app.actors.env, user, &request.device_id).await?;
    Ok(Json(json!(Device::from(row)).to_string()))
}

/// Set a device's name. For an application service this creates a missing device, and the answer is then 201.
///
/// `PUT /_matrix/client/*/devices/{deviceId}` ([spec]) Clause: as.devices.rename
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3devicesdeviceid
async fn put(
    app: App,
    caller: Caller,
    request: update_device::v3::Request,
) -> Result<(StatusCode, update_device::v3::Response)> {
    let message = PutDevice {
        who: caller.identity()?.clone(),
        device: request.device_id,
        display_name: request.display_name,
    };
    let made = ask(&app.actors.accounts, message).await?;
    let status = if made {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, update_device::v3::Response::new()))
}

/// Delete a device; users must confirm, appservices need not. Clause: as.devices.delete, cs.devices.delete-confirmed
///
/// `DELETE /_matrix/client/*/devices/{deviceId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3devicesdeviceid
async fn delete(
    app: App,
    caller: Caller,
    Confirmed { auth, request }: Confirmed<delete_device::v3::Request>,
) -> Result<delete_device::v3::Response> {
    let message = DeleteDevices {
        who: caller.identity()?.clone(),
        devices: vec![request.device_id],
        auth: auth.clone(),
    };
    let asked = ask(&app.actors.accounts, message);
    confirmed::tried(&caller, auth.as_ref(), asked).await?;
    Ok(delete_device::v3::Response::new())
}

/// Delete several devices; users must confirm, appservices need not. Clause: as.devices.delete-many
///
/// `POST /_matrix/client/*/delete_devices` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3delete_devices
async fn delete_many(
    app: App,
    caller: Caller,
    Confirmed { auth, request }: Confirmed<delete_devices::v3::Request>,
) -> Result<delete_devices::v3::Response> {
    let message = DeleteDevices {
        who: caller.identity()?.clone(),
        devices: request.devices,
        auth: auth.clone(),
    };
    let asked = ask(&app.actors.accounts, message);
    confirmed::tried(&caller, auth.as_ref(), asked).await?;
    Ok(delete_devices::v3::Response::new())
}
