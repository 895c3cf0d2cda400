//! Giving a service what it missed: messages that wait in the inboxes of devices it decides over, whose devices to track, and the
//! key counts and account data of its own users.
//!
//! Each page is a short write of its own, so nobody waits long for it; where it stands is a row, so a crash goes on from there.
//! Meanwhile nothing new is frozen for the service: it gets the older messages before the newer ones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schema::ServiceId;
use schema::back_fill::{BackFill, Stage};
use schema::service_rooms::InRoom;
use schema::{
    Position, Tx, accounts, back_fill, counts, device_log, inbox, keys, owed, service_rooms,
    signing_keys, tracked,
};

use crate::accounts::account_data;
use crate::device_lists::{
    pass,
    rules::{Present, Verdict, verdict},
};
use crate::services::{Authority, CarriesInterests, Interests, Service, authority};
use crate::{Env, Error, Result};

/// Rows looked at in one page: a few milliseconds on either engine.
const PAGE: i64 = 500;

/// Rooms looked at in one page, people or not.
const ROOMS: usize = 250;

/// How long to wait before a page that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Give every service that is registered what it missed, and wake each when it has it all.
pub(super) async fn run(env: &Env) {
    loop {
        match some(env).await {
            Ok(()) | Err(Error::Storage(schema::Error::Stopped)) => return,
            Err(error) => {
                tracing::error!(%error, "a page of a back-fill failed; it is tried again");
                let _waiting = env.trace.parked();
                env.clock.sleep(AGAIN).await;
            }
        }
    }
}

async fn some(env: &Env) -> Result<()> {
    for service in env.store.read(back_fill::under_way).await? {
        // The row of a service whose file is gone stays until it comes back, which begins again, or is forgotten.
        while env.store.interests().service(&service).is_some() {
            let id = service.clone();
            if !env.store.write_always(move |tx| page(tx, &id)).await? {
                env.wake.services([&service], None);
                break;
            }
        }
    }
    Ok(())
}

// ANCHOR: page
/// One page. Whether there may be more.
pub(super) fn page(tx: &mut Tx<'_>, service: &ServiceId) -> Result<bool> {
    let interests = tx.interests();
    let (Some(now), Some(about)) = (back_fill::get(tx, service)?, interests.service(service))
    else {
        return Ok(false);
    };
    // A kind of what is owed that is off is passed over; when it is on again, the back-fill begins again.
    let next = match &now.stage {
        Stage::Inbox(after) if about.takes_to_device => {
            inboxes(tx, &interests, about, &now, *after)?.or(Some(Stage::Tracked(String::new())))
        }
        Stage::Inbox(_) => Some(Stage::Tracked(String::new())),
        Stage::Tracked(after) if about.takes_device_lists => {
            let more = tracked(tx, &interests, about, &now, after)?;
            more.or(Some(Stage::Rooms(String::new(), String::new())))
        }
        Stage::Rooms(room, after) if about.takes_device_lists => {
            let more = rooms(tx, &interests, about, room, after)?;
            more.or(Some(Stage::Accounts(String::new())))
        }
        Stage::Tracked(_) | Stage::Rooms(..) => Some(Stage::Accounts(String::new())),
        Stage::Accounts(after) => its_accounts(tx, &interests, about, &now, after)?,
    };
    let more = next.is_some();
    match next {
        Some(stage) => back_fill::put(tx, &BackFill { stage, ..now })?,
        None => back_fill::finish(tx, service)?,
    }
    Ok(more)
}

/// Messages that wait for devices which the service decides over now. One that it has a copy of stays as it was decided; what
/// it merely observes begins with the next message.
fn inboxes(
    tx: &mut Tx<'_>,
    interests: &Interests,
    about: &Service,
    now: &BackFill,
    after: Position,
) -> Result<Option<Stage>> {
    let page = inbox::page(tx, after, now.up_to, PAGE)?;
    let users: BTreeSet<&str> = page.iter().map(|m| m.user_id.as_str()).collect();
    let users: Vec<&str> = users.into_iter().collect();
    let mut decided = BTreeMap::new();
    for to in accounts::devices_of(tx, &users)? {
        let claim = interests.claim(&now.service, &to.device.user_id);
        if let Some(rule) = authority(claim, &now.service, &to) {
            decided.insert((to.device.user_id, to.device.device_id), rule);
        }
    }
    let mut last = None;
    let mut by_rule: BTreeMap<Authority, Vec<i64>> = BTreeMap::new();
    for message in page {
        last = Some(Stage::Inbox(Position(message.position)));
        if let Some(rule) = decided.get(&(message.user_id, message.device_id)) {
            by_rule.entry(*rule).or_default().push(message.position);
        }
    }
    for (rule, positions) in by_rule {
        inbox::decide(tx, &about.id, rule.name(), &positions)?;
    }
    Ok(last)
}
// ANCHOR_END: page

/// Users that the service was told to track, its own users of this registration or of an earlier one included: one that is not its
/// own and shares no room with it any more is `left`; any other is `changed` if the service was told nothing for a while. A `left` that
/// still waits for a user that is its own again becomes `changed`: it may have replaced one.
fn tracked(
    tx: &mut Tx<'_>,
    interests: &Interests,
    about: &Service,
    now: &BackFill,
    after: &str,
) -> Result<Option<Stage>> {
    let own = |user: &str| interests.claim(&now.service, user).is_some();
    let tracked = tracked::tracked_by(tx, &now.service, after, PAGE)?;
    let left = (owed::DEVICE_LIST, owed::LEFT);
    let left = owed::keys_with(tx, &now.service, left, after, PAGE)?;
    let Some(end) = end_of([&tracked, &left]) else {
        return Ok(None);
    };
    for user in tracked.iter().filter(|user| **user <= end) {
        let own = own(user);
        let present = Present {
            own,
            tracked: true,
            shares: !own && service_rooms::shares_a_room(tx, &now.service, user)?,
            keys_changed: now.away,
        };
        pass::owe(tx, about, user, verdict(present), None)?;
    }
    for user in left.iter().filter(|user| **user <= end && own(user)) {
        pass::owe(tx, about, user, Verdict::Changed, None)?;
    }
    Ok(Some(Stage::Tracked(end)))
}

/// Up to where lists in order are known, each of which is a page at most.
fn end_of(pages: [&Vec<String>; 2]) -> Option<String> {
    let is_full = |page: &&&Vec<String>| i64::try_from(page.len()).is_ok_and(|n| n >= PAGE);
    let lasts = |full: bool| {
        let pages = pages.iter().filter(move |page| !full || is_full(page));
        pages.filter_map(|page| page.last())
    };
    lasts(true).min().or(lasts(false).max()).cloned()
}

/// The people in the rooms where the service has a member, as if it had just joined each.
fn rooms(
    tx: &mut Tx<'_>,
    interests: &Interests,
    about: &Service,
    room: &str,
    after: &str,
) -> Result<Option<Stage>> {
    let (mut room, mut after, mut left) = (room.to_owned(), after.to_owned(), PAGE);
    for _ in 0..ROOMS {
        let at = InRoom {
            room_id: &room,
            changed_after: Position(i64::MAX),
            after_user: &after,
        };
        let asked = pass::ask_about(tx, interests, about, at, (left, None))?;
        left -= i64::try_from(asked.people).unwrap_or(PAGE);
        if let (true, Some(last)) = (left <= 0, asked.last) {
            return Ok(Some(Stage::Rooms(room, last)));
        }
        match service_rooms::room_after(tx, &about.id, &room)? {
            Some(next) => (room, after) = (next, String::new()),
            None => return Ok(None),
        }
    }
    Ok(Some(Stage::Rooms(room, after)))
}

/// Of all accounts, what the service missed about its own users while it was told nothing: that their keys changed, how many keys
/// the devices have that it decides over, and account data.
fn its_accounts(
    tx: &mut Tx<'_>,
    interests: &Interests,
    about: &Service,
    now: &BackFill,
    after: &str,
) -> Result<Option<Stage>> {
    let keys = now.away && about.takes_device_lists;
    let data = now
        .account_data_after
        .filter(|_| about.account_data.is_some());
    if !keys && data.is_none() {
        return Ok(None);
    }
    let page = accounts::ids_after(tx, after, PAGE)?;
    if keys {
        let users: Vec<&str> = page.iter().map(String::as_str).collect();
        keys_of(tx, interests, about, &users)?;
    }
    for user in &page {
        if let Some(after) = data {
            account_data::owe_missed(tx, interests, &about.id, user, after)?;
        }
    }
    Ok(page.last().cloned().map(Stage::Accounts))
}

/// Owe the service the counts of those users' devices that it decides over, and a look at the keys of those of its own that have keys,
/// or whose keys changed while it was told nothing: of a device that is gone, only the log says so.
fn keys_of(tx: &mut Tx<'_>, interests: &Interests, about: &Service, users: &[&str]) -> Result<()> {
    let claim = |user: &str| interests.claim(&about.id, user);
    let own: Vec<&str> = users
        .iter()
        .copied()
        .filter(|u| claim(u).is_some())
        .collect();
    let with_keys = keys::devices_with_keys(tx, &own)?.into_iter();
    let mut changed: BTreeSet<String> = with_keys.map(|device| device.user_id).collect();
    let signing = signing_keys::signing_keys(tx, &own)?.into_iter();
    changed.extend(signing.map(|key| key.user_id));
    if let Some(after) = tracked::told_until(tx, &about.id)? {
        changed.extend(device_log::keys_changed_among(tx, &own, after)?);
    }
    for to in accounts::devices_of(tx, users)? {
        let (user, device) = (&to.device.user_id, &to.device.device_id);
        let claim = claim(user);
        let decides = authority(claim, &about.id, &to).is_some();
        if (claim.is_none() && !decides) || counts::counts_of(tx, user, device)?.is_none() {
            continue;
        }
        if decides {
            counts::owe_counts(tx, [&about.id], &to.device)?;
        }
        if claim.is_some() {
            changed.insert(to.device.user_id);
        }
    }
    for user in changed {
        pass::owe(tx, about, &user, Verdict::Changed, None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
