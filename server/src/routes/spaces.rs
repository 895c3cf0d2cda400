//! Summaries of rooms for users that consider joining, and the rooms of spaces.

use actors::rooms::queries::{self, SpacePage};
use ruma::OwnedRoomId;
use ruma::api::client::room::get_summary;
use ruma::api::client::space::get_hierarchy;
use serde_json::json;

use super::questions;
use crate::http::answer::Json;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.on_json(summary).on_json(hierarchy)
}

/// The summary of a room.
///
/// `GET /_matrix/client/*/room_summary/{roomIdOrAlias}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias
async fn summary(app: App, caller: Caller, request: get_summary::v1::Request) -> Result<Json> {
    let env = &app.actors.env;
    let room = match OwnedRoomId::try_from(request.room_id_or_alias) {
        Ok(room) => room,
        Err(alias) => {
            questions::about_alias(&app, &caller, &alias).await?;
            queries::room_named(env, &alias).await?
        }
    };
    let found = queries::summary(env, caller.identity().ok(), &room).await?;
    Json::write(&found)
}

/// A page of the rooms of a space.
///
/// `GET /_matrix/client/*/rooms/{roomId}/hierarchy` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy
async fn hierarchy(app: App, caller: Caller, request: get_hierarchy::v1::Request) -> Result<Json> {
    let limit = request.limit.map_or(50, u64::from);
    let page = SpacePage {
        from: request.from.filter(|from| !from.is_empty()),
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        max_depth: request.max_depth.map(u64::from),
        suggested_only: request.suggested_only,
    };
    let by = caller.identity()?;
    let found = queries::hierarchy(&app.actors.env, by, &request.room_id, page).await?;
    let mut answer = json!({"rooms": found.rooms});
    if let Some(next) = found.next {
        answer["next_batch"] = next.into();
    }
    Json::write(&answer)
}
