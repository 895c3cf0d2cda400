//! The content of a registration file; unknown keys are kept separately. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/application-service-api/#registration

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use schema::ServiceId;

/// Opts in to typing, receipts and presence, under the stable name.
pub const RECEIVE_EPHEMERAL: &str = "receive_ephemeral";
/// Opts in to the same, under the older name.
pub const PUSH_EPHEMERAL: &str = "de.sorunome.msc2409.push_ephemeral";
/// Opts in to device-list changes and key counts.
pub const MSC3202: &str = "org.matrix.msc3202";
/// Says that the appservice creates devices with `PUT /devices` and does not log in.
pub const MSC4190: &str = "io.element.msc4190";

/// A pattern of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Whether only the appservice may create matching users, aliases or rooms.
    pub exclusive: bool,
    /// A regular expression. It is anchored at the start and not at the end, as existing registrations expect.
    pub regex: String,
}

/// The patterns of an appservice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Matched against full user ids of this server.
    #[serde(default)]
    pub users: Vec<Namespace>,
    /// Matched against full room aliases.
    #[serde(default)]
    pub aliases: Vec<Namespace>,
    /// Matched against room ids.
    #[serde(default)]
    pub rooms: Vec<Namespace>,
}

/// The devices whose key counts a transaction carries. It is [`CountsPolicy::Recipients`], unless a registration on a
/// development server chooses with `org.understudy.counts`, so that the three can be compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CountsPolicy {
    /// The devices whose counts changed, those that receive a message in the transaction, and those of the appservice's sender.
    #[default]
    Recipients,
    /// The devices whose counts changed.
    Changed,
    /// Every device with keys over which the appservice decides, in every transaction. The cost grows with their number.
    Always,
}

/// A registration as it stands in its file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The unique id of the appservice.
    pub id: ServiceId,
    /// The base URL for requests to the appservice. The key must be present; with `null` nothing is ever sent.
    #[serde(deserialize_with = "Option::deserialize")]
    pub url: Option<String>,
    /// The token with which the appservice authenticates to the server.
    pub as_token: String,
    /// The token with which the server authenticates to the appservice.
    pub hs_token: String,
    /// The localpart of the appservice's own user.
    pub sender_localpart: String,
    /// The users, aliases and rooms that concern the appservice.
    pub namespaces: Namespaces,
    /// Whether the appservice's users, except its sender, are rate-limited. The default is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limited: Option<bool>,
    /// The third-party protocols that the appservice offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<String>>,
    /// Typing, receipts and presence in transactions, under the stable name. (v1.13)
    #[serde(default)]
    pub receive_ephemeral: bool,
    /// The same, under the older name.
    #[serde(default, rename = "de.sorunome.msc2409.push_ephemeral")]
    pub push_ephemeral: bool,
    /// Device-list changes and key counts in transactions.
    #[serde(default, rename = "org.matrix.msc3202")]
    pub msc3202: bool,
    /// The appservice creates devices with `PUT /devices` and does not log in.
    #[serde(default, rename = "io.element.msc4190")]
    pub msc4190: bool,
    /// The devices whose key counts the appservice wants. A key of this server alone, for comparison; only a development server
    /// reads it.
    #[serde(
        default,
        rename = "org.understudy.counts",
        skip_serializing_if = "Option::is_none"
    )]
    pub counts: Option<CountsPolicy>,
    /// Keys that this server does not know. Proposals read theirs here.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keep the tokens out of the logs.
        f.debug_struct("Registration")
            .field("id", &self.id)
            .field("url", &self.url)
            .field("sender_localpart", &self.sender_localpart)
            .finish_non_exhaustive()
    }
}

impl Registration {
    /// Whether the registration opts in to to-device messages, with any of the three flags in use. (MSC4203 defines none of its
    /// own.) Clause: as.to-device.opt-in
    pub fn wants_to_device(&self) -> bool {
        self.receive_ephemeral || self.push_ephemeral || self.msc3202
    }

    /// The non-exclusive user patterns: a user who matches only these is merely observed.
    pub fn shared_users(&self) -> Vec<&str> {
        let users = self.namespaces.users.iter();
        users
            .filter(|n| !n.exclusive)
            .map(|n| n.regex.as_str())
            .collect()
    }

    /// The URL for a `path` that begins with `/_matrix`, or `None` if the appservice has no URL.
    /// Clause: as.registration.url-path
    pub fn endpoint(&self, path: &str) -> Option<String> {
        self.url
            .as_ref()
            .map(|url| format!("{}{path}", url.trim_end_matches('/')))
    }

    /// The keys that opt in to something: those that are true and either concern ephemeral data or belong to a proposal.
    pub fn opted_in(&self) -> Vec<String> {
        let own = [RECEIVE_EPHEMERAL, PUSH_EPHEMERAL, MSC3202, MSC4190];
        let others = self.other.keys().map(String::as_str);
        let mut keys: Vec<String> = own
            .into_iter()
            .chain(others.filter(|key| key.contains('.')))
            .filter(|key| self.has_flag(key))
            .map(ToOwned::to_owned)
            .collect();
        keys.sort_unstable();
        keys
    }

    /// Whether a boolean key is true, even one that this server does not know.
    pub fn has_flag(&self, key: &str) -> bool {
        match key {
            RECEIVE_EPHEMERAL => self.receive_ephemeral,
            PUSH_EPHEMERAL => self.push_ephemeral,
            MSC3202 => self.msc3202,
            MSC4190 => self.msc4190,
            _ => self.other.get(key).is_some_and(|v| v == true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read_under_its_name() {
        for key in [
            RECEIVE_EPHEMERAL,
            PUSH_EPHEMERAL,
            MSC3202,
            MSC4190,
            "com.example.flag",
        ] {
            let mut value = serde_json::json!({"id": "a", "url": null, "as_token": "a", "hs_token": "b",
                "sender_localpart": "a", "namespaces": {}});
            let without: Registration =
                serde_json::from_value(value.clone()).expect("a registration");
            value[key] = true.into();
            let with: Registration = serde_json::from_value(value).expect("a registration");
            assert!(with.has_flag(key) && !without.has_flag(key), "{key}");
        }
    }
}
