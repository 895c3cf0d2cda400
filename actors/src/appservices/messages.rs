//! Messages to `appservices`.

use actix::Message;
use schema::ServiceId;
use serde::Serialize;

use crate::Result;
use crate::appservice_sender::{Pinging, Resent, SenderStatus};

/// Read the folder again. The reply comes when its content is in force: registered and compiled, with its senders started.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Loaded>")]
pub struct Reload;

/// The result of reading the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// The appservices in force now, in order of id.
    pub services: Vec<ServiceId>,
    /// The files that were refused. The last valid version of each of their registrations stays in force.
    pub problems: Vec<Problem>,
    /// How often the folder was read since the server started. One reading answers every request that was sent before it began.
    pub readings: u64,
}

/// Get the problems that were found when the folder was last read.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Vec<Problem>>")]
pub struct Problems;

/// A file that was refused, and the reason in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The name of the file, or the folder.
    pub file: String,
    /// What is wrong with the file.
    pub why: String,
    /// What is in force in place of the file's content, as text.
    pub instead: String,
    /// The appservices whose last valid version stays in force because of this problem.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<ServiceId>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; {}", self.file, self.why, self.instead)
    }
}

/// Ping an appservice; a success ends its back-off. Replies at once with a future of the result.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Pinging>")]
pub struct Ping {
    /// The appservice to ping.
    pub service: ServiceId,
    /// The transaction id to send in the ping.
    pub transaction_id: Option<String>,
}

/// End the back-off of an appservice and send its transaction now.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct RetryNow {
    /// The appservice.
    pub service: ServiceId,
}

/// Send the last acknowledged transaction of an appservice again.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Resent>")]
pub struct Resend {
    /// The appservice.
    pub service: ServiceId,
}

/// Get the state of every sender.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Vec<SenderStatus>>")]
pub struct SenderStatuses;

/// Stop every sender: no new attempt is made. Sent when the server shuts down.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct StopSenders;

/// The folder has changed. Sent by the watch, once for several changes.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(super) struct FolderChanged;
