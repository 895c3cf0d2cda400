//! Which appservices a user, an alias or a room concerns: the namespaces of all registrations, compiled into one set that a
//! commit swaps.
//!
//! No cost grows with the number of users in a namespace: a user id is matched against the patterns. Recent answers are cached;
//! appservices are looked up by id, sender and token in trees.

mod memory;
mod patterns;

use std::collections::BTreeMap;
use std::sync::Arc;

use schema::ServiceId;
use sha2::{Digest, Sha256};

use super::claim::NamespaceClaim;
use super::registration::{Namespace, Registration};
use super::service::{FeaturesInForce, Proposals, Service};
use memory::{ClaimCache, FoundClaims};
use patterns::Patterns;
pub use patterns::{anchored, check_pattern};

/// All present appservices and their compiled namespaces. Immutable: a change of the registrations creates a new one.
#[derive(Debug, Default)]
pub struct Interests {
    server_name: String,
    services: Vec<Arc<Service>>,
    by_id: BTreeMap<ServiceId, u32>,
    /// The index of each appservice by the hash of its token. It is a hash, so that the time of a look-up reveals nothing about the
    /// token.
    by_token: BTreeMap<[u8; 32], u32>,
    by_sender: BTreeMap<String, Vec<u32>>,
    users: Patterns,
    aliases: Patterns,
    rooms: Patterns,
    claims: ClaimCache,
}

/// The appservices that claim a user, each with how it claims the user.
#[derive(Debug)]
pub struct Claims<'a> {
    services: &'a [Arc<Service>],
    found: FoundClaims,
}

impl<'a> IntoIterator for Claims<'a> {
    type Item = (&'a Arc<Service>, NamespaceClaim);
    type IntoIter = ClaimsIter<'a>;

    fn into_iter(self) -> ClaimsIter<'a> {
        ClaimsIter {
            claims: self,
            next: 0,
        }
    }
}

/// The iterator of [`Claims`].
#[derive(Debug)]
pub struct ClaimsIter<'a> {
    claims: Claims<'a>,
    next: usize,
}

impl<'a> Iterator for ClaimsIter<'a> {
    type Item = (&'a Arc<Service>, NamespaceClaim);

    fn next(&mut self) -> Option<Self::Item> {
        let (service, claim) = *self.claims.found.get(self.next)?;
        self.next += 1;
        Some((&self.claims.services[service as usize], claim))
    }
}

impl Interests {
    /// Compile the namespaces of these registrations. The flag says whether the appservice may observe users in its
    /// non-exclusive namespaces.
    ///
    /// # Errors
    /// A pattern is not a regular expression, or all patterns together are too large.
    pub fn compile(
        server_name: &str,
        registrations: Vec<(Registration, bool)>,
        proposals: &Proposals,
    ) -> Result<Interests, String> {
        let services: Vec<Arc<Service>> = registrations
            .into_iter()
            .map(|(registration, observes)| {
                let now = FeaturesInForce::of(&registration, observes, proposals);
                Arc::new(Service {
                    id: registration.id.clone(),
                    sender: format!("@{}:{server_name}", registration.sender_localpart),
                    logs_in: !(registration.msc4190 && proposals.manages_devices),
                    observes: now.observes,
                    takes_to_device: now.to_device,
                    takes_device_lists: now.device_lists,
                    counts: now.counts,
                    account_data: proposals.account_data.filter(|_| now.account_data),
                    own_kinds: proposals.kinds_for(&registration),
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
            claims: ClaimCache::default(),
            by_id,
            by_token,
            by_sender,
            services,
        })
    }

    fn at(&self, service: u32) -> &Arc<Service> {
        &self.services[service as usize]
    }

    /// Every present appservice.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// The appservice with this id, if its registration is in force.
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.by_id.get(id).map(|i| self.at(*i))
    }

    /// The present appservice that authenticates with this token.
    pub fn by_token(&self, as_token: &str) -> Option<&Arc<Service>> {
        // Without appservices there is no need to hash the token.
        if self.by_token.is_empty() {
            return None;
        }
        self.by_token.get(&hash(as_token)).map(|i| self.at(*i))
    }

    // ANCHOR: claims
    /// Every appservice that claims this user, each with how it does. No appservice claims users of other servers.
    pub fn in_user(&self, user_id: &str) -> Claims<'_> {
        Claims {
            services: &self.services,
            found: self.claims_on(user_id),
        }
    }

    /// Whether the namespaces of this appservice contain this user, and how: as its sender, exclusively, or shared.
    pub fn claim(&self, service: &ServiceId, user_id: &str) -> Option<NamespaceClaim> {
        let service = *self.by_id.get(service)?;
        let claims = self.claims_on(user_id);
        let found = claims.binary_search_by_key(&service, |(i, _)| *i);
        found.ok().map(|i| claims[i].1)
    }

    /// The appservices that claim this user, from the cache or matched now.
    fn claims_on(&self, user_id: &str) -> FoundClaims {
        if self.services.is_empty() || !self.is_local(user_id) {
            return FoundClaims::default();
        }
        self.claims.recall(user_id, || self.matched(user_id))
    }

    /// The appservices that claim this user by a pattern, or as their sender. Clause: as.registration.sender
    fn matched(&self, user_id: &str) -> FoundClaims {
        let mut found: Vec<(u32, NamespaceClaim)> = self.users.matches(user_id).collect();
        for service in self.by_sender.get(user_id).into_iter().flatten() {
            match found.binary_search_by_key(service, |(i, _)| *i) {
                Ok(at) => found[at].1 = NamespaceClaim::Sender,
                Err(at) => found.insert(at, (*service, NamespaceClaim::Sender)),
            }
        }
        if found.is_empty() {
            // All users without an appservice share one empty answer.
            return FoundClaims::default();
        }
        found.into()
    }
    // ANCHOR_END: claims

    /// The appservice that claims this user exclusively, if there is one.
    pub fn exclusive_owner(&self, user_id: &str) -> Option<&Arc<Service>> {
        self.in_user(user_id)
            .into_iter()
            .find(|(_, claim)| claim.is_exclusive())
            .map(|(s, _)| s)
    }

    /// Every appservice with a pattern for this alias, and whether the pattern is exclusive.
    pub fn in_alias(&self, alias: &str) -> Vec<(&Arc<Service>, bool)> {
        let matches = self.aliases.matches(alias);
        matches
            .map(|(i, claim)| (self.at(i), claim.is_exclusive()))
            .collect()
    }

    /// Every appservice with a pattern for this room id.
    pub fn in_room_id(&self, room_id: &str) -> Vec<&Arc<Service>> {
        let matches = self.rooms.matches(room_id);
        matches.map(|(i, _)| self.at(i)).collect()
    }

    /// Whether any appservice has alias patterns. If none has, no alias needs to be looked up.
    pub fn has_alias_patterns(&self) -> bool {
        !self.aliases.is_empty()
    }

    /// Whether this user belongs to this server. Clause: as.registration.local-users
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
