//! One reading of the folder: reads the files, decides what is to be in force, and brings it into force. Files are read and
//! patterns compiled on a separate thread, so the actors go on meanwhile.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schema::ServiceId;
use schema::{appservices, server_info};

use super::change::{self, Change, UNIDENTIFIED};
use super::folder::{self, File};
use super::rules::parse::Broken;
use super::rules::{self, Plan, StoredRegistrations};
use crate::services::{
    CarriesInterests, FeaturesInForce, Interests, Registration, registration_of,
};
use crate::{Env, Error, Result, Settings};

/// The result of reading the folder.
pub(super) struct ReadingResult {
    pub(super) plan: Arc<Plan>,
    /// Whether the registrations in force have changed.
    pub(super) is_new: bool,
    /// Whether the folder could be read.
    pub(super) folder_was_read: bool,
}

/// A plan, with its interests if they had to be compiled.
struct PreparedPlan {
    plan: Plan,
    interests: Option<Interests>,
    folder_was_read: bool,
}

/// Read the folder and bring its content into force.
pub(super) async fn read(env: &Env, folder: PathBuf) -> Result<ReadingResult> {
    let known = env.store.read(known).await?;
    let before = known.unidentified.clone();
    let (settings, current) = (env.settings.clone(), env.store.interests());
    let prepared =
        tokio::task::spawn_blocking(move || prepare(&folder, known, &settings, &current)).await;
    let PreparedPlan {
        plan,
        interests,
        folder_was_read,
    } = prepared.map_err(|_| Error::Failed("appservices"))?;
    let plan = Arc::new(plan);
    let is_new = interests.is_some();
    if is_new || !plan.moved.is_empty() || plan.unidentified != before {
        let compiled = match interests.map(Arc::new) {
            Some(interests) => {
                let counted = change::count(&env.store, &interests, &plan.recounted).await?;
                Some((interests, counted))
            }
            None => None,
        };
        let change = Change {
            plan: Arc::clone(&plan),
            compiled,
            settings: env.settings.clone(),
            now: env.clock.now(),
        };
        let write = move |tx: &mut schema::Tx<'_>| change::apply(tx, &change);
        env.store.write_alone(write).await?;
    }
    Ok(ReadingResult {
        plan,
        is_new,
        folder_was_read,
    })
}

/// Bring back into force what was in force when the server stopped, for a command that runs without the server.
pub(super) async fn restore(env: &Env) -> Result<()> {
    let settings = env.settings.clone();
    let write = move |tx: &mut schema::Tx<'_>| change::restore(tx, &settings);
    env.store.write_alone(write).await
}

/// The stored registrations, to compare a folder with.
pub fn known(db: &mut schema::Conn) -> Result<StoredRegistrations> {
    let unidentified = server_info::get(db, UNIDENTIFIED)?;
    Ok(StoredRegistrations {
        rows: appservices::all(db)?,
        unidentified: unidentified
            .and_then(|names| serde_json::from_str(&names).ok())
            .unwrap_or_default(),
    })
}

/// The registrations that a start of the server would bring into force.
pub fn planned(folder: &Path, known: &StoredRegistrations, settings: &Settings) -> Plan {
    let files = folder::read(folder);
    plan(folder, &files, known, settings)
}

fn plan(
    folder: &Path,
    files: &Result<Vec<File>, String>,
    known: &StoredRegistrations,
    settings: &Settings,
) -> Plan {
    let switched_on = |r: &Registration| {
        FeaturesInForce::of(r, change::may_observe(settings, &r.id), &settings.proposals)
    };
    match files {
        Ok(files) => rules::plan(files.clone(), known, &switched_on),
        Err(why) => {
            let folder = folder.display().to_string();
            rules::without_folder(folder, why.clone(), known, &switched_on)
        }
    }
}

/// Read the files, and compile their registrations unless exactly those are in force already.
fn prepare(
    folder: &Path,
    mut known: StoredRegistrations,
    settings: &Settings,
    current: &Interests,
) -> PreparedPlan {
    let mut files = folder::read(folder);
    loop {
        let plan = plan(folder, &files, &known, settings);
        // After a start the compiled set is empty, whatever the rows contain.
        let compiled: BTreeSet<&ServiceId> = current.services().iter().map(|s| &s.id).collect();
        let is_stale = !plan.in_force.keys().eq(compiled);
        let compiled = (is_stale || !plan.changed.is_empty() || !plan.gone.is_empty()).then(|| {
            let registrations = plan.in_force.values().map(|held| &held.registration);
            change::compile(registrations, settings)
        });
        let interests = match compiled.transpose() {
            Ok(interests) => interests,
            Err(why) => {
                let files = files.as_deref_mut().unwrap_or_default();
                if refuse_largest(&plan, files, &mut known, why) {
                    continue;
                }
                None
            }
        };
        return PreparedPlan {
            plan,
            interests,
            folder_was_read: files.is_ok(),
        };
    }
}

/// All patterns together cannot be compiled: refuse the registration with the longest pattern, among the changed ones if there
/// are any, else among all. Returns whether there was one.
fn refuse_largest(
    plan: &Plan,
    files: &mut [File],
    known: &mut StoredRegistrations,
    why: String,
) -> bool {
    let length = |r: &Registration| -> usize {
        let spaces = &r.namespaces;
        let all = [&spaces.users, &spaces.aliases, &spaces.rooms];
        all.into_iter().flatten().map(|n| n.regex.len()).sum()
    };
    let changed = plan.in_force.iter().filter(|(id, held)| {
        let row = known
            .rows
            .iter()
            .find(|row| row.appservice_id == id.as_str());
        let before = row.filter(|row| row.present).and_then(registration_of);
        before.as_ref() != Some(&held.registration)
    });
    let largest = changed
        .max_by_key(|(_, held)| length(&held.registration))
        .or_else(|| {
            let all = plan.in_force.iter();
            all.max_by_key(|(_, held)| length(&held.registration))
        });
    let Some((id, held)) = largest else {
        return false;
    };
    let of_file = files.iter_mut().find(|(file, _)| *file == held.file);
    match of_file {
        Some((_, read)) if read.is_ok() => {
            *read = Err(Broken {
                why,
                id: Some(id.clone()),
            });
        }
        // The longest pattern is in a stored registration, which was in force before. Leave it out until the next start, and keep
        // its row.
        _ => known.rows.retain(|row| row.appservice_id != id.as_str()),
    }
    true
}
