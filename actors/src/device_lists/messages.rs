//! What may be said to the keeper of device lists. All are hints: the log of the database says what happened.
//!
//! Correctness rests on [`LogAppended`] alone, which the storage sends by itself after each commit that appended to the log. The facts
//! [`MembershipChanged`] and [`KeysChanged`] say which request it was.

use actix::Message;
use serde::Serialize;

/// The device-list log has grown. Sent by the storage after the commit, so that no write can append to the log and forget to say so.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct LogAppended;

/// A membership changed; the write that changed it logged it.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct MembershipChanged;

/// Somebody's devices, keys or signatures changed; the write that changed them logged it.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct KeysChanged;

/// Forget what the log says of long ago. Sent by the actor itself, every hour.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct PruneLog;

/// A service's namespaces changed; the write that changed them logged which rooms it gained and lost.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct InterestAdded;
