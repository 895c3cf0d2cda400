//! What may be said to the keeper of device lists. Each fact has a durable copy: the line of the log that the same write appended.
//!
//! No fact can be forgotten: the storage itself sends [`LogAppended`] after each commit that appended to the log.

use actix::Message;
use ruma::{OwnedRoomId, OwnedUserId};
use schema::Position;
use serde::Serialize;

/// The device-list log has grown. Sent by the storage after the commit, so that no write can append to the log and forget to say so.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct LogAppended;

/// A membership changed. The line that the same write appended to the log is the durable copy of this fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Message)]
#[rtype(result = "()")]
pub struct MembershipChanged {
    /// The room.
    pub room: OwnedRoomId,
    /// The user.
    pub user: OwnedUserId,
    /// What it is now: `join`, `leave`, `invite`, `knock` or `ban`.
    pub membership: String,
    /// The position of the event.
    pub position: Position,
}

/// A user's devices, keys or signatures changed. The line that the same write appended to the log is the durable copy of this fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Message)]
#[rtype(result = "()")]
pub struct KeysChanged {
    /// The user.
    pub user: OwnedUserId,
    /// The position of the line.
    pub position: Position,
}

/// Forget what the log says of long ago. Sent by the actor itself, every hour.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct PruneLog;

/// A service's namespaces changed; the write that changed them logged which rooms it gained and lost.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct InterestAdded;
