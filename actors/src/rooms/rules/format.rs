//! The format of events for clients and application services, made from stored rows.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schema::events::EventRow;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::Result;
use crate::hooks::is_of_proposal;
use crate::rooms::rules::visibility::HistoryAccess;

/// How to format an event, and the data that its own row does not hold. The default formats the event alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventFormat<'a> {
    /// Whether to write `room_id`: everywhere except in `/sync`.
    pub room_id: bool,
    /// The current time for `unsigned.age`, in milliseconds since the epoch; `None` writes no age.
    pub now: Option<i64>,
    /// The reading user and device: events that they sent carry `unsigned.transaction_id`.
    pub reader: Option<(&'a str, &'a str)>,
    /// The state event that this one replaced.
    pub replaced: Option<&'a EventRow>,
    /// The event that redacted this one.
    pub redaction: Option<&'a EventRow>,
    /// The reader's membership at the time of the event.
    pub membership: Option<&'a str>,
    /// What the reader may see, which limits `replaced` and `redaction`; `None` for everything.
    pub access: Option<&'a HistoryAccess>,
    /// Stripped state of the room, for an invite.
    pub invite_room_state: Option<&'a [Box<RawValue>]>,
}

/// The parts of a stored event that its columns do not hold.
#[derive(Deserialize)]
struct Pdu<'a> {
    #[serde(borrow)]
    content: &'a RawValue,
}

/// The parts of a stored event that clients are shown and that its columns do not hold.
struct Shown<'a> {
    content: &'a RawValue,
    /// The keys that proposals have added.
    top_level: BTreeMap<String, &'a RawValue>,
}

impl<'de> Deserialize<'de> for Shown<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(ShownVisitor)
    }
}

struct ShownVisitor;

impl<'de> Visitor<'de> for ShownVisitor {
    type Value = Shown<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Shown<'de>, A::Error> {
        let (mut content, mut top_level) = (None, BTreeMap::new());
        while let Some(Key(key)) = map.next_key()? {
            if key == "content" {
                content = Some(map.next_value()?);
            } else if is_of_proposal(&key) {
                top_level.insert(key.into_owned(), map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        let content = content.ok_or_else(|| A::Error::missing_field("content"))?;
        Ok(Shown { content, top_level })
    }
}

/// A key that is copied only if it contains an escape.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct Redacts<'a> {
    #[serde(borrow)]
    redacts: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
struct ClientEvent<'a> {
    content: &'a RawValue,
    event_id: &'a str,
    origin_server_ts: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacts: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<&'a str>,
    sender: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_key: Option<&'a str>,
    r#type: &'a str,
    #[serde(skip_serializing_if = "Unsigned::is_empty")]
    unsigned: Unsigned<'a>,
    #[serde(flatten)]
    top_level: BTreeMap<String, &'a RawValue>,
}

#[derive(Serialize)]
struct Unsigned<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invite_room_state: Option<&'a [Box<RawValue>]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_content: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacted_because: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces_state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<&'a str>,
}

impl Unsigned<'_> {
    fn is_empty(&self) -> bool {
        self.age.is_none()
            && self.invite_room_state.is_none()
            && self.membership.is_none()
            && self.prev_content.is_none()
            && self.redacted_because.is_none()
            && self.replaces_state.is_none()
            && self.transaction_id.is_none()
    }
}

/// A stored event in client format ([spec]), without the fields that only servers use. Clause: cs.sync.own-txn
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#room-event-format
pub fn client_event(row: &EventRow, format: &EventFormat<'_>) -> Result<Box<RawValue>> {
    let Shown { content, top_level } = serde_json::from_str(&row.pdu)?;
    // Before room version 11 `redacts` was a top-level field, and clients still read it there.
    let redacts = if row.kind == "m.room.redaction" {
        serde_json::from_str::<Redacts<'_>>(content.get())?.redacts
    } else {
        None
    };
    let mine = format.reader.is_some_and(|(user, device)| {
        row.sender == user && row.device_id.as_deref() == Some(device)
    });
    let redacted_because = format
        .redaction
        .map(|event| {
            client_event(
                event,
                &EventFormat {
                    redaction: None,
                    replaced: None,
                    invite_room_state: None,
                    membership: None,
                    ..*format
                },
            )
        })
        .transpose()?;
    let shown = ClientEvent {
        content,
        event_id: &row.event_id,
        origin_server_ts: row.origin_server_ts,
        redacts,
        room_id: format.room_id.then_some(row.room_id.as_str()),
        sender: &row.sender,
        state_key: row.state_key.as_deref(),
        r#type: &row.kind,
        unsigned: Unsigned {
            age: format.now.map(|now| (now - row.origin_server_ts).max(0)),
            invite_room_state: format.invite_room_state,
            membership: format.membership,
            prev_content: format.replaced.map(self::content).transpose()?,
            redacted_because,
            replaces_state: row.replaces.as_deref(),
            transaction_id: if mine { row.txn_id.as_deref() } else { None },
        },
        top_level,
    };
    Ok(serde_json::value::to_raw_value(&shown)?)
}

/// A state event in stripped format: type, state key, sender, content. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#stripped-state
pub fn stripped_event(row: &EventRow) -> Result<Box<RawValue>> {
    #[derive(Serialize)]
    struct Stripped<'a> {
        content: &'a RawValue,
        sender: &'a str,
        state_key: &'a str,
        r#type: &'a str,
    }
    Ok(serde_json::value::to_raw_value(&Stripped {
        content: content(row)?,
        sender: &row.sender,
        state_key: row.state_key.as_deref().unwrap_or_default(),
        r#type: &row.kind,
    })?)
}

/// The content of a stored event, byte for byte.
pub fn content(row: &EventRow) -> Result<&RawValue> {
    Ok(serde_json::from_str::<Pdu<'_>>(&row.pdu)?.content)
}
