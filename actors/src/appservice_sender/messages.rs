//! What may be said to the sender of an application service.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use schema::ServiceId;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::runtime::trace::Busy;
use crate::services::Service;
use crate::{Error, Result};

/// Ask the service whether it is there; a success ends the back-off. Replies at once with what will bring the answer, so that
/// neither an actor nor the door waits for the service; refused when too many pings to it are under way. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#post_matrixappv1ping
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Pinging>")]
pub struct Ping {
    /// Passed on to the service.
    pub transaction_id: Option<String>,
}

/// A ping that is under way.
#[derive(Debug)]
pub struct Pinging(pub(super) oneshot::Receiver<Pinged>);

/// What came of a ping, on its way to the request.
pub(super) struct Pinged(
    pub(super) Result<Duration>,
    #[expect(dead_code, reason = "a guard")] pub(super) Busy,
);

impl std::fmt::Debug for Pinged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Pinging {
    /// How long the answer of the service took, when it is there.
    ///
    /// # Errors
    /// [`Refusal`](crate::Refusal)s: `BadStatus`, `ConnectionFailed`, `ConnectionTimeout`.
    pub async fn answer(self) -> Result<Duration> {
        match self.0.await {
            Ok(pinged) => pinged.0,
            Err(_) => Err(Error::Failed("appservice_sender")),
        }
    }
}

/// End the back-off: try now.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct RetryNow;

/// The registration is there (again), perhaps with another URL: send what is owed.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct Resume {
    /// The service as it is now.
    #[serde(skip)]
    pub service: Arc<Service>,
}

/// The registration is gone: settle the attempt in flight, then send nothing more. What is owed is kept.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct Pause;

/// How is it going? Answered at once, whatever is in flight.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<View>")]
pub struct Status;

/// A sender, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct View {
    /// The service's id.
    pub service: String,
    /// `idle`, `gathering`, `sending`, `acknowledging`, `waiting` or `paused`.
    pub state: &'static str,
    /// The id of the transaction that is frozen now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<i64>,
    /// How often it has been tried without a 2xx.
    pub failed_attempts: u32,
    /// When it will be tried again, in milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<i64>,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Transactions acknowledged since the server started.
    pub acknowledged: u64,
    /// How often it has looked for something to send since the server started.
    pub gathered: u64,
    /// What cannot be sent to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<SetAside>,
    /// Whom it would merely observe, and whether the configuration grants it that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observing: Option<Observing>,
}

/// What a service is owed and cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetAside {
    /// How many rows.
    pub count: i64,
    /// The oldest of them.
    pub oldest: Vec<Aside>,
}

/// A row that cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Aside {
    /// `event`, `to_device`, `device_list`, `count` or `account_data`.
    pub kind: String,
    /// Its place in the order.
    pub position: i64,
    /// Why.
    pub why: String,
}

/// Users who are not a service's alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observing {
    /// The patterns that match them.
    pub namespaces: Vec<String>,
    /// Whether it gets copies of messages to them.
    pub granted: bool,
}

impl Observing {
    /// What a service would observe, if anything.
    #[must_use]
    pub fn of(service: &Service) -> Option<Observing> {
        let shared = service.registration.shared_users();
        (!shared.is_empty()).then(|| Observing {
            namespaces: shared.into_iter().map(str::to_owned).collect(),
            granted: service.observes,
        })
    }
}

/// Said by a sender to who keeps ephemeral data: what there is for my service, now. What is beyond the limit waits for the next
/// time.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Vec<Box<RawValue>>")]
pub struct TakeEphemeral {
    /// For which service.
    pub service: ServiceId,
    /// At most so many items.
    pub limit: usize,
}

/// Said by a sender to who keeps ephemeral data: my service is down, and what waits for it is dropped.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct DropEphemeral {
    /// For which service.
    pub service: ServiceId,
}

/// One attempt at a transaction, as a development server records it among the messages.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    /// To which service.
    pub service: ServiceId,
    /// The transaction's id.
    pub transaction: i64,
    /// Counts from 1 for each transaction.
    pub attempt: u32,
    /// When it ended, in milliseconds since the epoch.
    pub at: i64,
    /// The HTTP status, or why there was none.
    pub outcome: String,
    /// The older path under which it was sent, for a service that does not know the present one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What was sent, to the byte.
    pub body: Box<serde_json::value::RawValue>,
}
