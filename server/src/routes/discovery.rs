//! What the server can do, and what it has not.

use ruma::api::client::discovery::get_capabilities;
use ruma::api::client::discovery::get_supported_versions;
use serde_json::json;

use crate::http::answer::Json;
use crate::http::caller::{Auth, Caller};
use crate::http::error::Result;
use crate::http::incoming::Raw;
use crate::http::registry::Routes;
use crate::mscs;
use crate::state::App;

/// The versions of the specification whose endpoints are served here.
const VERSIONS: [&str; 17] = [
    "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11",
    "v1.12", "v1.13", "v1.14", "v1.15", "v1.16", "v1.17",
];

/// What is served here and was a proposal once, under the names by which clients ask for it.
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

/// This section's endpoints.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.on(versions).on_json(capabilities).raw(
        "GET",
        "/_matrix/client/v3/voip/turnServer",
        Auth::User,
        nothing,
    )
}

/// Which versions of the specification are served, and which features of proposals.
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
        .chain(
            mscs::ALL
                .iter()
                .filter(|m| app.proposals().contains(&m.number))
                .flat_map(|m| m.flags.iter().copied()),
        )
        .map(|flag| (flag.to_owned(), true))
        .collect();
    Ok(response)
}

/// What a client may do here.
///
/// `GET /_matrix/client/*/capabilities` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3capabilities
async fn capabilities(app: App, caller: Caller, _: get_capabilities::v3::Request) -> Result<Json> {
    caller.identity()?;
    let default = &app.actors.env.settings.default_room_version;
    let yes = json!({"enabled": true});
    let no = json!({"enabled": false});
    // Written by hand: older clients ask for the two capabilities that `m.profile_fields` replaces. An avatar is a file that was
    // uploaded somewhere, and here none can be: clients offer no such choice. Bridges, which bring avatars along, do not ask.
    let capabilities = json!({
        "m.room_versions": {"default": default, "available": {"11": "stable", "12": "stable"}},
        "m.change_password": yes,
        "m.profile_fields": {"enabled": true, "disallowed": ["avatar_url"]},
        "m.set_displayname": yes,
        "m.set_avatar_url": no,
        "m.3pid_changes": no,
        "m.get_login_token": no,
    });
    Ok(Json(json!({"capabilities": capabilities}).to_string()))
}

/// There is none, and a client goes on without. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3voipturnserver
async fn nothing(_: App, _: Caller, _: Raw) -> Result<Json> {
    Ok(Json("{}".to_owned()))
}
