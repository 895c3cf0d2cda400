//! The sections of a transaction that steps look into.

use serde_json::Value;

/// The sections, by the names of their members in the step `receives`.
pub(crate) const SECTIONS: [&str; 5] = ["to_device", "events", "ephemeral", "changed", "left"];

/// The items of a section of a transaction.
#[must_use]
pub(crate) fn items(body: &Value, section: &str) -> Vec<Value> {
    let section = match section {
        "changed" | "left" => &body["device_lists"][section],
        other => &body[other],
    };
    section.as_array().cloned().unwrap_or_default()
}

/// Whether a transaction has anything but key counts and presence.
#[must_use]
pub(crate) fn has_items(body: &Value) -> bool {
    let is_count = |name: &str| {
        name.contains("device_one_time_key") || name.contains("device_unused_fallback")
    };
    let sections = body.as_object().into_iter().flatten();
    sections
        .filter(|(name, _)| !is_count(name))
        .any(|(_, section)| match section {
            Value::Array(items) => items.iter().any(|item| item["type"] != "m.presence"),
            Value::Object(members) => members
                .values()
                .any(|member| member.as_array().is_none_or(|items| !items.is_empty())),
            _ => true,
        })
}
