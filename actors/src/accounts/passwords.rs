//! Password hashing, outside the actor's thread.

use std::sync::Arc;

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::{Env, Error, Result, Secret};

/// How many passwords are hashed at once: each takes megabytes of memory and a core.
const AT_ONCE: usize = 2;

/// Hashes and verifies passwords, at most [`AT_ONCE`] at a time.
#[derive(Clone)]
pub(super) struct Passwords {
    env: Env,
    turns: Arc<Semaphore>,
}

impl Passwords {
    pub(super) fn new(env: Env) -> Passwords {
        Passwords {
            env,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The text to store: algorithm, cost, salt and hash.
    pub(super) async fn hash(&self, password: Secret) -> Result<String> {
        let (cost, salt) = (self.cost()?, self.env.ids.bytes::<16>("salt"));
        self.work(move || {
            let hash = cost.hash_password_with_salt(password.reveal().as_bytes(), &salt);
            hash.map(|hash| hash.to_string())
                .map_err(|_| Error::Failed("argon2"))
        })
        .await
    }

    /// Whether the password has this hash. `None` is never matched but takes as long, so that the duration of an answer does not
    /// reveal which accounts exist.
    pub(super) async fn matches(&self, password: Secret, hash: Option<String>) -> Result<bool> {
        let cost = self.cost()?;
        self.work(move || {
            let password = password.reveal().as_bytes();
            let Some(hash) = hash else {
                let spent = cost.hash_password_with_salt(password, &[0; 16]);
                return spent.map(|_| false).map_err(|_| Error::Failed("argon2"));
            };
            Ok(cost.verify_password(password, hash.as_str()).is_ok())
        })
        .await
    }

    fn cost(&self) -> Result<Argon2<'static>> {
        let (memory, passes) = self.env.settings.password_cost;
        let params = Params::new(memory, passes, 1, None).map_err(|_| Error::Failed("argon2"))?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let done = actix_rt::task::spawn_blocking(work).await;
        drop(turn);
        done.map_err(|_| Error::Failed("argon2"))?
    }
}
