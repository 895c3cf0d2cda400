//! Who is interested in whom: every registration's namespaces, compiled into one set that only the writer swaps.
//!
//! Nothing here is proportional to the users of a namespace: a user id is matched against the patterns, never looked up among users.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::{RegexSet, RegexSetBuilder};

use crate::registration::{CountsPolicy, Namespace, Registration, ServiceId};

/// How a namespace claims a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// The service's own user; always exclusive.
    Sender,
    /// The first pattern that matches is exclusive.
    Exclusive,
    /// The first pattern that matches is not exclusive.
    Shared,
}

impl Claim {
    /// Whether nobody else may be this user.
    #[must_use]
    pub fn is_exclusive(self) -> bool {
        self != Claim::Shared
    }
}

/// Which of the proposals, and of this server's own experiments, that fill transactions are switched on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proposals {
    /// MSC4203: to-device messages.
    pub to_device: bool,
    /// MSC3202: device lists and key counts.
    pub device_lists: bool,
    /// Whether a registration may choose of which devices the counts are told: in a development server.
    pub counts_policies: bool,
    /// The experiment: account data to services.
    pub account_data: bool,
}

/// A registered service that is present.
#[derive(Debug)]
pub struct Service {
    /// Its id.
    pub id: ServiceId,
    /// Its own user, a full user id.
    pub sender: String,
    /// Its registration.
    pub registration: Registration,
    /// Whether the administrator lets it see messages to users that it merely observes.
    pub observes: bool,
    /// Whether it is sent to-device messages: a URL, an opt-in flag, the proposal on.
    pub takes_to_device: bool,
    /// Whether it is sent device lists and key counts: a URL, the opt-in flag, the proposal on.
    pub takes_device_lists: bool,
    /// Of which devices it is told key counts.
    pub counts: CountsPolicy,
    /// Whether it is sent account data of its own users: a URL, the opt-in flag, the experiment on.
    pub takes_account_data: bool,
}

impl Service {
    /// Whether anything is ever sent to it.
    #[must_use]
    pub fn is_reachable(&self) -> bool {
        self.registration.url.is_some()
    }
}

/// One kind of pattern of all services, in one set.
#[derive(Debug)]
struct Patterns {
    set: RegexSet,
    /// For each pattern: whose it is (an index into the services) and whether it is exclusive.
    of: Vec<(usize, bool)>,
}

impl Patterns {
    fn compile<'a>(
        all: impl Iterator<Item = (usize, &'a [Namespace])>,
    ) -> Result<Patterns, String> {
        let (mut texts, mut of) = (Vec::new(), Vec::new());
        for (service, list) in all {
            for namespace in list {
                texts.push(anchored(&namespace.regex));
                of.push((service, namespace.exclusive));
            }
        }
        let set = RegexSetBuilder::new(&texts)
            .size_limit(64 << 20)
            .build()
            .map_err(|e| e.to_string().replace('\n', " "))?;
        Ok(Patterns { set, of })
    }

    /// For each service with a matching pattern: whether the first that matches is exclusive.
    fn matches(&self, id: &str) -> Vec<(usize, bool)> {
        if self.of.is_empty() {
            return Vec::new();
        }
        let mut found: Vec<(usize, bool)> = Vec::new();
        for pattern in self.set.matches(id) {
            let (service, exclusive) = self.of[pattern];
            if found.last().is_none_or(|(last, _)| *last != service) {
                found.push((service, exclusive));
            }
        }
        found
    }
}

/// A pattern as it is compiled: registrations are written for engines that match at the start of the id and do not ask for its end.
#[must_use]
pub fn anchored(regex: &str) -> String {
    format!("^(?:{regex})")
}

/// Check one pattern as it will be compiled.
///
/// # Errors
/// A sentence that says what the pattern gets wrong.
pub fn check_pattern(regex: &str) -> Result<(), String> {
    regex::Regex::new(&anchored(regex))
        .map(drop)
        .map_err(|e| e.to_string().replace('\n', " "))
}

/// All present services and their compiled namespaces. Immutable: a change of the registrations makes a new one.
#[derive(Debug, Default)]
pub struct Interests {
    server_name: String,
    services: Vec<Arc<Service>>,
    senders: BTreeMap<String, Vec<usize>>,
    users: Option<Patterns>,
    aliases: Option<Patterns>,
    rooms: Option<Patterns>,
}

impl Interests {
    /// Compile the namespaces of these registrations; the flag says whether a service may observe.
    ///
    /// # Errors
    /// When a pattern is not a regular expression, or all together are too large.
    pub fn compile(
        server_name: &str,
        registrations: Vec<(Registration, bool)>,
        proposals: Proposals,
    ) -> Result<Interests, String> {
        let services: Vec<Arc<Service>> = registrations
            .into_iter()
            .map(|(registration, observes)| {
                Arc::new(Service {
                    id: registration.id.clone(),
                    sender: format!("@{}:{server_name}", registration.sender_localpart),
                    observes,
                    takes_to_device: registration.url.is_some()
                        && registration.wants_to_device()
                        && proposals.to_device,
                    takes_device_lists: registration.url.is_some()
                        && registration.msc3202
                        && proposals.device_lists,
                    counts: registration
                        .counts
                        .filter(|_| proposals.counts_policies)
                        .unwrap_or_default(),
                    takes_account_data: registration.url.is_some()
                        && registration.account_data
                        && proposals.account_data,
                    registration,
                })
            })
            .collect();
        let patterns = |pick: fn(&Registration) -> &[Namespace]| {
            Patterns::compile(
                services
                    .iter()
                    .enumerate()
                    .map(|(i, s)| (i, pick(&s.registration))),
            )
            .map(Some)
        };
        let mut senders: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (i, service) in services.iter().enumerate() {
            senders.entry(service.sender.clone()).or_default().push(i);
        }
        Ok(Interests {
            server_name: server_name.to_owned(),
            users: patterns(|r| &r.namespaces.users)?,
            aliases: patterns(|r| &r.namespaces.aliases)?,
            rooms: patterns(|r| &r.namespaces.rooms)?,
            senders,
            services,
        })
    }

    /// Every present service.
    #[must_use]
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// The present service with this id.
    #[must_use]
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.services.iter().find(|s| s.id == *id)
    }

    /// Every service that claims this user, each with how. Users of other servers are nobody's.
    #[must_use]
    pub fn in_user(&self, user_id: &str) -> Vec<(&Arc<Service>, Claim)> {
        if self.services.is_empty() || !self.is_local(user_id) {
            return Vec::new();
        }
        let mut found: BTreeMap<usize, Claim> = BTreeMap::new();
        for (service, exclusive) in self
            .users
            .as_ref()
            .map(|p| p.matches(user_id))
            .unwrap_or_default()
        {
            found.insert(
                service,
                if exclusive {
                    Claim::Exclusive
                } else {
                    Claim::Shared
                },
            );
        }
        for service in self.senders.get(user_id).into_iter().flatten() {
            found.insert(*service, Claim::Sender);
        }
        found
            .into_iter()
            .map(|(i, claim)| (&self.services[i], claim))
            .collect()
    }

    /// How this service claims this user, if it does.
    #[must_use]
    pub fn claim(&self, service: &ServiceId, user_id: &str) -> Option<Claim> {
        self.in_user(user_id)
            .into_iter()
            .find(|(s, _)| s.id == *service)
            .map(|(_, claim)| claim)
    }

    /// The service that alone may be this user, if there is one.
    #[must_use]
    pub fn exclusive_owner(&self, user_id: &str) -> Option<&Arc<Service>> {
        self.in_user(user_id)
            .into_iter()
            .find(|(_, claim)| claim.is_exclusive())
            .map(|(s, _)| s)
    }

    /// Every service with a pattern for this alias, and whether it is exclusive.
    #[must_use]
    pub fn in_alias(&self, alias: &str) -> Vec<(&Arc<Service>, bool)> {
        let matches = self
            .aliases
            .as_ref()
            .map(|p| p.matches(alias))
            .unwrap_or_default();
        matches
            .into_iter()
            .map(|(i, exclusive)| (&self.services[i], exclusive))
            .collect()
    }

    /// Every service with a pattern for this room id.
    #[must_use]
    pub fn in_room_id(&self, room_id: &str) -> Vec<&Arc<Service>> {
        let matches = self
            .rooms
            .as_ref()
            .map(|p| p.matches(room_id))
            .unwrap_or_default();
        matches
            .into_iter()
            .map(|(i, _)| &self.services[i])
            .collect()
    }

    /// Whether any service has alias patterns at all; without, no alias needs to be looked up.
    #[must_use]
    pub fn has_alias_patterns(&self) -> bool {
        self.aliases.as_ref().is_some_and(|p| !p.of.is_empty())
    }

    /// Whether this user belongs to this server.
    #[must_use]
    pub fn is_local(&self, user_id: &str) -> bool {
        user_id
            .split_once(':')
            .is_some_and(|(_, server)| server == self.server_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(id: &str, sender: &str, users: &[(bool, &str)]) -> (Registration, bool) {
        let users: Vec<_> = users
            .iter()
            .map(|(exclusive, regex)| serde_json::json!({"exclusive": exclusive, "regex": regex}))
            .collect();
        let value = serde_json::json!({"id": id, "url": "http://localhost:1", "as_token": id, "hs_token": id,
            "sender_localpart": sender, "namespaces": {"users": users}, "org.matrix.msc3202": true});
        (
            serde_json::from_value(value).expect("a registration"),
            false,
        )
    }

    fn compiled() -> Interests {
        let all = vec![
            registration(
                "irc",
                "ircbot",
                &[(true, "@irc_.*"), (false, "@irc_open.*")],
            ),
            registration("mirror", "mirror", &[(false, "@.*")]),
        ];
        Interests::compile(
            "test",
            all,
            Proposals {
                to_device: true,
                device_lists: true,
                ..Proposals::default()
            },
        )
        .expect("patterns compile")
    }

    #[test]
    fn claims() {
        let interests = compiled();
        let claims = |user: &str| -> Vec<(String, Claim)> {
            interests
                .in_user(user)
                .into_iter()
                .map(|(s, c)| (s.id.to_string(), c))
                .collect()
        };
        let cases: &[(&str, &[(&str, Claim)])] = &[
            (
                "@irc_bob:test",
                &[("irc", Claim::Exclusive), ("mirror", Claim::Shared)],
            ),
            // The first pattern that matches decides.
            (
                "@irc_open_1:test",
                &[("irc", Claim::Exclusive), ("mirror", Claim::Shared)],
            ),
            (
                "@ircbot:test",
                &[("irc", Claim::Sender), ("mirror", Claim::Shared)],
            ),
            ("@mirror:test", &[("mirror", Claim::Sender)]),
            ("@alice:test", &[("mirror", Claim::Shared)]),
            // Anchored at the start, and only users of this server.
            ("@x@irc_bob:test", &[("mirror", Claim::Shared)]),
            ("@irc_bob:elsewhere", &[]),
        ];
        for (user, expected) in cases {
            let expected: Vec<_> = expected
                .iter()
                .map(|(id, claim)| ((*id).to_owned(), *claim))
                .collect();
            assert_eq!(claims(user), expected, "{user}");
        }
    }

    #[test]
    fn a_pattern_is_checked_as_it_is_compiled() {
        assert!(check_pattern("@irc_.*").is_ok());
        assert!(check_pattern("@irc_(").is_err());
    }

    #[test]
    fn url_must_be_present_but_may_be_null() {
        let without = serde_json::json!({"id": "a", "as_token": "a", "hs_token": "a", "sender_localpart": "a", "namespaces": {}});
        assert!(serde_json::from_value::<Registration>(without.clone()).is_err());
        let mut null = without;
        null["url"] = serde_json::Value::Null;
        assert!(serde_json::from_value::<Registration>(null).is_ok_and(|r| r.url.is_none()));
    }
}
