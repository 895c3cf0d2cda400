//! Provisioning by application services: before a request reaches its actor, appservices are asked to create users and aliases in
//! their namespaces that do not exist yet.
//!
//! An appservice calls the server before it answers, so a waiting request does not count against the limit of requests in progress
//! ([`App::outside`]).

use actors::appservice_queries::{self, queries};
use ruma::{RoomAliasId, UserId};

use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::state::App;

/// Ask appservices to create the missing ones of these users that are in their namespaces. Cheap when all users exist.
///
/// # Errors
/// 429 when appservices were asked too often on behalf of the caller.
pub(crate) async fn about_users<'a>(
    app: &App,
    caller: &Caller,
    users: impl IntoIterator<Item = &'a UserId>,
) -> Result<()> {
    let users: Vec<&UserId> = users.into_iter().collect();
    let named = users.len();
    let unknown = queries::unknown_users(&app.actors.env, requester(caller), users).await?;
    provision(app, caller, unknown, named).await
}

/// Ask an appservice to create this alias and its room, if the alias is missing and in the appservice's namespace.
///
/// # Errors
/// As for [`about_users`].
pub(crate) async fn about_alias(app: &App, caller: &Caller, alias: &RoomAliasId) -> Result<()> {
    let unknown = queries::unknown_alias(&app.actors.env, requester(caller), alias).await?;
    provision(app, caller, unknown.into_iter().collect(), 1).await
}

/// Ask appservices about unknown users and aliases, within the limits. What an appservice creates in response stays. When a limit
/// is reached, a request that names several users continues without asking about the rest.
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

fn requester(caller: &Caller) -> Option<&schema::ServiceId> {
    caller.appservice().map(|service| &service.id)
}
