//! What the server supports.

use ruma::api::client::discovery::get_capabilities;
use ruma::api::client::discovery::get_supported_versions;
use serde_json::json;

use crate::http::answer::Json;
use crate::http::caller::{Auth, Caller};
use crate::http::error::Result;
use crate::http::incoming::Raw;
use crate::http::registry::Routes;
use crate::state::App;

/// The versions of the specification that are announced.
const VERSIONS: [&str; 17] = [
    "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11",
    "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17",
];

/// Features that were proposals once, under the unstable names by which clients look for them.
const FEATURES: [&str; 9] = [
    "org.matrix.e2e_cross_signing",
    "org.matrix.msc2285.stable",
    "fi.mau.msc2659.stable",
    "org.matrix.msc3030",
    "org.matrix.msc3771",
    "org.matrix.msc3773",
    "org.matrix.msc3827.stable",
    "uk.tcpip.msc4133.stable",
    "org.matrix.msc4222",
];

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.on(versions).on_json(capabilities).raw(
        "GET",
        "/_matrix/client/v3/voip/turnServer",
        Auth::User,
        nothing,
    )
}

/// The supported versions of the specification and unstable features. Clause: cs.api.versions
///
/// `GET /_matrix/client/versions` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientversions
async fn versions(
    app: App,
    _: Caller,
    _: get_supported_versions::Request,
) -> Result<get_supported_versions::Response> {
    let mut response =
        get_supported_versions::Response::new(VERSIONS.map(ToOwned::to_owned).to_vec());
    response.unstable_features = FEATURES
        .into_iter()
        .chain(app.announced().flags.iter().copied())
        .map(|flag| (flag.to_owned(), true))
        .collect();
    Ok(response)
}

/// The capabilities that a client can rely on.
///
/// `GET /_matrix/client/*/capabilities` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3capabilities
async fn capabilities(app: App, caller: Caller, _: get_capabilities::v3::Request) -> Result<Json> {
    caller.identity()?;
    let default = &app.actors.env.settings.default_room_version;
    let yes = json!({"enabled": true});
    let no = json!({"enabled": false});
    // Not ruma's type: older clients read the two capabilities that `m.profile_fields` replaces. The avatar capability is off,
    // because it takes an uploaded file and this server has no media repository; clients then hide the choice. Bridges set
    // avatars without reading capabilities.
    let mut capabilities = json!({
        "m.room_versions": {"default": default, "available": {"11": "stable", "12": "stable"}},
        "m.change_password": yes,
        "m.profile_fields": {"enabled": true, "disallowed": ["avatar_url"]},
        "m.set_displayname": yes,
        "m.set_avatar_url": no,
        "m.3pid_changes": no,
        "m.get_login_token": no,
    });
    for (name, value) in &app.announced().capabilities {
        capabilities[*name] = value.clone();
    }
    Ok(Json(json!({"capabilities": capabilities}).to_string()))
}

/// An empty object: there is no TURN server, and clients continue without. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3voipturnserver
async fn nothing(_: App, _: Caller, _: Raw) -> Result<Json> {
    Ok(Json("{}".to_owned()))
}
