//! Which registrations are in force, given what is in the folder and what was in force before.
//!
//! A service is known by its `id`, wherever its file stands. A broken file takes back nothing: the last good version of its
//! service stays in force. What is in force keeps its tokens and its sender against who comes later.

pub(crate) mod parse;

use std::collections::{BTreeMap, BTreeSet};

use schema::ServiceId;
use schema::appservices::ServiceRow;

use super::Problem;
use super::folder::File;
use super::rules::parse::Broken;
use crate::services::{
    InForce, Interests, Namespace, Registration, last_in_force, registration_of,
};

pub use super::rules::parse::parse;

/// What was there before the folder was read.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Every service ever registered and not forgotten.
    pub rows: Vec<ServiceRow>,
    /// Names of broken files that said nothing about any of them.
    pub strangers: BTreeSet<String>,
}

/// A registration, the file that it came from or that keeps it, and what of it is switched on.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// The file's name.
    pub file: String,
    /// The registration.
    pub registration: Registration,
    /// What of it is in force.
    pub in_force: InForce,
}

/// What must be done to bring the registrations in line with the folder.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Registrations in force, in order of id.
    pub in_force: BTreeMap<ServiceId, Held>,
    /// Services whose file is gone.
    pub gone: Vec<ServiceId>,
    /// Services whose registration, or what of it is switched on, is not what it was; or that come (back).
    pub changed: BTreeSet<ServiceId>,
    /// Services whose file has another name now, and that are what they were.
    pub moved: BTreeSet<ServiceId>,
    /// Of the changed services, those whose members and messages are not what they were: to be counted anew and given what they
    /// missed.
    pub recounted: BTreeSet<ServiceId>,
    /// Of these, the services that were not told about device lists for a while.
    pub away: BTreeSet<ServiceId>,
    /// Names of broken files that say nothing about any service.
    pub strangers: BTreeSet<String>,
    /// Files that could not be taken.
    pub problems: Vec<Problem>,
}

/// A version of a service that may come into force.
#[derive(Debug, Clone, PartialEq)]
struct Version {
    file: String,
    registration: Registration,
}

/// What is being worked out.
struct Plans {
    /// The last good version of each service that was present.
    stored: BTreeMap<ServiceId, Version>,
    /// What is going to be in force.
    chosen: BTreeMap<ServiceId, Version>,
    problems: Vec<Problem>,
}

/// Compare the folder with what was known. Files are in order of name.
#[must_use]
pub fn plan(
    files: Vec<File>,
    known: &Known,
    switched_on: &dyn Fn(&Registration) -> InForce,
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
    let strangers = plans.keep(broken, &known.strangers);
    plans.settle("as_token", |r| &r.as_token);
    plans.settle("sender_localpart", |r| &r.sender_localpart);
    plans.compared(known, strangers, switched_on)
}

/// The folder cannot be read: what was in force stays in force.
#[must_use]
pub fn without_folder(
    folder: String,
    why: String,
    known: &Known,
    switched_on: &dyn Fn(&Registration) -> InForce,
) -> Plan {
    let present = known.rows.iter().filter(|row| row.present);
    let all = present.filter_map(|row| Some((row.file.clone(), Ok(registration_of(row)?))));
    let mut plan = plan(all.collect(), known, switched_on);
    plan.strangers.clone_from(&known.strangers);
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
    /// Of the good files with one id, the one that it came from before decides, else the first.
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

    /// Each broken file keeps the services that it was the file of or that it names, unless a good file says what they are.
    /// Answers the names of those that say nothing about any service.
    fn keep(
        &mut self,
        broken: Vec<(String, Broken)>,
        strangers_before: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        let mut strangers = Vec::new();
        // Where two keep the same one, the file that it came from has it.
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
                strangers.push((file, broken));
            } else {
                self.keep_by(&file, broken.why, services);
            }
        }
        self.keep_renamed(strangers, strangers_before)
    }

    /// A service whose file is gone while a broken one has come may have been renamed and broken at once: it is kept, too.
    fn keep_renamed(
        &mut self,
        strangers: Vec<(String, Broken)>,
        strangers_before: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        let mut rest = BTreeSet::new();
        for (file, broken) in strangers {
            let missing = self
                .stored
                .keys()
                .filter(|id| !self.chosen.contains_key(*id));
            let missing: BTreeSet<ServiceId> = missing.cloned().collect();
            // A file that names another service is that one's.
            if missing.is_empty() || broken.id.is_some() || strangers_before.contains(&file) {
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

    /// No two services have the same value here. Who had it before keeps it; else the first file has it. Who does not get it keeps
    /// its last good version, if it has one, which may be in the way of another: so this is repeated.
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

    /// A service that cannot have this value, and the one that has it.
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

    /// What is not as it was.
    fn compared(
        self,
        known: &Known,
        strangers: BTreeSet<String>,
        switched_on: &dyn Fn(&Registration) -> InForce,
    ) -> Plan {
        let mut plan = Plan {
            strangers,
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
                    || in_force.has_more_than(last)
                {
                    plan.recounted.insert(id.clone());
                }
                if in_force.device_lists && !last.device_lists {
                    plan.away.insert(id.clone());
                }
            }
            let held = Held {
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

/// What of a registration decides who its users are and what it is sent about them.
fn interest(r: &Registration) -> (&[Namespace], &str, bool, bool, bool) {
    let users = &r.namespaces.users;
    let (url, to_device) = (r.url.is_some(), r.wants_to_device());
    (users, &r.sender_localpart, url, to_device, r.msc3202)
}

/// The services that `observe` names and that are not registered: most likely misspelt.
#[must_use]
pub fn unknown_observers<'a>(
    observe: Option<&'a [ServiceId]>,
    interests: &Interests,
) -> Vec<&'a ServiceId> {
    let named = observe.unwrap_or_default().iter();
    named.filter(|id| interests.service(id).is_none()).collect()
}

#[cfg(test)]
mod tests;
