//! Deletes the sessions in deleted versions of key backups in pieces, so that no write takes long. For readers a version is deleted
//! at once.

use std::time::Duration;

use schema::backup;

use crate::{Env, Error, Result};

/// The most sessions deleted in one write.
pub(super) const PIECE: i64 = 1000;

/// The delay before a failed piece is repeated.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Start deleting the sessions that are left in deleted versions of key backups.
pub(crate) fn empty_backups(env: &Env) {
    let (env, busy) = (env.clone(), env.trace.busy());
    actix_rt::spawn(async move {
        let emptying = async {
            while let Err(error) = empty(&env).await {
                if matches!(error, Error::Storage(schema::Error::Stopped)) {
                    break;
                }
                tracing::error!(%error, "a deleted backup could not be emptied; the next attempt follows");
                let _waiting = env.trace.parked();
                env.clock.sleep(RETRY_AFTER).await;
            }
        };
        tokio::select! {
            biased;
            () = env.stopping.stopped() => {}
            () = emptying => {}
        }
        drop(busy);
    });
}

async fn empty(env: &Env) -> Result<()> {
    let next = || {
        env.store
            .read_slow(|db| Ok::<_, Error>(backup::to_empty(db)?))
    };
    while let Some((user, version)) = next().await? {
        while empty_piece(env, user.clone(), version).await? == PIECE {}
    }
    Ok(())
}

async fn empty_piece(env: &Env, user: String, version: i64) -> Result<i64> {
    let piece = env
        .store
        .write_always(move |tx| Ok::<_, Error>(backup::empty(tx, &user, version, PIECE)?));
    piece.await
}
