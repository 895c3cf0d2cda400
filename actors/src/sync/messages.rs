//! What may be said to `sync`.

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

/// Wait for news for a user, or from the rooms it is joined to. Replies at once with the wait itself; news that came after what
/// the user has seen end it at once.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Wait>")]
pub struct Watch {
    /// Who.
    pub user: OwnedUserId,
    /// The ids of the rooms it is joined to.
    pub rooms: Vec<String>,
    /// Everything up to here has been looked at.
    pub seen: Position,
}

/// A wait under way; dropped, it is given up.
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

    /// Resolves when there may be news. What it gives says that the consequences of the wake are under way.
    pub async fn woken(&mut self) -> Option<Busy> {
        (&mut self.woken).await.ok()
    }
}

impl Drop for Wait {
    /// A client that hangs up must not be remembered until the next news of a quiet room.
    fn drop(&mut self) {
        self.among
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(self.id);
    }
}

/// Say that one is typing in a room, for a while, or is not. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidtypinguserid
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct SetTyping {
    /// Who.
    pub user: OwnedUserId,
    /// In which room.
    pub room: OwnedRoomId,
    /// For how long unless it is said again; `None` for no longer.
    #[serde(rename = "for")]
    pub time: Option<Duration>,
}

/// Say that one is online, or is not. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3presenceuseridstatus
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct SetPresence {
    /// Who.
    pub user: OwnedUserId,
    /// `online`, `unavailable` or `offline`.
    pub state: String,
    /// What to say about it.
    pub message: Option<String>,
}

/// A user syncs, and is online for as long as it does. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct Syncing {
    /// Who.
    pub user: OwnedUserId,
    /// `online` or `unavailable`.
    pub state: String,
    /// Whether the user did not sync before.
    pub is_first: bool,
}

/// How is it going?
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<View>")]
pub struct Observe;

/// `sync`, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct View {
    /// How many requests wait for news.
    pub waiting: usize,
    /// How many words on typing, receipts and presence wait for each service.
    pub pending: std::collections::BTreeMap<String, usize>,
}
