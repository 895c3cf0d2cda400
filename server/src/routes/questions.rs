//! Questions to application services in the middle of a request: before a request reaches its actor, services are asked about
//! users and aliases that do not exist yet.
//!
//! A service calls back before it answers, so the request waits without a place at the door ([`App::outside`]).

use actors::appservice_queries::{self, queries};
use ruma::{RoomAliasId, UserId};

use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::state::App;

/// Have services make those of these users that do not exist and are in a namespace. Costs little where all exist.
///
/// # Errors
/// 429 when services were asked for the caller too often.
pub(crate) async fn about_users<'a>(
    app: &App,
    caller: &Caller,
    users: impl IntoIterator<Item = &'a UserId>,
) -> Result<()> {
    let users: Vec<&UserId> = users.into_iter().collect();
    let named = users.len();
    let unknown = queries::unknown_users(&app.actors.env, asker(caller), users).await?;
    provision(app, caller, unknown, named).await
}

/// Have a service make this alias and its room, if the alias does not exist and is in a namespace.
///
/// # Errors
/// As for [`about_users`].
pub(crate) async fn about_alias(app: &App, caller: &Caller, alias: &RoomAliasId) -> Result<()> {
    let unknown = queries::unknown_alias(&app.actors.env, asker(caller), alias).await?;
    provision(app, caller, unknown.into_iter().collect(), 1).await
}

/// Ask services about what does not exist, within the limits: what a service makes because it was asked stays. A request that
/// names existing users too goes on without the rest.
async fn provision(
    app: &App,
    caller: &Caller,
    mut unknown: Vec<queries::Unknown>,
    named: usize,
) -> Result<()> {
    if unknown.is_empty() {
        return Ok(());
    }
    match caller.limit_questions(unknown.len()) {
        Ok(allowed) => unknown.truncate(allowed),
        Err(_) if named > 1 => unknown.clear(),
        Err(limited) => return Err(limited),
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let (env, to) = (&app.actors.env, &app.actors.appservice_queries);
    Ok(app
        .outside(appservice_queries::provision(env, to, unknown))
        .await?)
}

fn asker(caller: &Caller) -> Option<&schema::ServiceId> {
    caller.appservice().map(|service| &service.id)
}
