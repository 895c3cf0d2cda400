//! What a proposal may touch: names on the wire, the body they go into, and the hooks that put them there.

use std::collections::BTreeMap;

use ruma::{CanonicalJsonObject, OwnedDeviceId, OwnedUserId};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::Refusal;
use crate::services::Registration;

/// A name on the wire, before and after its proposal is accepted. Written once, in the proposal's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// What is sent until the proposal is accepted.
    pub unstable: &'static str,
    /// What it will be called.
    pub stable: &'static str,
}

/// Which of a name's two forms are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Naming {
    /// Only the unstable name: the rule for a proposal that is not accepted.
    #[default]
    Unstable,
    /// Only the stable name.
    Stable,
    /// Both.
    Both,
}

/// A JSON object that is written once, key by key; raw parts keep their bytes.
#[derive(Debug, Clone, Default)]
pub struct Body {
    naming: Naming,
    entries: Vec<(&'static str, String)>,
}

impl Body {
    /// An empty object.
    #[must_use]
    pub fn new(naming: Naming) -> Body {
        Body {
            naming,
            entries: Vec::new(),
        }
    }

    /// Write a value under a proposal's name, in the chosen forms; skips `null`, `[]` and `{}`.
    pub fn put<T: Serialize + ?Sized>(&mut self, name: Name, value: &T) {
        let Ok(json) = serde_json::to_string(value) else {
            return;
        };
        if matches!(json.as_str(), "null" | "[]" | "{}") {
            return;
        }
        match self.naming {
            Naming::Unstable => self.entries.push((name.unstable, json)),
            Naming::Stable => self.entries.push((name.stable, json)),
            Naming::Both => {
                self.entries.push((name.unstable, json.clone()));
                self.entries.push((name.stable, json));
            }
        }
    }

    /// Write a value under a stable key, empty or not.
    pub fn put_always<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) {
        if let Ok(json) = serde_json::to_string(value) {
            self.entries.push((key, json));
        }
    }

    /// The keys that were written, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.entries.iter().map(|(key, _)| *key)
    }

    /// The object as text.
    #[must_use]
    pub fn into_json(self) -> String {
        let length: usize = self
            .entries
            .iter()
            .map(|(key, json)| key.len() + json.len() + 4)
            .sum();
        let mut out = String::with_capacity(length + 2);
        out.push('{');
        for (i, (key, json)) in self.entries.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            out.push('"');
            out.push_str(key);
            out.push_str("\":");
            out.push_str(json);
        }
        out.push('}');
        out
    }
}

/// A to-device message as a transaction carries it. (MSC4203)
#[derive(Debug, Serialize)]
pub struct ToDeviceEvent {
    /// The event type.
    pub r#type: String,
    /// Who sent it.
    pub sender: String,
    /// Who receives it.
    pub to_user_id: String,
    /// On which device.
    pub to_device_id: String,
    /// The content, byte for byte as it was sent.
    pub content: Box<RawValue>,
}

/// Device-list changes. (MSC3202)
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceLists {
    /// Whose devices to look up again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// Whom to stop tracking.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
}

/// An item of a kind that a proposal composes itself.
#[derive(Debug)]
pub struct OwedItem {
    /// The parts of its key, as it was owed.
    pub key: Vec<String>,
    /// What it holds.
    pub value: Box<RawValue>,
}

/// user → device → what is said of it.
pub type PerDevice<T> = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, T>>;

/// Everything that one transaction will carry, before it has names.
#[derive(Debug)]
pub struct Pending {
    /// For whom.
    pub registration: Registration,
    /// Room events in client format, with `room_id`.
    pub events: Vec<Box<RawValue>>,
    /// Typing, receipts, presence.
    pub ephemeral: Vec<Box<RawValue>>,
    /// To-device messages.
    pub to_device: Vec<ToDeviceEvent>,
    /// Device-list changes.
    pub device_lists: DeviceLists,
    /// Items of other kinds, by kind.
    pub others: BTreeMap<String, Vec<OwedItem>>,
    /// Unclaimed one-time keys by algorithm; zero is said.
    pub one_time_key_counts: PerDevice<BTreeMap<String, i64>>,
    /// Algorithms with an unused fallback key; none is said as an empty list.
    pub unused_fallback_key_types: PerDevice<Vec<String>>,
}

/// A device of another user that signs for a device without keys of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSigner {
    /// Whose device signs.
    pub user: OwnedUserId,
    /// Which device: it signs as `ed25519:` and this id.
    pub device: OwnedDeviceId,
    /// Its public key, base64.
    pub public_key: String,
}

impl DeviceSigner {
    /// The name under which it signs.
    #[must_use]
    pub fn key_id(&self) -> String {
        format!("ed25519:{}", self.device)
    }
}

/// Which device of another user signs for the device with these keys: none, or one, or why the keys cannot be taken in.
pub type FindDeviceSigner = fn(&CanonicalJsonObject) -> Result<Option<DeviceSigner>, Refusal>;

/// What the enabled proposals add, in order.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Which form of a proposal's names is written.
    pub naming: Naming,
    /// Extra keys in transactions.
    pub transaction: Vec<fn(&Pending, &mut Body)>,
    /// The keys of a registration that ask for an experiment that is off.
    pub off: Vec<&'static str>,
    /// Who else signs for a device.
    pub device_signer: Vec<FindDeviceSigner>,
}

impl Hooks {
    /// The device of another user that signs for the device with these keys, by the first proposal that finds one.
    ///
    /// # Errors
    /// Why a proposal does not take the keys in.
    pub fn device_signer(
        &self,
        keys: &CanonicalJsonObject,
    ) -> Result<Option<DeviceSigner>, Refusal> {
        let found = self.device_signer.iter().map(|find| find(keys));
        found.filter_map(Result::transpose).next().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTS: Name = Name {
        unstable: "org.example.lists",
        stable: "lists",
    };

    #[test]
    fn names_are_written_as_chosen_and_nothing_empty_is() {
        let cases = [
            (
                Naming::Unstable,
                r#"{"events":[],"org.example.lists":["a"]}"#,
            ),
            (Naming::Stable, r#"{"events":[],"lists":["a"]}"#),
            (
                Naming::Both,
                r#"{"events":[],"org.example.lists":["a"],"lists":["a"]}"#,
            ),
        ];
        for (naming, expected) in cases {
            let mut body = Body::new(naming);
            body.put_always("events", &[0; 0]);
            body.put(LISTS, &["a"]);
            body.put(LISTS, &DeviceLists::default());
            assert_eq!(body.into_json(), expected);
        }
    }
}
