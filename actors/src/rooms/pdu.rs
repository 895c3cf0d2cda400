//! Building, hashing and signing events in the server-server format.

use ruma::canonical_json::CanonicalJsonValue;
use ruma::room_version_rules::RoomVersionRules;
use ruma::signatures::{Ed25519KeyPair, JsonError, hash_and_sign_event, reference_hash};
use ruma::{EventId, OwnedServerName};

use super::rules;
use super::rules::draft::{Draft, EventPlace, Signed};
use crate::{Env, Error, Refusal, Result};

/// Signs events with the server's name and key.
pub(crate) struct Signer<'a> {
    name: &'a OwnedServerName,
    key: &'a Ed25519KeyPair,
}

impl<'a> Signer<'a> {
    pub(crate) fn of(env: &'a Env) -> Signer<'a> {
        Signer {
            name: &env.settings.server_name,
            key: &env.signing_key,
        }
    }

    /// Build, hash and sign the event of a draft. ([spec])
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] above [`EVENT_BYTES`](rules::EVENT_BYTES); [`Refusal::InvalidParam`] for an integer that JSON cannot
    /// hold.
    ///
    /// [spec]: https://spec.matrix.org/v1.19/server-server-api/#adding-hashes-and-signatures-to-outgoing-events
    pub(crate) fn sign(
        &self,
        draft: &Draft,
        place: &EventPlace<'_>,
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
        let mut object = draft.top_level.clone();
        object.extend([
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
