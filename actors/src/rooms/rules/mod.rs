//! The specification's rules for rooms, as pure functions. The authorisation rules of events are ruma's.

pub(crate) mod draft;
pub(crate) mod filter;
pub mod format;
pub(crate) mod judged;
pub(crate) mod plan;
pub(crate) mod power;
pub mod visibility;

use std::collections::BTreeSet;

use ruma::canonical_json::{CanonicalJsonObject, CanonicalJsonValue};
use ruma::room_version_rules::RoomVersionRules;
use ruma::{ServerName, UserId};
use schema::Position;
use schema::events::EventRow;
use serde_json::value::RawValue;

use self::draft::Draft;
use self::format::content;
use super::messages::Action;
use crate::runtime::lengths::NAME;
pub use crate::runtime::lengths::{check_name, check_nul};
use crate::{Refusal, Result};

/// The rules of a room version that this server supports.
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

/// The content that a client sent, as canonical JSON: an object without floats or integers beyond 2⁵³.
///
/// # Errors
/// [`Refusal::BadJson`]
pub(crate) fn canonical(content: &RawValue) -> Result<CanonicalJsonObject> {
    serde_json::from_str(content.get())
        .map_err(|e| Refusal::BadJson(format!("content is not canonical JSON: {e}").into()).into())
}

/// The `membership` in the content of a member event.
pub(crate) fn membership_in(content: &RawValue) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Content {
        membership: String,
    }
    let content: Content = serde_json::from_str(content.get()).ok()?;
    Some(content.membership)
}

/// Parse an identifier that was validated before it was stored.
pub(crate) fn parsed<T>(text: &str) -> Result<T>
where
    T: for<'a> TryFrom<&'a str>,
{
    T::try_from(text)
        .map_err(|_| schema::Error::Damaged(format!("{text:?} is not an identifier")).into())
}

/// The most bytes that an event may have as canonical JSON, signatures included. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#size-limits
pub const EVENT_BYTES: usize = 65_536;

/// Refuse an event longer than [`EVENT_BYTES`]. ([spec]) Clause: cs.api.event-size
///
/// # Errors
/// [`Refusal::TooLarge`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#size-limits
pub fn check_size(bytes: usize) -> Result<()> {
    if bytes > EVENT_BYTES {
        return Err(Refusal::TooLarge(
            format!("the event has {bytes} bytes; {EVENT_BYTES} is the most").into(),
        )
        .into());
    }
    Ok(())
}

/// The user that a state event invites; `None` for another event. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#mroommember
pub fn invited<'a>(kind: &str, state_key: &'a str, content: &RawValue) -> Option<&'a UserId> {
    let invites = kind == "m.room.member" && membership_in(content).as_deref() == Some("invite");
    invites.then(|| state_key.try_into().ok()).flatten()
}

/// Refuse an invalid event id in a receipt: event ids are opaque except for their sigil and length. ([spec])
///
/// # Errors
/// [`Refusal::InvalidParam`]
///
/// [spec]: https://spec.matrix.org/v1.19/appendices/#event-ids
pub(crate) fn check_event_id(id: &str) -> Result<()> {
    if !id.starts_with('$') || id.len() > NAME || id.contains('\0') {
        return Err(Refusal::InvalidParam("this is not an event id".into()).into());
    }
    Ok(())
}

/// Refuse an event whose fields do not fit into their columns.
pub(crate) fn check_shape(draft: &Draft) -> Result<()> {
    check_name("the event type", &draft.kind)?;
    if draft.kind.is_empty() {
        return Err(Refusal::InvalidParam("the event type is empty".into()).into());
    }
    if let Some(state_key) = &draft.state_key {
        check_name("the state key", state_key)?;
    }
    if draft.kind == "m.room.member" {
        for name in ["displayname", "avatar_url"] {
            if let Some(text) = draft.content.get(name).and_then(|v| v.as_str()) {
                check_nul(name, text)?;
            }
        }
    }
    Ok(())
}

/// Refuse a member of another server, since this server does not federate.
///
/// # Errors
/// [`Refusal::InvalidParam`] for an invalid user id, [`Refusal::Forbidden`] for a user of another server.
pub(crate) fn check_local(state_key: &str, server: &ServerName) -> Result<()> {
    let user = <&UserId>::try_from(state_key)
        .map_err(|e| Refusal::InvalidParam(format!("{state_key:?}: {e}").into()))?;
    if user.server_name() != server {
        return Err(Refusal::Forbidden("this server does not federate".into()).into());
    }
    Ok(())
}

/// Refuse what the authorisation rules would allow: an unknown membership, and a leave, sent by another user, of a user that is
/// not joined, invited, knocking or banned.
///
/// # Errors
/// [`Refusal::InvalidParam`] for an unknown membership, [`Refusal::Forbidden`]
pub(crate) fn check_membership(by_self: bool, before: &str, after: &str) -> Result<()> {
    if !matches!(after, "join" | "invite" | "knock" | "leave" | "ban") {
        return Err(Refusal::InvalidParam(format!("unknown membership {after:?}").into()).into());
    }
    if after == "leave" && !by_self && matches!(before, "" | "leave") {
        return Err(Refusal::Forbidden("the user is not in this room".into()).into());
    }
    Ok(())
}

/// Refuse an action that cannot change this membership. The authorisation rules would allow a kick of a user that is not in the
/// room and an unban of a user that is not banned. They refuse the other two themselves; bridges know them by these texts. ([kick],
/// [unban])
///
/// # Errors
/// [`Refusal::Forbidden`]
///
/// [kick]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidkick
/// [unban]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidunban
pub fn check_action(action: Action, membership: &str) -> Result<()> {
    let refused = match action {
        Action::Kick if !matches!(membership, "join" | "invite" | "knock") => {
            "the user is not in this room"
        }
        Action::Invite if membership == "join" => "the user is already in the room",
        Action::Leave if matches!(membership, "" | "leave") => "the user is not in room",
        Action::Unban if membership != "ban" => "the user is not banned",
        _ => return Ok(()),
    };
    Err(Refusal::Forbidden(refused.into()).into())
}

/// The rooms whose members may join a restricted room. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms
pub(crate) fn rooms_that_admit(join_rules: &RawValue) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct JoinRules {
        join_rule: String,
        #[serde(default)]
        allow: Vec<serde_json::Value>,
    }
    let Ok(rules) = serde_json::from_str::<JoinRules>(join_rules.get()) else {
        return Vec::new();
    };
    if !matches!(rules.join_rule.as_str(), "restricted" | "knock_restricted") {
        return Vec::new();
    }
    let text = |allow: &serde_json::Value, key: &str| {
        allow.get(key).and_then(|v| v.as_str()).map(str::to_owned)
    };
    rules
        .allow
        .iter()
        .filter(|allow| text(allow, "type").as_deref() == Some("m.room_membership"))
        .filter_map(|allow| text(allow, "room_id"))
        .collect()
}

/// Whether a draft would repeat the current state event: same sender, same content.
pub(crate) fn says_the_same(old: &EventRow, draft: &Draft, new: &RawValue) -> Result<bool> {
    // Both are canonical JSON, so equal contents have equal texts.
    Ok(old.sender == draft.sender.as_str() && content(old)?.get() == new.get())
}

/// The display name and avatar in the content of a member event; a value that is not a string counts as missing.
pub(crate) fn names_in(content: &RawValue) -> (Option<String>, Option<String>) {
    let content: serde_json::Value = serde_json::from_str(content.get()).unwrap_or_default();
    let text = |key: &str| content.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    (text("displayname"), text("avatar_url"))
}

/// The `m.relates_to` of an event: the related event's id, the relation type, and the key of an annotation. ([spec])
///
/// `None` also when one of them is longer than [`NAME`].
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events
pub(crate) fn relation_in(content: &CanonicalJsonObject) -> Option<(String, String, String)> {
    let relates = content.get("m.relates_to")?.as_object()?;
    let text = |key: &str| {
        let text = relates.get(key)?.as_str()?;
        check_name(key, text).ok().map(|()| text.to_owned())
    };
    let (parent, rel_type) = (text("event_id")?, text("rel_type")?);
    let key = match rel_type.as_str() {
        "m.annotation" => text("key")?,
        _ => String::new(),
    };
    Some((parent, rel_type, key))
}

/// The aliases in a canonical alias event. ([spec])
///
/// # Errors
/// [`Refusal::InvalidParam`] for an alias that is not a string.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#mroomcanonical_alias
pub(crate) fn aliases_in(content: &CanonicalJsonObject) -> Result<BTreeSet<String>> {
    use CanonicalJsonValue::{Array, Null, String};
    let mut names = match content.get("alt_aliases") {
        None | Some(Null) => Vec::new(),
        Some(Array(names)) => names.clone(),
        Some(_) => return Err(Refusal::InvalidParam("alt_aliases is not a list".into()).into()),
    };
    names.extend(content.get("alias").filter(|a| **a != Null).cloned());
    names
        .into_iter()
        .map(|name| match name {
            String(name) => Ok(name),
            _ => Err(Refusal::InvalidParam("an alias is not a string".into()).into()),
        })
        // Clients remove the alias with an empty string.
        .filter(|name| !matches!(name, Ok(name) if name.is_empty()))
        .collect()
}

/// A pagination token: `s` and the position of the event before the place it points to. ([spec])
/// A `since` token of `/sync` is a valid one.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages
pub fn token(before: Position) -> String {
    format!("s{before}")
}

/// The position in a token; the rest of a `since` token of `/sync` is ignored.
///
/// # Errors
/// [`Refusal::InvalidParam`]
pub fn parse_token(token: &str) -> Result<Position> {
    token
        .strip_prefix('s')
        .and_then(|rest| rest.split('_').next())
        .and_then(|position| position.parse().ok())
        .filter(|position| *position >= 0)
        .map(Position)
        .ok_or_else(|| Refusal::InvalidParam("this token is not from this server".into()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_a_limit_and_no_nul() {
        let cases = [
            ("", true),
            (&"x".repeat(255), true),
            (&"x".repeat(256), false),
            (&"é".repeat(128), false),
            ("a\0b", false),
        ];
        for (name, accepted) in cases {
            assert_eq!(check_name("it", name).is_ok(), accepted, "{name:?}");
        }
        assert!(check_size(EVENT_BYTES).is_ok());
        assert!(check_size(EVENT_BYTES + 1).is_err());
    }

    #[test]
    fn an_action_needs_something_to_change() {
        let cases = [
            (Action::Kick, ["join", "invite", "knock"].as_slice()),
            (Action::Unban, &["ban"]),
            (
                Action::Ban,
                &["", "join", "invite", "knock", "leave", "ban"],
            ),
            (Action::Leave, &["join", "invite", "knock", "ban"]),
            (Action::Invite, &["", "invite", "knock", "leave", "ban"]),
        ];
        for (action, accepted) in cases {
            for membership in ["", "join", "invite", "knock", "leave", "ban"] {
                let ok = check_action(action, membership).is_ok();
                assert_eq!(
                    ok,
                    accepted.contains(&membership),
                    "{action:?} {membership:?}"
                );
            }
        }
    }

    #[test]
    fn who_is_admitted_without_an_invite() {
        let cases = [
            (
                r#"{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":"!a"},{"type":"x","room_id":"!b"},7]}"#,
                vec!["!a"],
            ),
            (
                r#"{"join_rule":"invite","allow":[{"type":"m.room_membership","room_id":"!a"}]}"#,
                vec![],
            ),
            (r#"{"join_rule":"knock_restricted"}"#, vec![]),
            (r#"{}"#, vec![]),
        ];
        for (content, expected) in cases {
            let content = RawValue::from_string(content.to_owned()).expect("JSON");
            assert_eq!(rooms_that_admit(&content), expected);
        }
    }

    #[test]
    fn tokens() {
        assert_eq!(parse_token(&token(Position(17))).ok(), Some(Position(17)));
        assert_eq!(parse_token("s17_12").ok(), Some(Position(17)));
        for bad in ["", "17", "s", "s-1", "sx", "t1", "s1x"] {
            assert!(parse_token(bad).is_err(), "{bad}");
        }
    }
}
