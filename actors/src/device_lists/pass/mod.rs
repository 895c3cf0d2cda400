//! The pass over the device-list log. Each line names the appservices and users that may be affected; the present state decides
//! what an appservice is owed.
//!
//! Next on the way of a leave: `actors/src/device_lists/rules.rs`.

use std::collections::{BTreeMap, BTreeSet};

use schema::ServiceId;
use schema::device_log::Kind;
use schema::device_log::LogEntry;
use schema::service_rooms::InRoom;
use schema::{Position, Tx, device_log, service_rooms, tracked};

use super::rules::{Present, Verdict, verdict};
use crate::hooks::{OwedDraft, Withholding};
use crate::services::{CarriesInterests, Interests, Service};
use crate::{Env, Error, Result};

/// The most lines of the log in one write, and the most users in one write when a whole room is checked.
const PIECE: i64 = 500;

/// The result of one write of the pass.
struct Step {
    /// The appservices to which this write owes something.
    owed_to: BTreeSet<ServiceId>,
    /// The position up to which the pass has read the log after this write.
    read: Position,
    rest: Rest,
}

/// What is left to do.
enum Rest {
    /// Nothing: the pass has read the log to its end.
    Nothing,
    /// The log has more lines to read.
    More,
    /// The current line of the log concerns all users of a room, and is read again for the users whose ids follow this one.
    InRoom(String),
}

/// Read the unread lines of the device-list log, in pieces, and wake the senders of the appservices that are owed something.
///
/// # Errors
/// The database fails; the failed piece has no effect, those before it stay.
pub(super) async fn run(env: &Env) -> Result<()> {
    let mut after_user = String::new();
    let mut is_first = true;
    loop {
        let from = std::mem::take(&mut after_user);
        let write = move |tx: &mut Tx<'_>| step(tx, &from);
        // The first piece runs in the commit of the next write, before that write. The next write is usually that of the sender
        // that the same event has woken, which then finds every line read. Only a sender that looked earlier is held back
        // (`held.rs`).
        let step = match std::mem::take(&mut is_first) {
            true => env.store.write_with_next(write).await?,
            false => env.store.write_always(write).await?,
        };
        // The pass owes items at positions of earlier events, and a sender may have looked past these positions already. So no
        // position is given.
        env.wake.services(&step.owed_to, None);
        env.wake.pass_has_read(step.read);
        match step.rest {
            Rest::Nothing => return Ok(()),
            Rest::More => {}
            Rest::InRoom(user) => after_user = user,
        }
    }
}

// ANCHOR: step
/// One write owes the appservices what follows from some lines of the log, and stores how far the log is read. So a crash repeats
/// both or neither.
fn step(tx: &mut Tx<'_>, after_user: &str) -> Result<Step> {
    let interests = tx.interests();
    let cursor = device_log::cursor(tx)?;
    let head = tx.head();
    let lines = device_log::log_after(tx, cursor, head, PIECE)?;
    let mut owed_to = BTreeSet::new();
    let Some(first) = lines.first() else {
        return Ok(Step {
            owed_to,
            read: cursor,
            rest: Rest::Nothing,
        });
    };

    if matches!(first.kind, Kind::Gained | Kind::Lost) {
        let next = check_room(tx, &interests, first, after_user, &mut owed_to)?;
        let (read, rest) = match next {
            Some(user) => (cursor, Rest::InRoom(user)),
            None => {
                device_log::set_cursor(tx, first.position)?;
                (first.position, Rest::More)
            }
        };
        return Ok(Step {
            owed_to,
            read,
            rest,
        });
    }

    // Consecutive lines about single users: each pair of appservice and user is decided once.
    let about_users: Vec<&LogEntry> = lines
        .iter()
        .take_while(|l| !matches!(l.kind, Kind::Gained | Kind::Lost))
        .collect();
    let mut pairs: BTreeMap<(ServiceId, &str), (bool, Position)> = BTreeMap::new();
    for line in &about_users {
        let keys = line.kind == Kind::Keys;
        for service in candidates(tx, &interests, line)? {
            // The change is owed at the position of the earliest event from which it may follow: it describes the present state,
            // which may be newer than that event.
            let (changed, follows) = pairs
                .entry((service, &line.user_id))
                .or_insert((false, line.covers));
            *changed |= keys;
            *follows = line.covers.min(*follows);
        }
    }
    for ((service, user), about) in pairs {
        decide(tx, &interests, &service, user, about, &mut owed_to)?;
    }
    let read = about_users.last().map_or(cursor, |l| l.position);
    device_log::set_cursor(tx, read)?;
    let is_all = about_users.len() == lines.len()
        && lines.len() < usize::try_from(PIECE).unwrap_or(usize::MAX);
    let rest = if is_all { Rest::Nothing } else { Rest::More };
    Ok(Step {
        owed_to,
        read,
        rest,
    })
}
// ANCHOR_END: step

/// The appservices that a line about one user may concern: those that track the user, those to which the user belongs, those with a
/// member in the room, and, for changed keys, those that share any room with the user. Clause: as.lists.own-users
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

/// Decide whether an appservice is owed a change of a user's device list, and owe it in the same write.
/// Clause: as.lists.no-stranger
fn decide(
    tx: &mut Tx<'_>,
    interests: &Interests,
    service: &ServiceId,
    user: &str,
    (keys_changed, follows): (bool, Position),
    owed_to: &mut BTreeSet<ServiceId>,
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
        owed_to.insert(service.clone());
    }
    Ok(())
}

/// Owe the appservice a `changed` or `left`, at the position of the event from which it follows. Returns whether one is owed.
pub(crate) fn owe(
    tx: &mut Tx<'_>,
    service: &Service,
    user: &str,
    verdict: Verdict,
    follows: Option<Position>,
) -> Result<bool> {
    let has_left = match verdict {
        Verdict::Nothing => return Ok(false),
        Verdict::Changed => false,
        Verdict::Left => true,
    };
    let item = OwedDraft::DeviceList { user, has_left };
    if !Withholding::of(tx).lets_service(service, &item) {
        return Ok(false);
    }
    tracked::owe(tx, &service.id, user, has_left, follows)?;
    Ok(true)
}

// ANCHOR: check_room
/// For a line about an appservice's first or last member in a room: decide about every user that is in the room or has left it
/// since the line was written, a piece at a time. Returns the last user of the piece, or `None` after the last piece.
/// Clause: as.lists.left-all
fn check_room(
    tx: &mut Tx<'_>,
    interests: &Interests,
    line: &LogEntry,
    after_user: &str,
    owed_to: &mut BTreeSet<ServiceId>,
) -> Result<Option<String>, Error> {
    let service = interests.service(&line.service);
    let Some(service) = service.filter(|s| s.takes_device_lists) else {
        return Ok(None);
    };
    // Users who left after the appservice's last member are included: their `left` belongs to the event that ended the sharing,
    // which nothing holds back once this line is read.
    let at = InRoom {
        room_id: &line.room_id,
        changed_after: line.position,
        after_user,
    };
    // The first piece travels with the event. The whole of a large room at one position could exceed the size of a transaction.
    let follows = after_user.is_empty().then_some(line.covers);
    let checked = check_piece(tx, interests, service, at, (PIECE, follows))?;
    if checked.owed {
        owed_to.insert(service.id.clone());
    }
    Ok(checked.last)
}
// ANCHOR_END: check_room

/// The result of checking a piece of a room.
#[derive(Debug, Default)]
pub(crate) struct CheckedPiece {
    /// The number of users that were decided about.
    pub(crate) people: usize,
    /// The last user that was decided about.
    pub(crate) last: Option<String>,
    /// Whether the appservice is owed anything about them.
    pub(crate) owed: bool,
}

/// Decide about at most `limit` users of a room, and owe the changes at the position of the event from which they follow.
pub(crate) fn check_piece(
    tx: &mut Tx<'_>,
    interests: &Interests,
    about: &Service,
    at: InRoom<'_>,
    (limit, follows): (i64, Option<Position>),
) -> Result<CheckedPiece> {
    let service = &about.id;
    let found = service_rooms::sharing_in(tx, service, at, limit)?;
    let Some((present, sharing)) = found else {
        return Ok(CheckedPiece::default());
    };
    let tracked = tracked::tracked_among(tx, service, &present)?;
    let mut owed = false;
    for user in &present {
        let own = interests.claim(service, user).is_some();
        let state = Present {
            own,
            tracked: tracked.contains(user),
            shares: sharing.contains(user),
            keys_changed: false,
        };
        owed |= owe(tx, about, user, verdict(state), follows)?;
    }
    Ok(CheckedPiece {
        people: present.len(),
        last: present.last().cloned(),
        owed,
    })
}

#[cfg(test)]
pub(crate) mod tests;
