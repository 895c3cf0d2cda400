//! Events in the server-server format: making, hashing and signing them, and showing them to the authorisation rules.

use ruma::canonical_json::{CanonicalJsonObject, CanonicalJsonValue};
use ruma::events::TimelineEventType;
use ruma::room_version_rules::RoomVersionRules;
use ruma::signatures::{Ed25519KeyPair, JsonError, hash_and_sign_event, reference_hash};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId,
    RoomId, UInt, UserId, state_res,
};
use schema::events::EventRow;
use serde_json::value::RawValue;

use super::format::content;
use super::rules;
use crate::{Env, Error, Refusal, Result};

/// The `membership` in the content of a member event.
pub(crate) fn membership_in(content: &RawValue) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Content {
        membership: String,
    }
    let content: Content = serde_json::from_str(content.get()).ok()?;
    Some(content.membership)
}

/// The rules of a room version that this server speaks.
///
/// # Errors
/// [`Refusal::UnsupportedRoomVersion`]
pub(crate) fn rules_of(version: &str) -> Result<RoomVersionRules> {
    match version {
        "11" => Ok(RoomVersionRules::V11),
        "12" => Ok(RoomVersionRules::V12),
        other => Err(Refusal::UnsupportedRoomVersion(other.to_owned()).into()),
    }
}

/// What a client sent as an event's content, as canonical JSON: an object without floats or integers that others could not read.
///
/// # Errors
/// [`Refusal::BadJson`]
pub(crate) fn canonical(content: &RawValue) -> Result<CanonicalJsonObject> {
    serde_json::from_str(content.get())
        .map_err(|e| Refusal::BadJson(format!("content is not canonical JSON: {e}").into()).into())
}

/// An event that somebody wants to send, before it has a place in the room.
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

/// An event with hashes, signature and id, and whether it may be sent still to be seen.
pub(crate) struct Signed {
    /// Its id: the hash of itself.
    pub(crate) id: OwnedEventId,
    /// The whole event, canonical JSON.
    pub(crate) json: String,
}

/// What signs: the server's name and key.
pub(crate) struct Pen<'a> {
    name: &'a OwnedServerName,
    key: &'a Ed25519KeyPair,
}

impl<'a> Pen<'a> {
    pub(crate) fn of(env: &'a Env) -> Pen<'a> {
        Pen {
            name: &env.settings.server_name,
            key: &env.signing_key,
        }
    }

    /// Hash and sign a draft in its place. ([spec])
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] for more than an event may have.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/server-server-api/#adding-hashes-and-signatures-to-outgoing-events
    pub(crate) fn sign(
        &self,
        draft: &Draft,
        place: &Place<'_>,
        rules: &RoomVersionRules,
    ) -> Result<Signed> {
        let text = |s: &str| CanonicalJsonValue::String(s.to_owned());
        let list =
            |ids: &[&str]| CanonicalJsonValue::Array(ids.iter().map(|id| text(id)).collect());
        let integer = |n: i64| {
            ruma::Int::new(n)
                .map(CanonicalJsonValue::Integer)
                .ok_or_else(|| Refusal::InvalidParam(format!("{n} is out of range").into()))
        };
        let after: Vec<&str> = place.after.into_iter().collect();
        let mut object = CanonicalJsonObject::from([
            ("type".to_owned(), text(&draft.kind)),
            ("sender".to_owned(), text(draft.sender.as_str())),
            ("origin_server_ts".to_owned(), integer(draft.at)?),
            (
                "content".to_owned(),
                CanonicalJsonValue::Object(draft.content.clone()),
            ),
            ("depth".to_owned(), integer(place.depth)?),
            ("prev_events".to_owned(), list(&after)),
            ("auth_events".to_owned(), list(&place.auth_events)),
        ]);
        if let Some(room) = place.room {
            object.insert("room_id".to_owned(), text(room.as_str()));
        }
        if let Some(state_key) = &draft.state_key {
            object.insert("state_key".to_owned(), text(state_key));
        }
        hash_and_sign_event(self.name.as_str(), self.key, &mut object, &rules.redaction)
            .map_err(unsigned)?;
        let hash = reference_hash(&object, rules).map_err(unsigned)?;
        let id = EventId::new_v2_or_v3(&hash)
            .map_err(|e| Error::from(schema::Error::Damaged(format!("event id: {e}"))))?;
        let json = serde_json::to_string(&object)?;
        rules::check_size(json.len())?;
        Ok(Signed { id, json })
    }
}

fn unsigned(error: JsonError) -> Error {
    match error {
        JsonError::PduTooLarge => Refusal::TooLarge("the event is too large".into()).into(),
        other => Refusal::BadJson(other.to_string().into()).into(),
    }
}

/// An event as the authorisation rules look at it.
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
    /// An event that is to be sent.
    ///
    /// # Errors
    /// When an id in it is damaged.
    pub(crate) fn draft(
        draft: &Draft,
        signed: &Signed,
        place: &Place<'_>,
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

    /// A stored state event.
    ///
    /// # Errors
    /// When the stored event is damaged.
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
            // No rule asks what a state event followed.
            after: None,
        })
    }

    /// Its content.
    pub(crate) fn content(&self) -> &RawValue {
        &self.content
    }

    /// Whether it is the state under this type and state key.
    pub(crate) fn is(&self, kind: &str, state_key: &str) -> bool {
        self.name == kind && self.state_key.as_deref() == Some(state_key)
    }
}

fn milliseconds(ms: i64) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::try_from(ms).unwrap_or(UInt::MIN))
}

/// An identifier that was checked when it was stored.
///
/// # Errors
/// When it is damaged.
pub(crate) fn parsed<T>(text: &str) -> Result<T>
where
    T: for<'a> TryFrom<&'a str>,
{
    T::try_from(text)
        .map_err(|_| schema::Error::Damaged(format!("{text:?} is not an identifier")).into())
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
        // The server chose them; the rules about others' choices are not asked.
        Box::new(std::iter::empty())
    }
    fn redacts(&self) -> Option<&OwnedEventId> {
        None
    }
    fn rejected(&self) -> bool {
        false
    }
}
