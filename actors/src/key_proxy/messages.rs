//! Messages to the key proxy.

use std::sync::Arc;

use actix::Message;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::key_store::queries::{Queried, UserKeys};
use crate::key_store::{OneTimeKeys, Wanted};
use crate::runtime::trace::{Busy, cause};
use crate::{Error, Identity, Result};

/// The name of the actor, as traced.
pub(super) const NAME: &str = "key_proxy";

/// Take a key from each of these devices: a stored one-time key; else what the service says that owns the user; else the stored
/// fallback key. Replies at once with what will bring the keys.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Pending<OneTimeKeys>>")]
pub struct Claim {
    /// The claimer. If it is a service, it is not asked.
    pub by: Identity,
    /// From which devices.
    pub wanted: Wanted,
    /// The request behind the claim.
    #[serde(skip)]
    pub cause: Arc<str>,
}

impl Claim {
    /// A claim as part of the current request.
    #[must_use]
    pub fn new(by: Identity, wanted: Wanted) -> Claim {
        let cause = cause();
        Claim { by, wanted, cause }
    }
}

/// Look up the keys of these users: what is stored, and over it what the services say that own them. Replies at once with what will
/// bring the keys.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Pending<UserKeys>>")]
pub struct Query {
    /// The reader. If it is a service, it is not asked.
    pub by: Identity,
    /// Whose keys.
    pub queried: Queried,
    /// The request behind the query.
    #[serde(skip)]
    pub cause: Arc<str>,
}

impl Query {
    /// A query as part of the current request.
    #[must_use]
    pub fn new(by: Identity, queried: Queried) -> Query {
        let cause = cause();
        Query { by, queried, cause }
    }
}

/// Keys that are looked for.
pub struct Pending<T>(pub(super) oneshot::Receiver<Told<T>>);

/// Keys on their way to the asker: something is under way until they have arrived.
pub(super) struct Told<T>(
    pub(super) Result<T>,
    #[expect(dead_code, reason = "a guard")] pub(super) Busy,
);

impl<T> Pending<T> {
    /// The keys, when they are found.
    ///
    /// # Errors
    /// Those of the key store; [`Error::Failed`] when the proxy is gone.
    pub async fn keys(self) -> Result<T> {
        let told = self.0.await.map_err(|_| Error::Failed(NAME))?;
        told.0
    }
}
