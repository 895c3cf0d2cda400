//! Having services make what a request names and nobody knows, before the request goes on.

use super::messages::Answer;
use super::queries::Unknown;
use super::{AppserviceQueries, patiently, put};
use crate::{Address, Env, Result};

/// Ask about each of these, several at once, and wait for the answers: no longer than [`PATIENCE`](super::rules::PATIENCE) for
/// all of them.
///
/// Afterwards what was unknown is there, or it is not: whoever asked looks again, and goes on with what there is.
///
/// # Errors
/// When the actor is gone. A service that does not answer is no error: what it might have made stays unknown.
pub async fn provision(
    env: &Env,
    queries: &Address<AppserviceQueries>,
    unknown: Vec<Unknown>,
) -> Result<()> {
    let waits = unknown.into_iter().filter_map(|unknown| {
        let first = unknown.services.first().cloned()?;
        Some((first, ask_in_turn(queries, unknown)))
    });
    patiently(env, waits, |()| ()).await
}

/// One service after the other, until one has made it: two that both try would be in each other's way.
async fn ask_in_turn(queries: &Address<AppserviceQueries>, unknown: Unknown) -> Result<()> {
    for service in &unknown.services {
        let answer = put(queries, service, unknown.question.clone()).await?;
        if matches!(answer, Answer::Yes(_)) {
            break;
        }
    }
    Ok(())
}
