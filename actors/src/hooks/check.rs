//! Events that a hook may refuse.

use ruma::{CanonicalJsonObject, CanonicalJsonValue};
use schema::Tx;
use serde_json::Value;

use super::part::{carried, state};
use crate::{Refusal, Result};

/// The keys of an event that a hook cannot set: those of the event format of servers ([spec]), and those that a server adds for
/// clients.
///
/// [spec]: https://spec.matrix.org/v1.19/rooms/v12/#event-format-1
const OF_SERVERS: [&str; 16] = [
    "auth_events",
    "content",
    "depth",
    "event_id",
    "hashes",
    "origin",
    "origin_server_ts",
    "prev_events",
    "prev_state",
    "redacts",
    "room_id",
    "sender",
    "signatures",
    "state_key",
    "type",
    "unsigned",
];

/// Whether a key of an event is one that a proposal has set.
pub(crate) fn is_of_proposal(key: &str) -> bool {
    !OF_SERVERS.contains(&key)
}

/// Add a key to an event, beside its content.
///
/// # Errors
/// [`Refusal::InvalidParam`] for a key that the server sets, or for a value that is not canonical JSON.
pub(crate) fn set_top_level(to: &mut CanonicalJsonObject, key: &str, value: Value) -> Result<()> {
    let invalid = || Refusal::InvalidParam(format!("{key:?} of an event cannot be set").into());
    let value = CanonicalJsonValue::try_from(value).map_err(|_| invalid())?;
    if !is_of_proposal(key) {
        return Err(invalid().into());
    }
    to.insert(key.to_owned(), value);
    Ok(())
}

/// An event before it is authorised.
#[derive(Debug, Clone, Copy)]
pub struct EventDraft<'a> {
    /// The room; empty for the create event of a room whose id is made from that event.
    pub room: &'a str,
    /// The version of the room.
    pub version: &'a str,
    /// The event type.
    pub kind: &'a str,
    /// The state key of a state event.
    pub state_key: Option<&'a str>,
    /// The sender.
    pub sender: &'a str,
    /// The content.
    pub content: &'a CanonicalJsonObject,
}

/// An event that a hook may refuse, and the state of its room.
pub struct NewEvent<'a, 'c> {
    pub(super) tx: &'a mut Tx<'c>,
    pub(super) top_level: &'a mut CanonicalJsonObject,
    /// The event.
    pub event: EventDraft<'a>,
}

impl NewEvent<'_, '_> {
    /// The content of a state event of the room.
    pub fn state(&mut self, kind: &str, state_key: &str) -> Result<Option<Value>> {
        state(self.tx, self.event.room, kind, state_key)
    }

    /// A value that the request of the event carries, from the code around its endpoint.
    pub fn carried(&self, name: &str) -> Option<Value> {
        carried(self.tx, name)
    }

    /// Add a key to the event beside its content, before the event is hashed and signed. Clients and appservices are shown it, and a
    /// redaction removes it.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] for a key that the server sets, or for a value that is not canonical JSON.
    pub fn set_top_level(&mut self, key: &str, value: impl Into<Value>) -> Result<()> {
        set_top_level(self.top_level, key, value.into())
    }
}
