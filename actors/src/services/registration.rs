//! What a registration file says, unknown keys kept aside. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/application-service-api/#registration

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use schema::ServiceId;

/// Asks for typing, receipts and presence under their stable name.
pub const RECEIVE_EPHEMERAL: &str = "receive_ephemeral";
/// Asks for the same under the name before.
pub const PUSH_EPHEMERAL: &str = "de.sorunome.msc2409.push_ephemeral";
/// Asks for device-list changes and key counts.
pub const MSC3202: &str = "org.matrix.msc3202";
/// Promises to make devices with `PUT /devices` and not to log in.
pub const MSC4190: &str = "io.element.msc4190";

/// One pattern of a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Whether the service alone may create what matches.
    pub exclusive: bool,
    /// A regular expression, anchored at the start and not at the end, as registrations in the wild expect.
    pub regex: String,
}

/// The three lists of patterns.
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

/// Of which devices a transaction tells the key counts. [`CountsPolicy::Recipients`] unless a service of a development server
/// chooses by `org.understudy.counts`, so that the three can be compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CountsPolicy {
    /// Those whose counts changed, those that receive a message in it, and the sender's own.
    #[default]
    Recipients,
    /// Those whose counts changed.
    Changed,
    /// Every device with keys that the service decides over, in every transaction: costs in proportion to all of them.
    Always,
}

/// A registration as it stands in its file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Unique id of the service.
    pub id: ServiceId,
    /// Where transactions go. The key must be there; `null` means that nothing is ever sent.
    #[serde(deserialize_with = "Option::deserialize")]
    pub url: Option<String>,
    /// What the service authenticates with towards the server.
    pub as_token: String,
    /// What the server authenticates with towards the service.
    pub hs_token: String,
    /// The localpart of the service's own user.
    pub sender_localpart: String,
    /// What the service is interested in.
    pub namespaces: Namespaces,
    /// Whether the service's users (not its sender) are rate-limited; default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limited: Option<bool>,
    /// Third-party protocols the service offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<String>>,
    /// Typing, receipts, presence in transactions, under the stable name. (v1.13)
    #[serde(default)]
    pub receive_ephemeral: bool,
    /// The same under the name before it was stable.
    #[serde(default, rename = "de.sorunome.msc2409.push_ephemeral")]
    pub push_ephemeral: bool,
    /// Device-list changes and key counts in transactions.
    #[serde(default, rename = "org.matrix.msc3202")]
    pub msc3202: bool,
    /// The service creates devices with `PUT /devices` and promises not to log in.
    #[serde(default, rename = "io.element.msc4190")]
    pub msc4190: bool,
    /// Of which devices it wants to be told key counts: this server's own key, for comparison, read by a development server only.
    #[serde(
        default,
        rename = "org.understudy.counts",
        skip_serializing_if = "Option::is_none"
    )]
    pub counts: Option<CountsPolicy>,
    /// Keys this server does not know; proposals read theirs here.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The tokens stay out of every log.
        f.debug_struct("Registration")
            .field("id", &self.id)
            .field("url", &self.url)
            .field("sender_localpart", &self.sender_localpart)
            .finish_non_exhaustive()
    }
}

impl Registration {
    /// Whether the service asked for to-device messages: any of the three opt-in flags in use. (MSC4203 has none of its own.)
    #[must_use]
    pub fn wants_to_device(&self) -> bool {
        self.receive_ephemeral || self.push_ephemeral || self.msc3202
    }

    /// The patterns of users that are not the service's alone: a user that matches only these is merely observed.
    #[must_use]
    pub fn shared_users(&self) -> Vec<&str> {
        let users = self.namespaces.users.iter();
        users
            .filter(|n| !n.exclusive)
            .map(|n| n.regex.as_str())
            .collect()
    }

    /// Where to send `path` (which begins with `/_matrix`), or `None` when the service has no URL.
    #[must_use]
    pub fn endpoint(&self, path: &str) -> Option<String> {
        self.url
            .as_ref()
            .map(|url| format!("{}{path}", url.trim_end_matches('/')))
    }

    /// The keys that ask for something: those that say yes and either ask for ephemeral data or are a proposal's.
    #[must_use]
    pub fn opted_in(&self) -> Vec<String> {
        let own = [RECEIVE_EPHEMERAL, PUSH_EPHEMERAL, MSC3202, MSC4190];
        let others = self.other.keys().map(String::as_str);
        let mut keys: Vec<String> = own
            .into_iter()
            .chain(others.filter(|key| key.contains('.')))
            .filter(|key| self.says(key))
            .map(ToOwned::to_owned)
            .collect();
        keys.sort_unstable();
        keys
    }

    /// Whether a key that says yes or no says yes, also one that this server does not know.
    #[must_use]
    pub fn says(&self, key: &str) -> bool {
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
            assert!(with.says(key) && !without.says(key), "{key}");
        }
    }
}
