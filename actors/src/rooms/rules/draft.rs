//! An event on its way into a room: as it is asked for, its place, and as it is signed.

use ruma::canonical_json::CanonicalJsonObject;
use ruma::{OwnedEventId, OwnedUserId, RoomId, UserId};

/// An event to be sent, before it has a place in its room.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// Its type.
    pub(crate) kind: String,
    /// Its state key, if it is to be state.
    pub(crate) state_key: Option<String>,
    /// Who sends it.
    pub(crate) sender: OwnedUserId,
    /// Its content.
    pub(crate) content: CanonicalJsonObject,
    /// When, in milliseconds since the epoch.
    pub(crate) at: i64,
    /// The device it was sent from and the transaction id it was sent with.
    pub(crate) origin: Option<(String, String)>,
}

impl Draft {
    /// A state event.
    pub(crate) fn state(
        sender: &UserId,
        kind: &str,
        state_key: &str,
        content: CanonicalJsonObject,
        at: i64,
    ) -> Draft {
        Draft {
            kind: kind.to_owned(),
            state_key: Some(state_key.to_owned()),
            sender: sender.to_owned(),
            content,
            at,
            origin: None,
        }
    }
}

/// Where in its room an event stands.
pub(crate) struct Place<'a> {
    /// Its room; none for the create event of a version where the room's id is made from it.
    pub(crate) room: Option<&'a RoomId>,
    /// The event before it.
    pub(crate) after: Option<&'a str>,
    /// One more than the depth of that.
    pub(crate) depth: i64,
    /// The ids of the state events that allow it.
    pub(crate) auth_events: Vec<&'a str>,
}

/// An event with hashes, signature and id, before the authorisation rules have judged it.
pub(crate) struct Signed {
    /// Its id: the hash of itself.
    pub(crate) id: OwnedEventId,
    /// The whole event, canonical JSON.
    pub(crate) json: String,
}
