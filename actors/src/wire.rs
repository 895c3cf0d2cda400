//! What proposals write: names on the wire, and the JSON body of a transaction that uses them.

use std::collections::BTreeMap;

use ruma::{CanonicalJsonObject, OwnedDeviceId, OwnedUserId};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::Refusal;
use crate::services::Registration;

/// A name on the wire in its unstable and its stable form. Each proposal lists its names once, in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// The name that is used until the proposal is accepted.
    pub unstable: &'static str,
    /// The name that is used after the proposal is accepted.
    pub stable: &'static str,
}

impl Name {
    /// Both forms, the stable one first.
    pub const fn forms(self) -> [&'static str; 2] {
        [self.stable, self.unstable]
    }
}

/// Which forms of a name are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Naming {
    /// Only the unstable name: the rule for a proposal that is not accepted.
    #[default]
    Unstable,
    /// Only the stable name.
    Stable,
    /// Both names, with the same value.
    Both,
}

impl Naming {
    /// The forms of a name that are written.
    pub fn forms(self, name: Name) -> impl Iterator<Item = &'static str> {
        let unstable = (self != Naming::Stable).then_some(name.unstable);
        let stable = (self != Naming::Unstable).then_some(name.stable);
        unstable.into_iter().chain(stable)
    }
}

/// Which forms of the names of each proposal are written: one for all, or one for some of them by number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namings {
    others: Naming,
    by_number: BTreeMap<u16, Naming>,
}

impl Namings {
    /// The forms for the proposal with this number.
    #[must_use]
    pub fn of(&self, number: u16) -> Naming {
        self.by_number.get(&number).copied().unwrap_or(self.others)
    }
}

impl From<Naming> for Namings {
    fn from(all: Naming) -> Self {
        Namings {
            others: all,
            by_number: BTreeMap::new(),
        }
    }
}

impl<'de> Deserialize<'de> for Namings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "\"unstable\", \"stable\" or \"both\", or a table of these by number, with \"default\" for the others"
        )]
        enum Given {
            All(Naming),
            Each(BTreeMap<String, Naming>),
        }
        let given = match Given::deserialize(deserializer)? {
            Given::All(naming) => return Ok(naming.into()),
            Given::Each(given) => given,
        };
        let mut namings = Namings::default();
        for (key, naming) in given {
            match key.parse() {
                Ok(number) => drop(namings.by_number.insert(number, naming)),
                Err(_) if key == "default" => namings.others = naming,
                Err(_) => {
                    let why =
                        format!("{key:?} is neither the number of a proposal nor \"default\"");
                    return Err(serde::de::Error::custom(why));
                }
            }
        }
        Ok(namings)
    }
}

/// A JSON object that is written key by key. Raw values keep their bytes.
#[derive(Debug, Clone, Default)]
pub struct TransactionBody {
    naming: Naming,
    entries: Vec<(&'static str, String)>,
}

impl TransactionBody {
    /// An empty object.
    pub fn new(naming: Naming) -> TransactionBody {
        TransactionBody {
            naming,
            entries: Vec::new(),
        }
    }

    /// Write the names of the following values in these forms.
    pub fn name_in(&mut self, naming: Naming) {
        self.naming = naming;
    }

    /// Add a value under a proposal's name, in the chosen forms. `null`, `[]` and `{}` are skipped.
    pub fn put<T: Serialize + ?Sized>(&mut self, name: Name, value: &T) {
        let Ok(json) = serde_json::to_string(value) else {
            return;
        };
        if matches!(json.as_str(), "null" | "[]" | "{}") {
            return;
        }
        for key in self.naming.forms(name) {
            self.entries.push((key, json.clone()));
        }
    }

    /// Add a value under a stable key, even if it is empty.
    pub fn put_always<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) {
        if let Ok(json) = serde_json::to_string(value) {
            self.entries.push((key, json));
        }
    }

    /// The keys that were added, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.entries.iter().map(|(key, _)| *key)
    }

    /// The object as text.
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

/// A to-device message in a transaction. (MSC4203) Clause: as.to-device.addressee
#[derive(Debug, Serialize)]
pub struct ToDeviceEvent {
    /// The event type.
    pub r#type: String,
    /// The sender's user id.
    pub sender: String,
    /// The recipient's user id.
    pub to_user_id: String,
    /// The recipient's device id.
    pub to_device_id: String,
    /// The content, byte for byte as it was sent.
    pub content: Box<RawValue>,
}

/// Device-list changes. (MSC3202)
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct TransactionDeviceLists {
    /// Users whose devices must be queried again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
    /// Users who need not be tracked any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
}

/// An owed item of a kind that a proposal composes itself.
#[derive(Debug)]
pub struct OwedItem {
    /// The parts of the key under which it was owed.
    pub key: Vec<String>,
    /// The item as JSON.
    pub value: Box<RawValue>,
}

/// A value for each device, by user and device id.
pub type PerDevice<T> = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, T>>;

/// The content of one transaction before it is written as JSON.
#[derive(Debug)]
pub struct TransactionContent {
    /// The registration of the receiving appservice.
    pub registration: Registration,
    /// Room events in client format, with `room_id`.
    pub events: Vec<Box<RawValue>>,
    /// Typing, receipts and presence.
    pub ephemeral: Vec<Box<RawValue>>,
    /// To-device messages.
    pub to_device: Vec<ToDeviceEvent>,
    /// Device-list changes.
    pub device_lists: TransactionDeviceLists,
    /// Items of the proposals' own kinds, by kind.
    pub others: BTreeMap<String, Vec<OwedItem>>,
    /// Unclaimed one-time keys by algorithm, with an explicit zero where there are none.
    pub one_time_key_counts: PerDevice<BTreeMap<String, i64>>,
    /// Algorithms with an unused fallback key; an empty list where there are none.
    pub unused_fallback_key_types: PerDevice<Vec<String>>,
}

/// A device of another user that signs the keys of a device which has none of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSigner {
    /// The owner of the signing device.
    pub user: OwnedUserId,
    /// The id of the signing device. Its key id is `ed25519:` and this id.
    pub device: OwnedDeviceId,
    /// Its public key, base64.
    pub public_key: String,
}

impl DeviceSigner {
    /// The key id of its signatures.
    pub fn key_id(&self) -> String {
        format!("ed25519:{}", self.device)
    }
}

/// Finds the device of another user that signs for the device with these keys, if there is one. An error refuses the keys.
pub type FindDeviceSigner = fn(&CanonicalJsonObject) -> Result<Option<DeviceSigner>, Refusal>;

#[cfg(test)]
mod tests {
    use super::*;

    const LISTS: Name = Name {
        unstable: "org.example.lists",
        stable: "lists",
    };

    #[test]
    fn the_forms_of_names_are_chosen_for_all_proposals_or_for_each() {
        let parse = |json: &str| serde_json::from_str::<Namings>(json);
        let both = parse(r#""both""#).expect("a form");
        assert_eq!(both.of(3202), Naming::Both);
        let each = parse(r#"{"3202": "stable", "default": "both"}"#).expect("a table");
        assert_eq!((each.of(3202), each.of(1)), (Naming::Stable, Naming::Both));
        for wrong in [r#""x""#, r#"{"x": "both"}"#, "7", r#"{"3202": "x"}"#] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_written_in_the_chosen_forms_and_empty_values_are_skipped() {
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
            let mut body = TransactionBody::new(naming);
            body.put_always("events", &[0; 0]);
            body.put(LISTS, &["a"]);
            body.put(LISTS, &TransactionDeviceLists::default());
            assert_eq!(body.into_json(), expected);
        }
    }
}
