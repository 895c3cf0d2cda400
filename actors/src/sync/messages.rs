//! The messages of the `sync` actor.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::Message;
use ruma::{OwnedRoomId, OwnedUserId};
use schema::Position;
use serde::Serialize;
use tokio::sync::oneshot;

use super::waiters::Waiters;
use crate::Result;
use crate::runtime::trace::Busy;

/// Wait until something new concerns a user or a room that it is joined to. Replies at once with a [`Wait`], which is over already
/// if that happened after `seen`.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Wait>")]
pub struct Watch {
    /// The user whose request it is.
    pub user: OwnedUserId,
    /// The ids of the rooms that the user is joined to.
    pub rooms: Vec<String>,
    /// The position up to which the request has gathered.
    pub seen: Position,
}

/// A request to `/sync` that waits. Dropping this ends the wait.
pub struct Wait {
    id: u64,
    woken: oneshot::Receiver<Busy>,
    among: Arc<Mutex<Waiters<Busy>>>,
}

impl Wait {
    pub(super) fn new(
        id: u64,
        woken: oneshot::Receiver<Busy>,
        among: Arc<Mutex<Waiters<Busy>>>,
    ) -> Wait {
        Wait { id, woken, among }
    }

    /// Resolves when there may be something new. In the trace the request counts as work under way until the returned value is
    /// dropped.
    pub async fn woken(&mut self) -> Option<Busy> {
        (&mut self.woken).await.ok()
    }
}

impl Drop for Wait {
    /// Without this, a request whose client hung up would stay in memory until the next wake of its user or rooms.
    fn drop(&mut self) {
        self.among
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(self.id);
    }
}

/// Set whether a user is typing in a room. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidtypinguserid
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct SetTyping {
    /// The user.
    pub user: OwnedUserId,
    /// The room.
    pub room: OwnedRoomId,
    /// How long the user counts as typing, unless typing is set again; `None` if the user has stopped.
    #[serde(rename = "for")]
    pub time: Option<Duration>,
}

/// Set a user's presence. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3presenceuseridstatus
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct SetPresence {
    /// The user.
    pub user: OwnedUserId,
    /// `online`, `unavailable` or `offline`.
    pub state: String,
    /// The status message.
    pub message: Option<String>,
}

/// A request to `/sync` begins; the user has this presence while requests are under way. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct Syncing {
    /// The user.
    pub user: OwnedUserId,
    /// `online` or `unavailable`.
    pub state: String,
    /// Whether the user was not online because of earlier requests.
    pub is_first: bool,
}

/// Ask for the sizes of the actor's memory.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<MemorySizes>")]
pub struct Observe;

/// The sizes of the actor's memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemorySizes {
    /// The number of waiting requests.
    pub waiting: usize,
    /// The number of updates of typing, receipts and presence that wait for each appservice.
    pub pending: std::collections::BTreeMap<String, usize>,
}
