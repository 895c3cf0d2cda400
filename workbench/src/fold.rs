//! What does not tell one homeserver from another is folded away before two runs are compared: ids, times, random keys, and the
//! parts of an event that each homeserver adds in its own way.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

use crate::names::Names;

/// Members whose values differ from run to run, or from homeserver to homeserver without a meaning.
const FOLDED: [&str; 22] = [
    "access_token",
    "age",
    "auth_events",
    "avatar_url",
    "depth",
    "display_name",
    "displayname",
    "duration_ms",
    "error",
    "expires_in_ms",
    "hashes",
    "home_server",
    "last_active_ago",
    "last_seen_ip",
    "last_seen_ts",
    "last_seen_user_agent",
    "next_batch",
    "origin_server_ts",
    "prev_batch",
    "session",
    "signatures",
    "unsigned",
];

/// Events whose content each homeserver writes itself.
const OWN: [&str; 2] = ["m.room.create", "m.room.power_levels"];

/// The ids of events and rooms that no step has named, and keys, hashes and ciphertexts.
static RANDOM: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"\$[\w-]{30,}|![A-Za-z]{18}\b|![\w-]{40,}|[A-Za-z0-9+/_-]{43,}").ok()
});

/// Folds what one run has sent and received.
pub(crate) struct Fold<'a>(pub(crate) &'a Names);

impl Fold<'_> {
    /// A text with short names for ids.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, id) in &self.0.rooms {
            text = text.replace(id, &format!("!{name}"));
        }
        if !self.0.run.is_empty() {
            text = text.replace(&self.0.run, "");
        }
        text = text.replace(&format!(":{}", self.0.server), "");
        match &*RANDOM {
            Some(random) => random.replace_all(&text, "…").into_owned(),
            None => text,
        }
    }

    /// A value without what is folded. Lists are sorted: their order rarely has a meaning, and scenarios expect it where it has.
    pub(crate) fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => json!(self.text(text)),
            Value::Array(items) => {
                let mut items: Vec<Value> = items.iter().map(|item| self.value(item)).collect();
                items.sort_by_key(Value::to_string);
                Value::Array(items)
            }
            Value::Object(members) => {
                let kept = members
                    .iter()
                    .filter(|(key, _)| !FOLDED.contains(&key.as_str()));
                let folded = kept.map(|(key, value)| (self.text(key), self.value(value)));
                Value::Object(folded.collect::<Map<_, _>>())
            }
            Value::Number(time) if time.as_u64().is_some_and(|n| n > 1_000_000_000_000) => {
                json!("…")
            }
            other => other.clone(),
        }
    }

    /// An event: its type, its users and its content.
    pub(crate) fn event(&self, event: &Value) -> String {
        let mut kept = Map::new();
        for key in [
            "type",
            "sender",
            "state_key",
            "to_user_id",
            "to_device_id",
            "room_id",
            "content",
        ] {
            if let Some(value) = event.get(key) {
                kept.insert(key.to_owned(), self.value(value));
            }
        }
        let kind = event["type"].as_str().unwrap_or_default();
        if OWN.contains(&kind) {
            kept.insert("content".to_owned(), json!("…"));
        }
        if kind == "m.room.encrypted" {
            kept.insert(
                "content".to_owned(),
                json!({"algorithm": event["content"]["algorithm"]}),
            );
        }
        Value::Object(kept).to_string()
    }
}

/// Whether a value says nothing: `null`, `[]`, `{}`.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(is_empty),
        _ => false,
    }
}

/// The places at which two values differ, as JSON pointers, with what is there. What is empty is as good as absent.
pub(crate) fn differences(left: &Value, right: &Value) -> Vec<(String, Value, Value)> {
    let mut found = Vec::new();
    compare(left, right, "", &mut found);
    found
}

fn compare(left: &Value, right: &Value, at: &str, found: &mut Vec<(String, Value, Value)>) {
    match (left, right) {
        (Value::Object(some), Value::Object(others)) => {
            let only_right = others.keys().filter(|key| !some.contains_key(*key));
            for key in some.keys().chain(only_right) {
                let of =
                    |members: &Map<String, Value>| members.get(key).cloned().unwrap_or_default();
                compare(&of(some), &of(others), &format!("{at}/{key}"), found);
            }
        }
        _ if left == right || (is_empty(left) && is_empty(right)) => {}
        _ => found.push((at.to_owned(), left.clone(), right.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_times_are_folded_and_what_remains_is_compared() {
        let mut names = Names {
            server: "test".to_owned(),
            run: "-17".to_owned(),
            ..Names::default()
        };
        names.rooms.insert("r".to_owned(), "!abc:test".to_owned());
        let event = json!({
            "type": "m.room.member", "sender": "@alice-17:test", "state_key": "@bob:test", "room_id": "!abc:test", "event_id": "$x",
            "content": {"membership": "join", "displayname": "alice"}, "origin_server_ts": 1_735_689_600_000_u64,
        });
        let folded = Fold(&names).event(&event);
        let expected = json!({
            "type": "m.room.member", "sender": "@alice", "state_key": "@bob", "room_id": "!r", "content": {"membership": "join"},
        });
        assert_eq!(folded, expected.to_string());
        let text = format!("${} and !{}:test", "a".repeat(43), "Ab".repeat(9));
        assert_eq!(Fold(&names).text(&text), "… and …");
        let (one, two) = (
            json!({"a": {"b": 1}, "c": [], "d": [1]}),
            json!({"a": {"b": 2}, "d": [1]}),
        );
        assert_eq!(
            differences(&one, &two),
            [("/a/b".to_owned(), json!(1), json!(2))]
        );
    }
}
