//! The form of an event that ruma's authorisation rules read.

use ruma::events::TimelineEventType;
use ruma::room_version_rules::RoomVersionRules;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UInt, UserId,
    state_res,
};
use schema::events::EventRow;
use serde_json::value::RawValue;

use super::draft::{Draft, EventPlace, Signed};
use super::format::content;
use super::parsed;
use crate::Result;

/// An event in the form that the authorisation rules read.
#[derive(Debug, Clone)]
pub(crate) struct Judged {
    id: OwnedEventId,
    room: Option<OwnedRoomId>,
    sender: OwnedUserId,
    kind: TimelineEventType,
    name: String,
    state_key: Option<String>,
    content: Box<RawValue>,
    at: MilliSecondsSinceUnixEpoch,
    after: Option<OwnedEventId>,
}

impl Judged {
    /// From an event that is not stored yet.
    pub(crate) fn draft(
        draft: &Draft,
        signed: &Signed,
        place: &EventPlace<'_>,
        content: Box<RawValue>,
    ) -> Result<Judged> {
        Ok(Judged {
            id: signed.id.clone(),
            room: place.room.map(ToOwned::to_owned),
            sender: draft.sender.clone(),
            kind: draft.kind.as_str().into(),
            name: draft.kind.clone(),
            state_key: draft.state_key.clone(),
            content,
            at: milliseconds(draft.at),
            after: place.after.map(parsed::<OwnedEventId>).transpose()?,
        })
    }

    /// From a stored state event.
    pub(crate) fn stored(row: &EventRow, rules: &RoomVersionRules) -> Result<Judged> {
        let hidden =
            row.kind == "m.room.create" && rules.authorization.room_create_event_id_as_room_id;
        Ok(Judged {
            id: parsed(&row.event_id)?,
            room: if hidden {
                None
            } else {
                Some(parsed(&row.room_id)?)
            },
            sender: parsed(&row.sender)?,
            kind: row.kind.as_str().into(),
            name: row.kind.clone(),
            state_key: row.state_key.clone(),
            content: content(row)?.to_owned(),
            at: milliseconds(row.origin_server_ts),
            // No rule reads the previous event of a state event.
            after: None,
        })
    }

    /// Its content.
    pub(crate) fn content(&self) -> &RawValue {
        &self.content
    }

    /// Whether it is the state event of this type and state key.
    pub(crate) fn is(&self, kind: &str, state_key: &str) -> bool {
        self.name == kind && self.state_key.as_deref() == Some(state_key)
    }
}

fn milliseconds(ms: i64) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::try_from(ms).unwrap_or(UInt::MIN))
}

impl state_res::Event for Judged {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.id
    }
    fn room_id(&self) -> Option<&RoomId> {
        self.room.as_deref()
    }
    fn sender(&self) -> &UserId {
        &self.sender
    }
    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.at
    }
    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }
    fn content(&self) -> &RawValue {
        &self.content
    }
    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }
    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.after.iter())
    }
    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        // The server chose the auth events itself, so the rules that validate them are not checked.
        Box::new(std::iter::empty())
    }
    fn redacts(&self) -> Option<&OwnedEventId> {
        None
    }
    fn rejected(&self) -> bool {
        false
    }
}
