//! Messages to `device_lists`. What each reports is stored too: in the line that the same write appended to the device-list log.
//!
//! No notification can be forgotten: the storage itself sends [`LogAppended`] after each commit that appended to the log.

use actix::Message;
use ruma::{OwnedRoomId, OwnedUserId};
use schema::Position;
use serde::Serialize;

/// The device-list log has grown. The storage sends this after the commit, so no write has to send it.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct LogAppended;

/// A membership changed. The same write has appended a line about it to the device-list log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Message)]
#[rtype(result = "()")]
pub struct MembershipChanged {
    /// The room.
    pub room: OwnedRoomId,
    /// The user.
    pub user: OwnedUserId,
    /// The new membership: `join`, `leave`, `invite`, `knock` or `ban`.
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

/// Delete old lines of the device-list log. The actor sends this to itself every hour.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct PruneLog;

/// An appservice's namespaces changed. The write that changed them has logged the rooms that the appservice gained and lost.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct InterestAdded;
