//! What may be said to the keeper of device lists. All are hints: the log of the database says what happened.

use actix::Message;
use serde::Serialize;

/// A membership changed; the write that changed it logged it.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct MembershipChanged;

/// Somebody's devices, keys or signatures changed; the write that changed them logged it.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct KeysChanged;

/// A service's namespaces changed; the write that changed them logged which rooms it gained and lost.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct InterestAdded;
