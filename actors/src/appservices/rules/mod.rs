//! Which registrations are in force, given the content of the folder and what was in force before.
//!
//! An appservice is identified by its `id`, whatever the name of its file. A broken file withdraws no registration: the last
//! valid version stays in force. A registration in force keeps its tokens and its sender if a later one claims the same.

pub(crate) mod parse;

use std::collections::{BTreeMap, BTreeSet};

use schema::ServiceId;
use schema::appservices::ServiceRow;

use super::Problem;
use super::folder::File;
use super::rules::parse::Broken;
use crate::services::{
    FeaturesInForce, Interests, Namespace, Registration, last_in_force, registration_of,
};

pub use super::rules::parse::parse;

/// What was stored before the folder was read.
#[derive(Debug, Clone, Default)]
pub struct StoredRegistrations {
    /// Every appservice that was ever registered and not deleted.
    pub rows: Vec<ServiceRow>,
    /// The names of broken files that belong to no known appservice.
    pub unidentified: BTreeSet<String>,
}

/// A registration, its file (or the broken file that keeps it in force), and its features in force.
#[derive(Debug, Clone, PartialEq)]
pub struct RegistrationInForce {
    /// The name of the file.
    pub file: String,
    /// The registration.
    pub registration: Registration,
    /// The features of the registration that are in force.
    pub in_force: FeaturesInForce,
}

/// The changes that bring the registrations in line with the folder. Clause: own.registration.away
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Registrations in force, in order of id.
    pub in_force: BTreeMap<ServiceId, RegistrationInForce>,
    /// Appservices whose file is gone.
    pub gone: Vec<ServiceId>,
    /// Appservices that are new or back, or whose registration or features in force have changed.
    pub changed: BTreeSet<ServiceId>,
    /// Appservices whose registration file was renamed without any other change.
    pub moved: BTreeSet<ServiceId>,
    /// The changed appservices whose users or messages may be different: their members are counted again, and they are
    /// back-filled.
    pub recounted: BTreeSet<ServiceId>,
    /// Those of the recounted appservices that received no device lists for a while.
    pub away: BTreeSet<ServiceId>,
    /// The names of broken files that belong to no known appservice.
    pub unidentified: BTreeSet<String>,
    /// Files that were refused.
    pub problems: Vec<Problem>,
}

/// A valid registration that may come into force, and the name of its file.
#[derive(Debug, Clone, PartialEq)]
struct Version {
    file: String,
    registration: Registration,
}

/// An unfinished [`Plan`].
struct Plans {
    /// The stored registration of each appservice whose file was present.
    stored: BTreeMap<ServiceId, Version>,
    /// The registrations that were chosen to be in force so far.
    chosen: BTreeMap<ServiceId, Version>,
    problems: Vec<Problem>,
}

/// Compare the folder with what is stored. The files are in order of name. Clause: own.registration.broken-file
pub fn plan(
    files: Vec<File>,
    known: &StoredRegistrations,
    switched_on: &dyn Fn(&Registration) -> FeaturesInForce,
) -> Plan {
    let stored = known.rows.iter().filter(|row| row.present);
    let stored = stored.filter_map(|row| {
        let (file, registration) = (row.file.clone(), registration_of(row)?);
        Some((registration.id.clone(), Version { file, registration }))
    });
    let mut plans = Plans {
        stored: stored.collect(),
        chosen: BTreeMap::new(),
        problems: Vec::new(),
    };
    let (mut good, mut broken) = (BTreeMap::new(), Vec::new());
    for (file, read) in files {
        match read {
            Ok(registration) => {
                let versions: &mut Vec<Version> = good.entry(registration.id.clone()).or_default();
                versions.push(Version { file, registration });
            }
            Err(why) => broken.push((file, why)),
        }
    }
    for (id, versions) in good {
        plans.choose(id, versions);
    }
    let unidentified = plans.keep(broken, &known.unidentified);
    plans.settle("as_token", |r| &r.as_token);
    plans.settle("sender_localpart", |r| &r.sender_localpart);
    plans.compared(known, unidentified, switched_on)
}

/// The plan if the folder cannot be read: everything in force stays in force.
pub fn without_folder(
    folder: String,
    why: String,
    known: &StoredRegistrations,
    switched_on: &dyn Fn(&Registration) -> FeaturesInForce,
) -> Plan {
    let present = known.rows.iter().filter(|row| row.present);
    let all = present.filter_map(|row| Some((row.file.clone(), Ok(registration_of(row)?))));
    let mut plan = plan(all.collect(), known, switched_on);
    plan.unidentified.clone_from(&known.unidentified);
    let kept: Vec<ServiceId> = plan.in_force.keys().cloned().collect();
    let instead = if kept.is_empty() {
        "no service is in force until it can be read".to_owned()
    } else {
        format!("what was in force stays in force: {}", quoted(&kept))
    };
    plan.problems.push(Problem {
        file: folder,
        why,
        instead,
        kept,
    });
    plan
}

impl Plans {
    /// Choose the file to use if several valid files have the same appservice id: the file from which the stored registration came,
    /// or else the first in order of name. The others become problems. Clause: as.registration.unique-id
    fn choose(&mut self, id: ServiceId, mut versions: Vec<Version>) {
        let before = self.stored.get(&id);
        let first = versions
            .iter()
            .position(|v| before.is_some_and(|b| b.file == v.file));
        let chosen = versions.remove(first.unwrap_or(0));
        for other in versions {
            self.problems.push(Problem {
                file: other.file,
                why: format!("id {:?} is taken by {}", id.as_str(), chosen.file),
                instead: "that one is in force".to_owned(),
                kept: Vec::new(),
            });
        }
        self.chosen.insert(id, chosen);
    }

    /// A broken file keeps the appservices in force that it was the file of, or whose id it contains, unless a valid file has
    /// their id. Returns the names of the broken files that belong to no appservice.
    fn keep(
        &mut self,
        broken: Vec<(String, Broken)>,
        unidentified_before: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        let mut unidentified = Vec::new();
        // If two broken files would keep the same appservice, its former file does.
        let (theirs, others): (Vec<_>, Vec<_>) = broken
            .into_iter()
            .partition(|(file, _)| self.stored.values().any(|v| v.file == *file));
        for (file, broken) in theirs.into_iter().chain(others) {
            let mut services: BTreeSet<ServiceId> = self
                .stored
                .iter()
                .filter(|(_, version)| version.file == file)
                .map(|(id, _)| id.clone())
                .collect();
            services.extend(
                broken
                    .id
                    .clone()
                    .filter(|id| self.stored.contains_key(id) || self.chosen.contains_key(id)),
            );
            if services.is_empty() {
                unidentified.push((file, broken));
            } else {
                self.keep_by(&file, broken.why, services);
            }
        }
        self.keep_renamed(unidentified, unidentified_before)
    }

    /// If the file of an appservice is gone while a broken file is new, the file may have been renamed and broken at the same time:
    /// keep the appservice in force.
    fn keep_renamed(
        &mut self,
        unidentified: Vec<(String, Broken)>,
        unidentified_before: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        let mut rest = BTreeSet::new();
        for (file, broken) in unidentified {
            let missing = self
                .stored
                .keys()
                .filter(|id| !self.chosen.contains_key(*id));
            let missing: BTreeSet<ServiceId> = missing.cloned().collect();
            // A file with the id of another appservice belongs to that one.
            if missing.is_empty() || broken.id.is_some() || unidentified_before.contains(&file) {
                self.problems.push(Problem {
                    file: file.clone(),
                    why: broken.why,
                    instead: "nothing is in force from it".to_owned(),
                    kept: Vec::new(),
                });
                rest.insert(file);
            } else {
                self.keep_by(&file, broken.why, missing);
            }
        }
        rest
    }

    fn keep_by(&mut self, file: &str, why: String, services: BTreeSet<ServiceId>) {
        let (mut kept, mut instead) = (Vec::new(), Vec::new());
        for id in services {
            match (self.chosen.get(&id), self.stored.get(&id)) {
                (None, Some(before)) => {
                    let version = Version {
                        file: file.to_owned(),
                        registration: before.registration.clone(),
                    };
                    self.chosen.insert(id.clone(), version);
                    kept.push(id);
                }
                (Some(other), _) => {
                    instead.push(format!("{:?} is in force from {}", id.as_str(), other.file));
                }
                (None, None) => {}
            }
        }
        if !kept.is_empty() {
            let stays = format!("the last good version of {} stays in force", quoted(&kept));
            instead.insert(0, stays);
        }
        self.problems.push(Problem {
            file: file.to_owned(),
            why,
            instead: instead.join("; "),
            kept,
        });
    }

    /// Make sure that no two appservices have the same value, such as a token. The appservice that had the value before keeps it;
    /// if none had it, the first file gets it. The other appservice keeps its last valid registration, if there is one. That
    /// registration may conflict with a third appservice, so this is repeated. Clause: as.registration.unique-token
    fn settle(&mut self, what: &str, value: fn(&Registration) -> &String) {
        while let Some((loser, winner)) = self.conflict(value) {
            let Some(refused) = self.chosen.remove(&loser) else {
                return;
            };
            let before = self.stored.get(&loser);
            let instead = match before {
                Some(_) => format!(
                    "the last good version of {:?} stays in force",
                    loser.as_str()
                ),
                None => "nothing is in force from it".to_owned(),
            };
            self.problems.push(Problem {
                file: refused.file.clone(),
                why: format!("its {what} is that of {:?}", winner.as_str()),
                instead,
                kept: before.iter().map(|_| loser.clone()).collect(),
            });
            if let Some(before) = before {
                let version = Version {
                    file: refused.file,
                    registration: before.registration.clone(),
                };
                self.chosen.insert(loser, version);
            }
        }
    }

    /// An appservice whose value another appservice has already, and that other appservice.
    fn conflict(&self, value: fn(&Registration) -> &String) -> Option<(ServiceId, ServiceId)> {
        let had = |id: &ServiceId, wanted: &String| {
            let before = self.stored.get(id);
            before.is_some_and(|b| value(&b.registration) == wanted)
        };
        let mut by_value: BTreeMap<&String, Vec<(&ServiceId, &Version)>> = BTreeMap::new();
        for (id, version) in &self.chosen {
            let same = by_value.entry(value(&version.registration)).or_default();
            same.push((id, version));
        }
        by_value.into_iter().find_map(|(wanted, mut same)| {
            same.sort_by_key(|(id, version)| (!had(id, wanted), &version.file));
            let (winner, _) = same.first()?;
            let (loser, _) = same.iter().skip(1).find(|(id, _)| !had(id, wanted))?;
            Some(((*loser).clone(), (*winner).clone()))
        })
    }

    /// Compare the chosen registrations with the stored ones.
    fn compared(
        self,
        known: &StoredRegistrations,
        unidentified: BTreeSet<String>,
        switched_on: &dyn Fn(&Registration) -> FeaturesInForce,
    ) -> Plan {
        let mut plan = Plan {
            unidentified,
            problems: self.problems,
            ..Plan::default()
        };
        plan.problems.sort_by(|a, b| a.file.cmp(&b.file));
        for row in known.rows.iter().filter(|row| row.present) {
            let id = ServiceId::from(row.appservice_id.as_str());
            if !self.chosen.contains_key(&id) {
                plan.gone.push(id);
            }
        }
        for (id, Version { file, registration }) in self.chosen {
            let in_force = switched_on(&registration);
            let row = known
                .rows
                .iter()
                .find(|row| row.appservice_id == id.as_str());
            let before = self.stored.get(&id).map(|before| &before.registration);
            let last = row.filter(|_| before.is_some()).and_then(last_in_force);
            if before == Some(&registration)
                && last.as_ref().is_some_and(|l| l.in_force == in_force)
            {
                if row.is_some_and(|row| row.file != file) {
                    plan.moved.insert(id.clone());
                }
            } else {
                plan.changed.insert(id.clone());
                let last = last.unwrap_or_default().in_force;
                if before.map(interest) != Some(interest(&registration))
                    || in_force.has_more_than(&last)
                {
                    plan.recounted.insert(id.clone());
                }
                if in_force.device_lists && !last.device_lists {
                    plan.away.insert(id.clone());
                }
            }
            let held = RegistrationInForce {
                file,
                registration,
                in_force,
            };
            plan.in_force.insert(id, held);
        }
        plan
    }
}

fn quoted(ids: &[ServiceId]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| format!("{:?}", id.as_str())).collect();
    ids.join(", ")
}

/// The parts of a registration that decide which users belong to the appservice and what it receives about them.
fn interest(r: &Registration) -> (&[Namespace], &str, bool, bool, bool) {
    let users = &r.namespaces.users;
    let (url, to_device) = (r.url.is_some(), r.wants_to_device());
    (users, &r.sender_localpart, url, to_device, r.msc3202)
}

/// The appservices in `observe` that are not registered, probably because of a typing error.
pub fn unknown_observers<'a>(
    observe: Option<&'a [ServiceId]>,
    interests: &Interests,
) -> Vec<&'a ServiceId> {
    let named = observe.unwrap_or_default().iter();
    named.filter(|id| interests.service(id).is_none()).collect()
}

#[cfg(test)]
mod tests;
