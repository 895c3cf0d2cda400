//! Who reads along: which application services get copies of messages to a user's devices.

use actors::to_device_inbox::queries;
use serde_json::json;

use crate::http::answer::Json;
use crate::http::caller::{Auth, Caller};
use crate::http::error::Result;
use crate::http::incoming::Raw;
use crate::http::registry::Routes;
use crate::state::App;

/// This section's endpoints.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.raw("GET", "/_understudy/observers", Auth::User, observers)
}

// ANCHOR: observers
/// Which services get copies of messages to each of the caller's devices, and under which rule.
///
/// `GET /_understudy/observers`, of our own: a copy for who merely observes ([proposal]) is something that its user may know.
///
/// [proposal]: https://github.com/matrix-org/matrix-spec-proposals/pull/4203
async fn observers(app: App, caller: Caller, _: Raw) -> Result<Json> {
    let user = &caller.identity()?.user;
    let devices = queries::observers(&app.actors.env, user).await?;
    Json::write(&json!({"user_id": user, "devices": devices}))
}
// ANCHOR_END: observers
