//! Events that a hook may refuse.

use ruma::CanonicalJsonObject;
use schema::Tx;
use serde_json::Value;

use super::part::state;
use crate::Result;

/// An event before it is authorised.
#[derive(Debug, Clone, Copy)]
pub struct EventDraft<'a> {
    /// The room.
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
    /// The event.
    pub event: EventDraft<'a>,
}

impl NewEvent<'_, '_> {
    /// The content of a state event of the room.
    pub fn state(&mut self, kind: &str, state_key: &str) -> Result<Option<Value>> {
        state(self.tx, self.event.room, kind, state_key)
    }
}
