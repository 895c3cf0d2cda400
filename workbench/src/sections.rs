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
