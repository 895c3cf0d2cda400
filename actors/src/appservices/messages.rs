//! What may be said to the keeper of registrations.

use actix::Message;
use schema::ServiceId;
use serde::Serialize;

use crate::Result;
use crate::appservice_sender::{Pinging, View};

/// Read the folder again. Replies when what is in it is in force: registered, compiled, its senders started.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Loaded>")]
pub struct Reload;

/// What a reading of the folder came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// The services that are in force now, in order of id.
    pub services: Vec<ServiceId>,
    /// Files that could not be taken. Each service's last good version stays in force.
    pub problems: Vec<Problem>,
    /// How often the folder has been read since the server started. One reading answers everybody who asked before it began.
    pub readings: u64,
}

/// What could not be taken of the files when they were read last?
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Vec<Problem>>")]
pub struct Problems;

/// A file that could not be taken, and why: one line for the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file's name in its folder, or the folder.
    pub file: String,
    /// What is wrong with it.
    pub why: String,
    /// What is in force instead.
    pub instead: String,
    /// The services whose last good version stays in force because of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<ServiceId>,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; {}", self.file, self.why, self.instead)
    }
}

/// Ask a service whether it is there; a success ends its back-off. Replies at once with what will bring the answer.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Pinging>")]
pub struct Ping {
    /// Which service.
    pub service: ServiceId,
    /// Passed on to the service.
    pub transaction_id: Option<String>,
}

/// End a service's back-off: try now.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct RetryNow {
    /// Which service.
    pub service: ServiceId,
}

/// How is every sender doing?
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Vec<View>>")]
pub struct Status;

/// Stop every sender: no new attempt is made. For a server that is being stopped.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct StopSenders;

/// The folder changed; said by the operating system, once for many changes.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub(super) struct FolderChanged;
