//! Messages to the key proxy.

use actix::Message;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::key_store::queries::{Queried, UserKeys};
use crate::key_store::{OneTimeKeys, Wanted};
use crate::runtime::trace::{Busy, Context, context};
use crate::{Error, Identity, Result};

/// The name of the actor in the trace.
pub(super) const NAME: &str = "key_proxy";

/// Take a key from each of these devices: a stored one-time key; else one from the appservice that owns the user; else the
/// stored fallback key. Replies at once with a future of the keys.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<PendingKeys<OneTimeKeys>>")]
pub struct Claim {
    /// The claimer. If it is an appservice, that appservice is not asked.
    pub by: Identity,
    /// The devices from which keys are claimed.
    pub wanted: Wanted,
    /// The request that caused the claim.
    #[serde(skip)]
    pub cause: Context,
}

impl Claim {
    /// A claim caused by the current request.
    pub fn new(by: Identity, wanted: Wanted) -> Claim {
        let cause = context();
        Claim { by, wanted, cause }
    }
}

/// Look up the keys of these users: the stored ones, replaced by those of the appservices that own the users. Replies at once
/// with a future of the keys.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<PendingKeys<UserKeys>>")]
pub struct Query {
    /// The reader. If it is an appservice, that appservice is not asked.
    pub by: Identity,
    /// The users and devices.
    pub queried: Queried,
    /// The request that caused the query.
    #[serde(skip)]
    pub cause: Context,
}

impl Query {
    /// A query caused by the current request.
    pub fn new(by: Identity, queried: Queried) -> Query {
        let cause = context();
        Query { by, queried, cause }
    }
}

/// A future of keys.
pub struct PendingKeys<T>(pub(super) oneshot::Receiver<FoundKeys<T>>);

/// Keys on their way to the caller. They count as work under way in the trace until they arrive.
pub(super) struct FoundKeys<T>(
    pub(super) Result<T>,
    #[expect(dead_code, reason = "a guard")] pub(super) Busy,
);

impl<T> PendingKeys<T> {
    /// The keys, once they are found.
    ///
    /// # Errors
    /// Those of the key store; [`Error::Failed`] if the proxy is gone.
    pub async fn keys(self) -> Result<T> {
        let found = self.0.await.map_err(|_| Error::Failed(NAME))?;
        found.0
    }
}
