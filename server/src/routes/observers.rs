//! Which application services get copies of to-device messages to a user's devices.

use actors::to_device_inbox::queries;
use serde_json::json;

use crate::http::answer::Json;
use crate::http::caller::{Auth, Caller};
use crate::http::error::Result;
use crate::http::incoming::Raw;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.raw("GET", "/_understudy/observers", Auth::User, observers)
}

// ANCHOR: observers
/// Which appservices get copies of messages to each of the caller's devices, and under which rule. Clause: own.inbox.consent
///
/// `GET /_understudy/observers`, an endpoint of this server alone: users can find out which appservices receive copies of their
/// messages ([proposal]).
///
/// [proposal]: https://github.com/matrix-org/matrix-spec-proposals/pull/4203
async fn observers(app: App, caller: Caller, _: Raw) -> Result<Json> {
    let user = &caller.identity()?.user;
    let devices = queries::observers(&app.actors.env, user).await?;
    Json::write(&json!({"user_id": user, "devices": devices}))
}
// ANCHOR_END: observers
