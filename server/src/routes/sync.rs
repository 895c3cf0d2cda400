//! Syncing: the changes since a client's last request.

use std::time::Duration;

use actors::sync::{self, StateAt, SyncRequest, queries};
use ruma::api::client::keys::get_key_changes;

use crate::http::answer::Json;
use crate::http::caller::{Auth, Caller};
use crate::http::error::{Error, Result};
use crate::http::incoming::Raw;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    ["/_matrix/client/v3/sync", "/_matrix/client/r0/sync"]
        .into_iter()
        .fold(routes, |routes, path| {
            routes.raw("GET", path, Auth::User, new_for_client)
        })
        .on_json(key_changes)
}

/// The changes since the last answer. Waits until there are some, or until the timeout.
///
/// The query is parsed by hand: ruma does not know the unstable name of `use_state_after` (MSC4222), which some clients still
/// send.
///
/// `GET /_matrix/client/*/sync` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
// ANCHOR: sync
async fn new_for_client(app: App, caller: Caller, request: Raw) -> Result<Json> {
    let is_true = |name| request.param(name) == Some("true");
    let text = |name| request.param(name).map(str::to_owned);
    let sync_request = SyncRequest {
        by: caller.identity()?.clone(),
        since: text("since"),
        filter: text("filter"),
        full_state: is_true("full_state"),
        timeout: match request.param("timeout") {
            Some(millis) => Duration::from_millis(
                millis
                    .parse()
                    .map_err(|_| Error::invalid_param("timeout: a number of milliseconds"))?,
            ),
            None => Duration::ZERO,
        },
        state_at: if is_true("use_state_after") {
            StateAt::End
        } else if is_true("org.matrix.msc4222.use_state_after") {
            StateAt::EndUnstable
        } else {
            StateAt::Start
        },
        presence: text("set_presence").unwrap_or_else(|| default_presence(&app).to_owned()),
        query: request.query.into(),
    };
    let answer = sync::answer(&app.actors, sync_request, || app.wait_outside()).await?;
    Ok(Json(answer))
}
// ANCHOR_END: sync

/// The presence that a `/sync` request without `set_presence` sets. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
fn default_presence(app: &App) -> &'static str {
    if app.actors.env.settings.presence {
        "online"
    } else {
        "offline"
    }
}

/// The users whose devices changed between two sync tokens.
///
/// `GET /_matrix/client/*/keys/changes` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3keyschanges
async fn key_changes(
    app: App,
    caller: Caller,
    request: get_key_changes::v3::Request,
) -> Result<Json> {
    let get_key_changes::v3::Request { from, to, .. } = request;
    let user = &caller.identity()?.user;
    let lists = queries::key_changes(&app.actors.env, user, &from, &to).await?;
    Ok(Json(
        serde_json::json!({ "changed": lists.changed, "left": lists.left }).to_string(),
    ))
}
