//! The pass over the log: each line names who may have to be told; the present decides what.

use std::collections::{BTreeMap, BTreeSet};

use schema::ServiceId;
use schema::device_log::Kind;
use schema::device_log::LogEntry;
use schema::service_rooms::InRoom;
use schema::{Position, Tx, device_log, service_rooms, tracked};

use super::rules::{Present, Verdict, verdict};
use crate::services::{CarriesInterests, Interests, Service};
use crate::{Env, Error, Result};

/// Lines of the log in one write, and people in one write when a whole room must be asked about.
const PIECE: i64 = 500;

/// What one write of the pass came to.
struct Step {
    /// The services that are owed something by it.
    told: BTreeSet<ServiceId>,
    /// Where the cursor stands now.
    read: Position,
    rest: Rest,
}

/// What there is still to do.
enum Rest {
    /// Nothing: the cursor stands at the head of the log.
    Nothing,
    /// There is more to read.
    More,
    /// In the middle of a room, after this user; the cursor has not moved past the line.
    InRoom(String),
}

/// Read the log from the cursor to the head, piece by piece, and wake the senders of the services that are owed something by it.
///
/// # Errors
/// When storage fails; nothing of the piece that failed is kept.
pub(super) async fn run(env: &Env) -> Result<()> {
    let mut after_user = String::new();
    let mut is_first = true;
    loop {
        let from = std::mem::take(&mut after_user);
        let write = move |tx: &mut Tx<'_>| step(tx, &from);
        // A sender that the event has woken looks right after the first piece, in the same commit.
        let step = match std::mem::take(&mut is_first) {
            true => env.store.write_with_next(write).await?,
            false => env.store.write_always(write).await?,
        };
        // What it owes stands at earlier events, where a sender may have looked already: so no position is given.
        env.wake.services(&step.told, None);
        env.wake.pass_has_read(step.read);
        match step.rest {
            Rest::Nothing => return Ok(()),
            Rest::More => {}
            Rest::InRoom(user) => after_user = user,
        }
    }
}

// ANCHOR: step
/// One write: answers and cursor together, so that a crash repeats all of it or nothing.
fn step(tx: &mut Tx<'_>, after_user: &str) -> Result<Step> {
    let interests = tx.interests();
    let cursor = device_log::cursor(tx)?;
    let head = tx.head();
    let lines = device_log::log_after(tx, cursor, head, PIECE)?;
    let mut told = BTreeSet::new();
    let Some(first) = lines.first() else {
        return Ok(Step {
            told,
            read: cursor,
            rest: Rest::Nothing,
        });
    };

    if matches!(first.kind, Kind::Gained | Kind::Lost) {
        let next = whole_room(tx, &interests, first, after_user, &mut told)?;
        let (read, rest) = match next {
            Some(user) => (cursor, Rest::InRoom(user)),
            None => {
                device_log::set_cursor(tx, first.position)?;
                (first.position, Rest::More)
            }
        };
        return Ok(Step { told, read, rest });
    }

    // A run of lines about single people: each pair of service and user is asked about once.
    let run: Vec<&LogEntry> = lines
        .iter()
        .take_while(|l| !matches!(l.kind, Kind::Gained | Kind::Lost))
        .collect();
    let mut pairs: BTreeMap<(ServiceId, &str), (bool, Position)> = BTreeMap::new();
    for line in &run {
        let keys = line.kind == Kind::Keys;
        for service in candidates(tx, &interests, line)? {
            // The word goes with the first event that it may follow from: what it says is true already.
            let (changed, follows) = pairs
                .entry((service, &line.user_id))
                .or_insert((false, line.covers));
            *changed |= keys;
            *follows = line.covers.min(*follows);
        }
    }
    for ((service, user), about) in pairs {
        decide(tx, &interests, &service, user, about, &mut told)?;
    }
    let read = run.last().map_or(cursor, |l| l.position);
    device_log::set_cursor(tx, read)?;
    let is_all =
        run.len() == lines.len() && lines.len() < usize::try_from(PIECE).unwrap_or(usize::MAX);
    let rest = if is_all { Rest::Nothing } else { Rest::More };
    Ok(Step { told, read, rest })
}
// ANCHOR_END: step

/// The services that a line about one person may concern: those that track the person, those whose own user it is, those with
/// a member in the room, and, when devices changed, those that share any room.
fn candidates(
    tx: &mut Tx<'_>,
    interests: &Interests,
    line: &LogEntry,
) -> Result<BTreeSet<ServiceId>> {
    let mut services = BTreeSet::new();
    match line.kind {
        Kind::Keys => {
            services.extend(tracked::trackers_of(tx, &line.user_id)?);
            services.extend(service_rooms::services_sharing_with(tx, &line.user_id)?);
            services.extend(
                interests
                    .in_user(&line.user_id)
                    .into_iter()
                    .map(|(s, _)| s.id.clone()),
            );
        }
        Kind::Member => {
            services.extend(tracked::trackers_of(tx, &line.user_id)?);
            services.extend(service_rooms::services_in(tx, &line.room_id)?);
        }
        Kind::Private | Kind::Gained | Kind::Lost => {}
    }
    services.retain(|id| interests.service(id).is_some_and(|s| s.takes_device_lists));
    Ok(services)
}

/// Ask about one service and one user, and owe the answer in the same write.
fn decide(
    tx: &mut Tx<'_>,
    interests: &Interests,
    service: &ServiceId,
    user: &str,
    (keys_changed, follows): (bool, Position),
    told: &mut BTreeSet<ServiceId>,
) -> Result<()> {
    let own = interests.claim(service, user).is_some();
    let present = Present {
        own,
        tracked: !own && tracked::is_tracked(tx, service, user)?,
        shares: !own && service_rooms::shares_a_room(tx, service, user)?,
        keys_changed,
    };
    let Some(about) = interests.service(service) else {
        return Ok(());
    };
    if owe(tx, about, user, verdict(present), Some(follows))? {
        told.insert(service.clone());
    }
    Ok(())
}

/// Owe the service a verdict, at the event that it follows from. Whether the service is owed anything by it.
pub(crate) fn owe(
    tx: &mut Tx<'_>,
    service: &Service,
    user: &str,
    verdict: Verdict,
    follows: Option<Position>,
) -> Result<bool> {
    match verdict {
        Verdict::Nothing => return Ok(false),
        Verdict::Changed => tracked::owe(tx, &service.id, user, false, follows)?,
        Verdict::Left => tracked::owe(tx, &service.id, user, true, follows)?,
    }
    Ok(true)
}

/// A service gained its first member in a room, or lost its last: ask about every user that is in the room, or left it since, a piece at a
/// time.
/// Answers the last user asked about while there may be more.
fn whole_room(
    tx: &mut Tx<'_>,
    interests: &Interests,
    line: &LogEntry,
    after_user: &str,
    told: &mut BTreeSet<ServiceId>,
) -> Result<Option<String>, Error> {
    let service = interests.service(&line.service);
    let Some(service) = service.filter(|s| s.takes_device_lists) else {
        return Ok(None);
    };
    // Users that left after the service's last member are asked about here too: the `left` belongs to the event that ended the sharing, which
    // nothing holds back once this line is read.
    let at = InRoom {
        room_id: &line.room_id,
        changed_after: line.position,
        after_user,
    };
    // The first piece goes with the event. All of a large room at one place would be more than a transaction may carry.
    let follows = after_user.is_empty().then_some(line.covers);
    let asked = ask_about(tx, interests, service, at, (PIECE, follows))?;
    if asked.told {
        told.insert(service.id.clone());
    }
    Ok(asked.last)
}

/// What came of asking about a piece of a room.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// How many people were asked about.
    pub(crate) people: usize,
    /// The last of them.
    pub(crate) last: Option<String>,
    /// Whether the service is told about any.
    pub(crate) told: bool,
}

/// Ask about the people of a room, so many at most, and owe the answers in the same write, with the event that they follow from.
pub(crate) fn ask_about(
    tx: &mut Tx<'_>,
    interests: &Interests,
    about: &Service,
    at: InRoom<'_>,
    (limit, follows): (i64, Option<Position>),
) -> Result<Asked> {
    let service = &about.id;
    let found = service_rooms::sharing_in(tx, service, at, limit)?;
    let Some((present, sharing)) = found else {
        return Ok(Asked::default());
    };
    let tracked = tracked::tracked_among(tx, service, &present)?;
    let mut told = false;
    for user in &present {
        let own = interests.claim(service, user).is_some();
        let now = Present {
            own,
            tracked: tracked.contains(user),
            shares: sharing.contains(user),
            keys_changed: false,
        };
        told |= owe(tx, about, user, verdict(now), follows)?;
    }
    Ok(Asked {
        people: present.len(),
        last: present.last().cloned(),
        told,
    })
}

#[cfg(test)]
pub(crate) mod tests;
