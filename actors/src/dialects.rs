//! Counts which names each appservice uses and receives, where a name has a stable form and an older one.
//!
//! The counts start with the server and are kept in memory only. The counted names come from tables and from the prefixes of
//! paths that have a route, so there are few of them. Counting a known name costs a look-up and no allocation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::services::Registration;

use schema::ServiceId;
use serde::Serialize;

/// The most names counted for one topic, far more than the tables hold.
const NAMES: usize = 64;

/// What a counted name belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Topic {
    /// The API version, as the prefix of a path.
    Path,
    /// How the access token is passed.
    Token,
    /// The query parameter that names the device on which an appservice acts.
    Device,
    /// The login or registration type that an appservice uses.
    Login,
    /// A key of a transaction. The server sends it; every other topic counts what appservices use.
    Transaction,
}

/// The number of uses, by topic and name.
type NameCounts = BTreeMap<Topic, BTreeMap<Box<str>, u64>>;

/// The dialects of all appservices; clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct Dialects(Arc<Mutex<BTreeMap<ServiceId, NameCounts>>>);

/// The names that one appservice uses and receives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dialect {
    /// The id of the appservice.
    pub service: ServiceId,
    /// The keys of its registration that opt in to a feature.
    pub registration: Vec<String>,
    /// The names that it used in its requests, with the number of uses.
    pub used: NameCounts,
    /// The keys of its transactions, with the number of transactions that had each. Retries of a transaction do not count.
    pub sent: BTreeMap<Box<str>, u64>,
}

impl Dialects {
    // ANCHOR: count
    /// Count one use of each of these names by the appservice, or one transaction key sent to it.
    pub fn count<'a>(
        &self,
        service: &ServiceId,
        names: impl IntoIterator<Item = (Topic, &'a str)>,
    ) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(service) {
            all.insert(service.clone(), NameCounts::new());
        }
        let Some(counts) = all.get_mut(service) else {
            return;
        };
        for (topic, name) in names {
            let known = counts.entry(topic).or_default();
            if let Some(count) = known.get_mut(name) {
                *count += 1;
            } else if known.len() < NAMES {
                known.insert(name.into(), 1);
                tracing::debug!(%service, ?topic, name, "first use of a name");
            }
        }
    }
    // ANCHOR_END: count

    /// The names, stable or unstable, that an appservice has used and was sent since the server started.
    pub fn of(&self, registration: &Registration) -> Dialect {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used = all.get(&registration.id).cloned().unwrap_or_default();
        let sent = used.remove(&Topic::Transaction).unwrap_or_default();
        Dialect {
            service: registration.id.clone(),
            registration: registration.opted_in(),
            used,
            sent,
        }
    }
}

/// The prefix of a client-server API path up to its version. For an unstable path it includes the name of the proposal.
pub fn version(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/_matrix/client/")?;
    let mut segments = rest.split('/');
    let version = segments.next()?;
    let length = match (version, segments.next()) {
        ("unstable", Some(proposal)) => version.len() + 1 + proposal.len(),
        _ => version.len(),
    };
    path.get(..path.len() - rest.len() + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Registration {
        serde_json::from_value(serde_json::json!({"id": "irc", "url": null, "as_token": "a", "hs_token": "h",
            "sender_localpart": "bot", "namespaces": {}, "org.matrix.msc3202": true, "com.example.flag": true, "rate_limited": true}))
        .expect("a registration")
    }

    #[test]
    fn each_name_is_counted_by_itself() {
        let (dialects, irc) = (Dialects::default(), service());
        dialects.count(
            &irc.id,
            [(Topic::Device, "a"), (Topic::Path, "a"), (Topic::Path, "b")],
        );
        dialects.count(
            &irc.id,
            [(Topic::Path, "a"), (Topic::Transaction, "events")],
        );
        dialects.count(&"other".into(), [(Topic::Path, "a")]);
        let expected = serde_json::json!({
            "service": "irc", "registration": ["com.example.flag", "org.matrix.msc3202"],
            "used": {"path": {"a": 2, "b": 1}, "device": {"a": 1}}, "sent": {"events": 1},
        });
        assert_eq!(
            serde_json::to_value(dialects.of(&irc)).expect("JSON"),
            expected
        );
    }

    #[test]
    fn unexpected_names_do_not_fill_the_memory() {
        let (dialects, irc) = (Dialects::default(), service());
        for n in 0..1000 {
            dialects.count(&irc.id, [(Topic::Path, n.to_string().as_str())]);
        }
        assert_eq!(dialects.of(&irc).used[&Topic::Path].len(), NAMES);
    }

    #[test]
    fn the_version_of_a_path_is_found() {
        let cases = [
            ("/_matrix/client/v3/sync", Some("/_matrix/client/v3")),
            ("/_matrix/client/r0/rooms/a/b", Some("/_matrix/client/r0")),
            ("/_matrix/client/versions", Some("/_matrix/client/versions")),
            (
                "/_matrix/client/unstable/org.matrix.msc4190/devices",
                Some("/_matrix/client/unstable/org.matrix.msc4190"),
            ),
            ("/_matrix/client/unstable", Some("/_matrix/client/unstable")),
            ("/_understudy/messages", None),
        ];
        for (path, expected) in cases {
            assert_eq!(version(path), expected, "{path}");
        }
    }
}
