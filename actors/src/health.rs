//! Whether the server can do its work.

use std::time::Duration;

use schema::{Conn, Tx, server_info};
use tokio::time::timeout;

use crate::{Actors, Error};

/// How long an actor or the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

impl Actors {
    /// Check that every actor answers, and that the database can be read and written. A write is tried only if the last commit failed.
    ///
    /// # Errors
    /// What does not work, in words that are no secret. The log has the details.
    pub async fn check_health(&self) -> Result<(), String> {
        if self.env.stopping.is_stopping() {
            return Err("the server is shutting down".to_owned());
        }
        macro_rules! answering {
            ($($actor:ident),+) => {$(
                if !self.$actor.is_answering(PATIENCE).await {
                    return Err(format!("the actor {} does not answer", self.$actor.name()));
                }
            )+};
        }
        answering!(accounts, key_store, key_proxy, rooms, device_lists);
        answering!(
            to_device_inbox,
            appservices,
            appservice_queries,
            sync,
            proposals
        );
        let store = &self.env.store;
        let read = store.read(|db: &mut Conn| Ok::<_, Error>(server_info::get(db, "name")?));
        within("read", read).await?;
        if store.is_failing() {
            // A position that nothing uses: the smallest change.
            let write = store.write_always(|tx: &mut Tx<'_>| {
                tx.next_position();
                Ok::<_, Error>(())
            });
            within("written", write).await?;
        }
        Ok(())
    }
}

/// Wait for the database, for a limited time.
async fn within<T>(
    done: &str,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<(), String> {
    match timeout(PATIENCE, answer).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the database cannot be {done}");
            Err(format!("the database cannot be {done}"))
        }
        Err(_) => Err(format!(
            "the database does not answer in time, to be {done}"
        )),
    }
}
