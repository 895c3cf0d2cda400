//! Questions to application services in the middle of a request: before its ask, what it names and nobody knows is asked about.
//!
//! A service that is asked calls back, so the request waits outside the door meanwhile: it takes nobody's place, the service's
//! least of all.

use actors::appservice_queries::{self, queries};
use ruma::{RoomAliasId, UserId};

use crate::app::App;
use crate::caller::Caller;
use crate::error::Result;

/// Have services make those of these users who do not exist and are in a namespace. Costs nothing that matters where all exist.
///
/// # Errors
/// When the database fails, or the actor is gone; 429 when services were asked for the caller too often.
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

/// Have a service make this alias, and the room that it names, if it names none and is in a namespace.
///
/// # Errors
/// As for [`about_users`].
pub(crate) async fn about_alias(app: &App, caller: &Caller, alias: &RoomAliasId) -> Result<()> {
    let unknown = queries::unknown_alias(&app.actors.env, asker(caller), alias).await?;
    provision(app, caller, unknown.into_iter().collect(), 1).await
}

/// Nothing is asked for callers without a token, unless the operator says so, and not more for the others than their limit allows:
/// what a service makes because it was asked stays. A request that names others too goes on without what is not asked.
async fn provision(
    app: &App,
    caller: &Caller,
    mut unknown: Vec<queries::Unknown>,
    named: usize,
) -> Result<()> {
    if unknown.is_empty() {
        return Ok(());
    }
    match app.limit_questions(caller, unknown.len()) {
        Ok(allowed) => unknown.truncate(allowed),
        Err(_) if named > 1 => unknown.clear(),
        Err(limited) => return Err(limited),
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let (env, to) = (&app.actors.env, &app.actors.appservice_queries);
    Ok(outside(app, appservice_queries::provision(env, to, unknown)).await?)
}

/// Wait for services outside the door; the request is not under way meanwhile.
pub(crate) async fn outside<T>(app: &App, wait: impl Future<Output = T>) -> T {
    let _place = app.wait_outside();
    let _parked = app.actors.env.trace.parked();
    wait.await
}

fn asker(caller: &Caller) -> Option<&schema::registration::ServiceId> {
    caller.appservice().map(|service| &service.id)
}
