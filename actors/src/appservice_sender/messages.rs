//! Messages to the sender of an application service.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use schema::ServiceId;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use crate::runtime::history::PastAttempt;
use crate::runtime::trace::Busy;
use crate::services::Service;
use crate::{Env, Error, Result};

/// Ping the appservice; a success ends the back-off. Replies at once with a future of the result, so that neither an actor nor
/// the router waits for the appservice. Refused if too many pings are under way. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#post_matrixappv1ping
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Pinging>")]
pub struct Ping {
    /// The transaction id to send in the ping.
    pub transaction_id: Option<String>,
}

/// The future of a ping.
#[derive(Debug)]
pub struct Pinging(pub(super) oneshot::Receiver<Pinged>);

/// The result of a ping, on its way to the request.
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
    /// The time until the appservice answered, once it has.
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

/// End the back-off and send now.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct RetryNow;

/// Send the last acknowledged transaction again, and reply when that is answered. A development server does this on request.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Resent>")]
pub struct Resend;

/// A transaction that was sent again.
#[derive(Debug, Clone, Serialize)]
pub struct Resent {
    /// Its id.
    pub transaction: i64,
    /// The HTTP status, or the error.
    pub outcome: String,
}

/// The registration is present, perhaps again or with another URL: send what is owed.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct Resume {
    /// The registration and its features, as they are now.
    #[serde(skip)]
    pub service: Arc<Service>,
}

/// The registration is gone: finish the attempt in flight, then send nothing. Owed items are kept.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct Pause;

/// Get the state of the sender. Answered at once, even during a request.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<SenderStatus>")]
pub struct Status;

/// The state of a sender.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SenderStatus {
    /// The id of the appservice.
    pub service: String,
    /// What the sender is doing: `idle`, `gathering`, `sending`, `acknowledging`, `waiting` or `paused`.
    pub state: &'static str,
    /// The id of the frozen transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<i64>,
    /// The number of attempts to send the frozen transaction that were not answered with a 2xx.
    pub failed_attempts: u32,
    /// The time of the next attempt, in milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<i64>,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The number of transactions acknowledged since the server started.
    pub acknowledged: u64,
    /// How often the sender has looked for something to send since the server started.
    pub gathered: u64,
    /// The items owed to the appservice that were set aside, because they cannot be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<SetAside>,
    /// The users in the non-exclusive namespaces of the appservice, and whether the configuration permits it to observe them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observing: Option<Observing>,
}

/// Owed items that cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetAside {
    /// Their number.
    pub count: i64,
    /// The oldest of them.
    pub oldest: Vec<SetAsideItem>,
}

/// A row that cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetAsideItem {
    /// `event`, `to_device`, `device_list`, `count` or `account_data`.
    pub kind: String,
    /// Its position.
    pub position: i64,
    /// Why it cannot be sent.
    pub why: String,
}

/// Users in the non-exclusive namespaces of an appservice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observing {
    /// The patterns of these namespaces.
    pub namespaces: Vec<String>,
    /// Whether the appservice gets copies of messages to them.
    pub granted: bool,
}

impl Observing {
    /// The users that an appservice would observe, if any.
    pub fn of(service: &Service) -> Option<Observing> {
        let shared = service.registration.shared_users();
        (!shared.is_empty()).then(|| Observing {
            namespaces: shared.into_iter().map(str::to_owned).collect(),
            granted: service.observes,
        })
    }
}

/// From a sender to the actor that keeps ephemeral data: take the ephemeral events that wait for this appservice. Events beyond the
/// limit stay there until the sender asks again.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Vec<Box<RawValue>>")]
pub struct TakeEphemeral {
    /// The appservice.
    pub service: ServiceId,
    /// The most items.
    pub limit: usize,
}

/// From a sender to the actor that keeps ephemeral data: the appservice does not answer, so drop the ephemeral events that wait for
/// it.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct DropEphemeral {
    /// The appservice.
    pub service: ServiceId,
}

/// One attempt at a transaction, as a development server records it in the trace.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    /// The appservice.
    pub service: ServiceId,
    /// The transaction's id.
    pub transaction: i64,
    /// The number of the attempt, counted from 1 for each transaction.
    pub attempt: u32,
    /// The time at which it ended, in milliseconds since the epoch.
    pub at: i64,
    /// The HTTP status, or the error.
    pub outcome: String,
    /// The older path, if it was sent there because the appservice does not know the present one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The body that was sent, byte for byte.
    pub body: Box<serde_json::value::RawValue>,
}

impl Attempt {
    /// Record this attempt, which took so many microseconds, in the trace and in the history.
    pub(super) fn record(&self, env: &Env, micros: u64) {
        env.trace
            .record_message("appservice_sender", "service", self);
        let past = PastAttempt {
            transaction: self.transaction,
            attempt: self.attempt,
            at: self.at,
            outcome: self.outcome.clone(),
            micros,
        };
        env.history.attempted(self.service.as_str(), past);
    }
}
