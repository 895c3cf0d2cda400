//! Which names each service uses and was sent, where there is a stable one and one before: counted since the server started.
//!
//! In memory only. What is counted are names from tables and the beginnings of paths that have a route, so there are few; a name
//! that is known costs a look-up and no allocation.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::services::Registration;

use schema::ServiceId;
use serde::Serialize;

/// Names of one topic that are counted, far above what the tables hold.
const NAMES: usize = 64;

/// What a name is a name for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Topic {
    /// The version of the API: how a path begins.
    Path,
    /// Where the access token stands.
    Token,
    /// The query parameter that names the device that a service acts on.
    Device,
    /// The way in which a service logs in or registers.
    Login,
    /// The key of a transaction. Said by the server; all others are used by the service.
    Transaction,
}

/// How often, by topic and name.
type Counts = BTreeMap<Topic, BTreeMap<Box<str>, u64>>;

/// The dialects of all services; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Dialects(Arc<Mutex<BTreeMap<ServiceId, Counts>>>);

/// One service's dialect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dialect {
    /// Whose.
    pub service: ServiceId,
    /// The keys with which its registration asks for something.
    pub registration: Vec<String>,
    /// What it used in its requests, and how often.
    pub used: Counts,
    /// The keys of its transactions, and in how many each was; a transaction counts once, however often it is tried.
    pub sent: BTreeMap<Box<str>, u64>,
}

impl Dialects {
    // ANCHOR: count
    /// Count that a service used, or was sent, these names.
    pub fn count<'a>(
        &self,
        service: &ServiceId,
        names: impl IntoIterator<Item = (Topic, &'a str)>,
    ) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(service) {
            all.insert(service.clone(), Counts::new());
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
                tracing::debug!(%service, ?topic, name, "a name is spoken for the first time");
            }
        }
    }
    // ANCHOR_END: count

    /// What is known of a service's dialect.
    #[must_use]
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

/// How a path of the client-server API begins, up to its version; an unstable one names its proposal.
#[must_use]
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
    fn names_that_nobody_expected_do_not_fill_the_memory() {
        let (dialects, irc) = (Dialects::default(), service());
        for n in 0..1000 {
            dialects.count(&irc.id, [(Topic::Path, n.to_string().as_str())]);
        }
        assert_eq!(dialects.of(&irc).used[&Topic::Path].len(), NAMES);
    }

    #[test]
    fn a_path_says_its_version() {
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
