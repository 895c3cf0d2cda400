//! Having services make what a request names and nobody knows, before the request goes on.

use futures_util::{StreamExt, stream};

use super::messages::Answer;
use super::queries::Unknown;
use super::{AppserviceQueries, put, rules};
use crate::{Address, Env, Result};

/// Ask about each of these, several at once, and wait for the answers; no longer than [`rules::PATIENCE`] for all of them.
///
/// Afterwards what was unknown is there, or it is not: whoever asked looks again, and goes on with what there is.
///
/// # Errors
/// When the actor is gone. A service that does not answer is no error: what it might have made stays unknown.
// ANCHOR: provision
pub async fn provision(
    env: &Env,
    queries: &Address<AppserviceQueries>,
    unknown: Vec<Unknown>,
) -> Result<()> {
    let patience = env.clock.sleep(rules::PATIENCE);
    let mut asked = stream::iter(unknown)
        .map(|unknown| ask_in_turn(queries, unknown))
        .buffer_unordered(rules::AT_ONCE);
    let all = async {
        while let Some(answered) = asked.next().await {
            answered?;
        }
        Ok(())
    };
    tokio::select! {
        done = all => done,
        // What is still under way is answered to whoever asks next.
        () = patience => Ok(()),
    }
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
// ANCHOR_END: provision
