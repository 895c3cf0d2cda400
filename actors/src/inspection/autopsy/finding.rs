//! What an autopsy finds of one device.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::steps::Step;

/// What is found of one device.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceFinding {
    /// The owner.
    pub user: String,
    /// The device.
    pub device: String,
    /// Whether it has identity keys.
    pub known_keys: bool,
    /// The numbers of its unclaimed one-time keys, by algorithm.
    pub counts: BTreeMap<String, i64>,
    /// The claims of the sender for its keys, oldest first.
    pub claims: Vec<Claim>,
    /// The messages of the sender to it that can be the room key, oldest first.
    pub messages: Vec<KeyMessage>,
    /// One word for what is found.
    pub verdict: &'static str,
    /// What is missing, in one sentence.
    pub missing: String,
    /// How that is known, rule by rule.
    pub steps: Vec<Step>,
}

/// A claim for a key of the device.
#[derive(Debug, Clone, Serialize)]
pub struct Claim {
    /// When, in milliseconds since the epoch.
    pub at: i64,
    /// The user that claimed, if the trace still holds the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The device that claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_device: Option<String>,
    /// The algorithm of the key.
    pub algorithm: String,
    /// What it got: `one-time key`, `fallback key` or `nothing`.
    pub got: &'static str,
}

/// A message that can be the room key.
#[derive(Debug, Clone, Serialize)]
pub struct KeyMessage {
    /// Its position.
    pub position: i64,
    /// When it came, in milliseconds since the epoch; `None` if that was before the start.
    pub at: Option<i64>,
    /// Its type.
    pub r#type: String,
    /// The appservice whose acknowledgement counts as the device's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<String>,
    /// The transaction that carries or carried it to that appservice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<i64>,
    /// Whether the device, or the appservice that decides over it, has acknowledged it.
    pub acknowledged: bool,
    /// Whether it was deleted with its device before that.
    pub deleted: bool,
    /// The number of attempts at the transaction that the trace holds.
    pub attempts: usize,
}
