//! Lets appservices create the users and aliases that a request names, before the request goes on. Clause: as.query.waits

use super::messages::Answer;
use super::queries::Unknown;
use super::{AppserviceQueries, answers_in_time, put};
use crate::{Address, Env, Result};

/// Ask about each of these, several at once, and wait for the answers, at most [`TIMEOUT`](super::rules::TIMEOUT) in all.
///
/// Afterwards each of them exists or does not: the caller looks again and goes on.
///
/// # Errors
/// The actor is gone. A missing answer is no error: the user or alias stays unknown.
pub async fn provision(
    env: &Env,
    queries: &Address<AppserviceQueries>,
    unknown: Vec<Unknown>,
) -> Result<()> {
    let waits = unknown.into_iter().filter_map(|unknown| {
        let first = unknown.services.first().cloned()?;
        Some((first, ask_in_turn(queries, unknown)))
    });
    answers_in_time(env, waits, |()| ()).await
}

/// Ask one appservice after another until one has created it, so that two never try to create the same.
async fn ask_in_turn(queries: &Address<AppserviceQueries>, unknown: Unknown) -> Result<()> {
    for service in &unknown.services {
        let answer = put(queries, service, unknown.question.clone()).await?;
        if matches!(answer, Answer::Yes(_)) {
            break;
        }
    }
    Ok(())
}
