//! Client filters on room events.

use ruma::api::client::filter::{RoomEventFilter, UrlFilter};
use schema::events::EventRow;

use crate::rooms::rules::format::content;

/// Whether an event matches a filter. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#filtering
pub(crate) fn lets_pass(filter: &RoomEventFilter, event: &EventRow) -> bool {
    let kind = |patterns: &[String]| patterns.iter().any(|p| matches(p, &event.kind));
    let room = event.room_id.as_str();
    let sender = event.sender.as_str();
    filter.types.as_deref().is_none_or(kind)
        && !kind(&filter.not_types)
        && filter
            .senders
            .as_ref()
            .is_none_or(|s| s.iter().any(|u| u == sender))
        && !filter.not_senders.iter().any(|u| u == sender)
        && filter
            .rooms
            .as_ref()
            .is_none_or(|r| r.iter().any(|id| id == room))
        && !filter.not_rooms.iter().any(|id| id == room)
        && filter
            .url_filter
            .as_ref()
            .is_none_or(|url| (*url == UrlFilter::EventsWithUrl) == has_url(event))
}

fn has_url(event: &EventRow) -> bool {
    #[derive(serde::Deserialize)]
    struct Content {
        #[serde(rename = "url")]
        _url: String,
    }
    content(event).is_ok_and(|c| serde_json::from_str::<Content>(c.get()).is_ok())
}

/// Whether an event type matches a pattern, in which `*` matches any characters.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, mut rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    while let Some((part, after)) = rest.split_once('*') {
        let Some(found) = text.find(part) else {
            return false;
        };
        text = &text[found + part.len()..];
        rest = after;
    }
    text.ends_with(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        let cases = [
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("m.room.*", "m.room.name", true),
            ("*", "anything", true),
            ("*.name", "m.room.name", true),
            ("m.*.name", "m.room.name", true),
            ("m.*.name", "m.name", false),
            ("m.*a*e", "m.room.name", true),
            ("ab*ba", "aba", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn what_passes() {
        let event = EventRow {
            position: 1,
            event_id: "$e".to_owned(),
            room_id: "!r:test".to_owned(),
            kind: "m.room.message".to_owned(),
            state_key: None,
            sender: "@ann:test".to_owned(),
            origin_server_ts: 0,
            pdu: r#"{"content":{"url":"mxc://a/b"}}"#.to_owned(),
            replaces: None,
            redacted_by: None,
            device_id: None,
            txn_id: None,
        };
        let cases = [
            ("{}", true),
            (r#"{"types":["m.room.*"]}"#, true),
            (r#"{"types":[]}"#, false),
            (r#"{"types":["m.room.*"],"not_types":["*message"]}"#, false),
            (r#"{"senders":["@bob:test"]}"#, false),
            (r#"{"not_senders":["@ann:test"]}"#, false),
            (r#"{"rooms":["!r:test"]}"#, true),
            (r#"{"not_rooms":["!r:test"]}"#, false),
            (r#"{"contains_url":true}"#, true),
            (r#"{"contains_url":false}"#, false),
        ];
        for (filter, expected) in cases {
            let parsed = serde_json::from_str(filter).expect("a filter");
            assert_eq!(lets_pass(&parsed, &event), expected, "{filter}");
        }
    }
}
