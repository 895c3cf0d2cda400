//! Who is interested in whom: every registration's namespaces, compiled into one set that only the writer swaps.
//!
//! Nothing here is proportional to the users of a namespace: a user id is matched against the patterns, never looked up among users.
//! What was answered lately is remembered, within bounds; the services are found by id, by sender and by token in trees.

mod memory;
mod patterns;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ServiceId;
use crate::owed;
use crate::registration::{CountsPolicy, Namespace, Registration};
use memory::{Answer, Memory};
use patterns::Patterns;
pub use patterns::{anchored, check_pattern};

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

/// What of a registration is in force: what it asks for, as far as this start of the server has it switched on. Kept with the
/// service, so that a start that switches something on or off is a change of its registration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InForce {
    /// Whether it is sent to-device messages: a URL, an opt-in flag, the proposal on.
    pub to_device: bool,
    /// Whether it is sent device lists and key counts: a URL, the opt-in flag, the proposal on.
    pub device_lists: bool,
    /// Whether it is sent account data of its own users: a URL, the opt-in flag, the experiment on.
    pub account_data: bool,
    /// Whether the administrator lets it see messages to users that it merely observes.
    pub observes: bool,
    /// Of which devices it is told key counts.
    pub counts: CountsPolicy,
}

impl InForce {
    /// What is in force of a registration, given what is switched on and whether the service may observe.
    #[must_use]
    pub fn of(registration: &Registration, observes: bool, on: Proposals) -> InForce {
        let reachable = registration.url.is_some();
        let counts = registration.counts.filter(|_| on.counts_policies);
        InForce {
            to_device: reachable && registration.wants_to_device() && on.to_device,
            device_lists: reachable && registration.msc3202 && on.device_lists,
            account_data: reachable && registration.account_data && on.account_data,
            observes,
            counts: counts.unwrap_or_default(),
        }
    }

    /// Whether a kind of what is owed is on that was off: what was missed meanwhile has to be given later.
    #[must_use]
    pub fn has_more_than(self, before: InForce) -> bool {
        (self.to_device && !before.to_device)
            || (self.device_lists && !before.device_lists)
            || (self.account_data && !before.account_data)
    }
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

    /// Whether what it is owed of this kind is sent to it now.
    #[must_use]
    pub fn takes(&self, kind: &str) -> bool {
        match kind {
            owed::EVENT => self.is_reachable(),
            owed::TO_DEVICE | owed::OBSERVED => self.takes_to_device,
            owed::GRANTED => self.takes_to_device && self.observes,
            owed::DEVICE_LIST | owed::COUNT => self.takes_device_lists,
            owed::ACCOUNT_DATA => self.takes_account_data,
            _ => false,
        }
    }

    /// The kinds of what is sent to it now.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static str> {
        let all = [
            owed::EVENT,
            owed::TO_DEVICE,
            owed::OBSERVED,
            owed::GRANTED,
            owed::DEVICE_LIST,
            owed::COUNT,
            owed::ACCOUNT_DATA,
        ];
        all.into_iter().filter(|kind| self.takes(kind)).collect()
    }
}

/// All present services and their compiled namespaces. Immutable: a change of the registrations makes a new one.
#[derive(Debug, Default)]
pub struct Interests {
    server_name: String,
    services: Vec<Arc<Service>>,
    by_id: BTreeMap<ServiceId, u32>,
    /// By the hash of the token: how long a look-up takes tells nothing about the token.
    by_token: BTreeMap<[u8; 32], u32>,
    by_sender: BTreeMap<String, Vec<u32>>,
    users: Patterns,
    aliases: Patterns,
    rooms: Patterns,
    claims: Memory,
}

/// The services that claim a user, each with how.
#[derive(Debug)]
pub struct Claims<'a> {
    services: &'a [Arc<Service>],
    found: Answer,
}

impl<'a> IntoIterator for Claims<'a> {
    type Item = (&'a Arc<Service>, Claim);
    type IntoIter = ClaimsIter<'a>;

    fn into_iter(self) -> ClaimsIter<'a> {
        ClaimsIter {
            claims: self,
            next: 0,
        }
    }
}

/// One after the other of [`Claims`].
#[derive(Debug)]
pub struct ClaimsIter<'a> {
    claims: Claims<'a>,
    next: usize,
}

impl<'a> Iterator for ClaimsIter<'a> {
    type Item = (&'a Arc<Service>, Claim);

    fn next(&mut self) -> Option<Self::Item> {
        let (service, claim) = *self.claims.found.get(self.next)?;
        self.next += 1;
        Some((&self.claims.services[service as usize], claim))
    }
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
                let now = InForce::of(&registration, observes, proposals);
                Arc::new(Service {
                    id: registration.id.clone(),
                    sender: format!("@{}:{server_name}", registration.sender_localpart),
                    observes: now.observes,
                    takes_to_device: now.to_device,
                    takes_device_lists: now.device_lists,
                    counts: now.counts,
                    takes_account_data: now.account_data,
                    registration,
                })
            })
            .collect();
        let patterns = |pick: fn(&Registration) -> &[Namespace]| {
            Patterns::compile((0..).zip(services.iter().map(|s| pick(&s.registration))))
        };
        let (mut by_id, mut by_token) = (BTreeMap::new(), BTreeMap::new());
        let mut by_sender: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (i, service) in (0..).zip(&services) {
            by_id.entry(service.id.clone()).or_insert(i);
            let token = hash(&service.registration.as_token);
            by_token.entry(token).or_insert(i);
            by_sender.entry(service.sender.clone()).or_default().push(i);
        }
        Ok(Interests {
            server_name: server_name.to_owned(),
            users: patterns(|r| &r.namespaces.users)?,
            aliases: patterns(|r| &r.namespaces.aliases)?,
            rooms: patterns(|r| &r.namespaces.rooms)?,
            claims: Memory::default(),
            by_id,
            by_token,
            by_sender,
            services,
        })
    }

    fn at(&self, service: u32) -> &Arc<Service> {
        &self.services[service as usize]
    }

    /// Every present service.
    #[must_use]
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// The present service with this id.
    #[must_use]
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.by_id.get(id).map(|i| self.at(*i))
    }

    /// The present service that authenticates with this token.
    #[must_use]
    pub fn by_token(&self, as_token: &str) -> Option<&Arc<Service>> {
        // Where there are no services, nobody's token is hashed for nothing.
        if self.by_token.is_empty() {
            return None;
        }
        self.by_token.get(&hash(as_token)).map(|i| self.at(*i))
    }

    // ANCHOR: claims
    /// Every service that claims this user, each with how. Users of other servers are nobody's.
    #[must_use]
    pub fn in_user(&self, user_id: &str) -> Claims<'_> {
        Claims {
            services: &self.services,
            found: self.claims_on(user_id),
        }
    }

    /// How this service claims this user, if it does.
    #[must_use]
    pub fn claim(&self, service: &ServiceId, user_id: &str) -> Option<Claim> {
        let service = *self.by_id.get(service)?;
        let claims = self.claims_on(user_id);
        let found = claims.binary_search_by_key(&service, |(i, _)| *i);
        found.ok().map(|i| claims[i].1)
    }

    /// Who claims this user: from memory, or matched now.
    fn claims_on(&self, user_id: &str) -> Answer {
        if self.services.is_empty() || !self.is_local(user_id) {
            return Answer::default();
        }
        self.claims.recall(user_id, || self.matched(user_id))
    }

    /// Who claims this user: the patterns, and whose sender it is.
    fn matched(&self, user_id: &str) -> Answer {
        let mut found: Vec<(u32, Claim)> = self.users.matches(user_id).collect();
        for service in self.by_sender.get(user_id).into_iter().flatten() {
            match found.binary_search_by_key(service, |(i, _)| *i) {
                Ok(at) => found[at].1 = Claim::Sender,
                Err(at) => found.insert(at, (*service, Claim::Sender)),
            }
        }
        if found.is_empty() {
            // The many who are nobody's share one answer.
            return Answer::default();
        }
        found.into()
    }
    // ANCHOR_END: claims

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
        let matches = self.aliases.matches(alias);
        matches
            .map(|(i, claim)| (self.at(i), claim.is_exclusive()))
            .collect()
    }

    /// Every service with a pattern for this room id.
    #[must_use]
    pub fn in_room_id(&self, room_id: &str) -> Vec<&Arc<Service>> {
        let matches = self.rooms.matches(room_id);
        matches.map(|(i, _)| self.at(i)).collect()
    }

    /// Whether any service has alias patterns at all; without, no alias needs to be looked up.
    #[must_use]
    pub fn has_alias_patterns(&self) -> bool {
        !self.aliases.is_empty()
    }

    /// Whether this user belongs to this server.
    #[must_use]
    pub fn is_local(&self, user_id: &str) -> bool {
        user_id
            .split_once(':')
            .is_some_and(|(_, server)| server == self.server_name)
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests;
