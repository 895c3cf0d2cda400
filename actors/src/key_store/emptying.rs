//! Deletes the sessions of deleted backups in pieces, so that no write takes long. Readers see a backup as deleted at once.

use schema::backup;

use crate::{Env, Error, Result};

/// The most sessions deleted in one write.
const PIECE: i64 = 1000;

/// Start deleting the sessions that are left of deleted backups. A failure is made up for at the next deletion or the next
/// start.
pub(crate) fn empty_backups(env: &Env) {
    let (env, busy) = (env.clone(), env.trace.busy());
    actix_rt::spawn(async move {
        tokio::select! {
            biased;
            () = env.stopping.stopped() => {}
            done = empty(&env) => if let Err(error) = done {
                tracing::warn!(%error, "a deleted backup was not emptied; the next attempt is at the next start");
            }
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
