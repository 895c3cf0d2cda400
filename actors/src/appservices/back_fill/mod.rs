//! Back-fill: owes an appservice what it missed. What it missed is: messages that wait for devices over which it decides, changes
//! of the device lists that it tracks, and key counts and account data of its own users.
//!
//! Each page is a short write of its own, so other writes do not wait long. The progress is stored in a row, so a restart
//! continues from there. Until the back-fill is done no new transaction is frozen for the appservice, so it gets older messages
//! before newer ones.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schema::ServiceId;
use schema::back_fill::{BackFill, Stage};
use schema::service_rooms::InRoom;
use schema::{
    Position, Tx, accounts, back_fill, counts, device_log, inbox, keys, owed, owed_keys,
    service_rooms, signing_keys, tracked,
};

use crate::accounts::account_data;
use crate::device_lists::{
    pass,
    rules::{Present, Verdict, verdict},
};
use crate::hooks::{OwedDraft, Withholding};
use crate::services::{Authority, CarriesInterests, Interests, Service, authority};
use crate::{Env, Error, Result};

/// The most rows read in one page: a few milliseconds on either database.
const PAGE: i64 = 500;

/// The most rooms in one page, even if they are empty.
const ROOMS: usize = 250;

/// The delay before a failed page is repeated.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Back-fill every registered appservice, and wake the sender of each that is done.
pub(super) async fn run(env: &Env) {
    loop {
        match some(env).await {
            Ok(()) | Err(Error::Storage(schema::Error::Stopped)) => return,
            Err(error) => {
                tracing::error!(%error, "a page of a back-fill failed and will be repeated");
                let _waiting = env.trace.parked();
                env.clock.sleep(RETRY_AFTER).await;
            }
        }
    }
}

async fn some(env: &Env) -> Result<()> {
    for service in env.store.read(back_fill::under_way).await? {
        // If the file of an appservice is gone, the row of its back-fill stays. The back-fill starts again when the file returns;
        // the row is deleted with the appservice.
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
/// Process one page of a back-fill. Returns whether there may be more pages. Clause: own.late.back-fill
pub(super) fn page(tx: &mut Tx<'_>, service: &ServiceId) -> Result<bool> {
    let interests = tx.interests();
    let (Some(now), Some(about)) = (back_fill::get(tx, service)?, interests.service(service))
    else {
        return Ok(false);
    };
    // Skip what is switched off for this appservice. When it is switched on again, a new back-fill starts.
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

/// Owe the appservice the messages that wait for devices over which it decides now. A message that it is owed already stays owed in
/// the same way. Messages to users whom it merely observes are not included: it gets copies of their new messages only.
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
    let withholding = Withholding::of(tx);
    for message in page {
        last = Some(Stage::Inbox(Position(message.position)));
        let kind = (message.sender.as_str(), message.kind.as_str());
        let item = OwedDraft::message(kind, (&message.user_id, &message.device_id));
        let is_let = withholding.lets_service(about, &item);
        let rule = decided.get(&(message.user_id, message.device_id));
        if let Some(rule) = rule.filter(|_| is_let) {
            by_rule.entry(*rule).or_default().push(message.position);
        }
    }
    for (rule, positions) in by_rule {
        inbox::decide(tx, &about.id, rule.name(), &positions)?;
    }
    Ok(last)
}
// ANCHOR_END: page

/// Decides about each user that the appservice tracks, its own users under this or an earlier registration included:
///
/// - A user outside its namespaces that shares no room with it any more: it is owed `left`.
/// - Any other user, if the appservice received no device lists for a while: it is owed `changed`.
/// - A user that its namespaces contain again, with a `left` that is not acknowledged: it is owed `changed`, because the `left` may
///   have replaced a `changed`. If a frozen transaction carries the `left`, that transaction is sent first.
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
    let left = owed_keys::with_item(tx, &now.service, left, after, PAGE)?;
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

/// The last user up to which both lists are complete; each list is one page at most.
fn end_of(pages: [&Vec<String>; 2]) -> Option<String> {
    let is_full = |page: &&&Vec<String>| i64::try_from(page.len()).is_ok_and(|n| n >= PAGE);
    let lasts = |full: bool| {
        let pages = pages.iter().filter(move |page| !full || is_full(page));
        pages.filter_map(|page| page.last())
    };
    lasts(true).min().or(lasts(false).max()).cloned()
}

/// The users in the rooms where the appservice has a member, as if its member had just joined.
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
        let checked = pass::check_piece(tx, interests, about, at, (left, None))?;
        left -= i64::try_from(checked.people).unwrap_or(PAGE);
        if let (true, Some(last)) = (left <= 0, checked.last) {
            return Ok(Some(Stage::Rooms(room, last)));
        }
        match service_rooms::room_after(tx, &about.id, &room)? {
            Some(next) => (room, after) = (next, String::new()),
            None => return Ok(None),
        }
    }
    Ok(Some(Stage::Rooms(room, after)))
}

/// What the appservice missed about its own users, for all accounts: changed keys, the key counts of devices over which it
/// decides, and account data.
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

/// Owe the appservice the key counts of these users' devices over which it decides, and `changed` for its own users who have
/// keys or whose keys changed while it received nothing. The deletion of a device shows only in the log.
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
    if let Some(after) = tracked::sent_until(tx, &about.id)? {
        changed.extend(device_log::keys_changed_among(tx, &own, after)?);
    }
    for to in accounts::devices_of(tx, users)? {
        let (user, device) = (&to.device.user_id, &to.device.device_id);
        let claim = claim(user);
        let decides = authority(claim, &about.id, &to).is_some();
        if (claim.is_none() && !decides) || counts::counts_of(tx, user, device)?.is_none() {
            continue;
        }
        if decides && Withholding::of(tx).lets_service(about, &OwedDraft::counts(&to.device)) {
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
