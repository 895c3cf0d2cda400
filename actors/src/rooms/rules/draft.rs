//! The stages of an event before it is stored: draft, place in the room, signed.

use ruma::canonical_json::CanonicalJsonObject;
use ruma::{OwnedEventId, OwnedUserId, RoomId, UserId};

/// An event to be sent, before its place in the room is known.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    /// The event type.
    pub(crate) kind: String,
    /// The state key; `None` for a message event.
    pub(crate) state_key: Option<String>,
    /// The user that sends it.
    pub(crate) sender: OwnedUserId,
    /// The content.
    pub(crate) content: CanonicalJsonObject,
    /// The `origin_server_ts`, in milliseconds since the epoch.
    pub(crate) at: i64,
    /// The sending device and its transaction id.
    pub(crate) origin: Option<(String, String)>,
    /// The keys that proposals add beside the content.
    pub(crate) top_level: CanonicalJsonObject,
}

impl Draft {
    /// A draft of a state event.
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
            top_level: CanonicalJsonObject::new(),
        }
    }

    /// The same draft with further keys beside the content.
    pub(crate) fn with_top_level(&self, further: CanonicalJsonObject) -> Draft {
        let mut draft = self.clone();
        draft.top_level.extend(further);
        draft
    }
}

/// The place of an event in its room's event graph.
pub(crate) struct EventPlace<'a> {
    /// The room; `None` for a create event from whose hash the room id is made.
    pub(crate) room: Option<&'a RoomId>,
    /// The previous event, for `prev_events`.
    pub(crate) after: Option<&'a str>,
    /// The depth of the previous event, plus one.
    pub(crate) depth: i64,
    /// The ids of the state events that authorise it.
    pub(crate) auth_events: Vec<&'a str>,
}

/// An event with hashes, signature and id, before it is authorised.
pub(crate) struct Signed {
    /// The event id, made from its reference hash.
    pub(crate) id: OwnedEventId,
    /// The whole event as canonical JSON.
    pub(crate) json: String,
}
