//! Bringing new registrations into force: one write, alone in its batch. Everything committed before it is back-filled,
//! everything after it sees the new interests; so nothing falls between.

use std::collections::BTreeMap;

use schema::appservices::{self, has_authority};
use schema::inbox::CopyRow;
use schema::interests::Interests;
use schema::registration::{Registration, ServiceId};
use schema::{Position, Tx, accounts, device_lists, inbox};

use super::rules::Plan;
use crate::{Error, Refusal, Result, Settings};

/// Inbox rows looked at in one go during a back-fill.
const PAGE: i64 = 1_000;

// ANCHOR: apply
/// Store the registrations, recount members, owe what a service that comes (back) must be told, and swap the interests.
pub(super) fn apply(tx: &mut Tx<'_>, plan: &Plan, settings: &Settings, now: i64) -> Result<()> {
    for id in &plan.gone {
        if let Some(row) = appservices::all(tx)?
            .into_iter()
            .find(|row| row.appservice_id == id.as_str())
        {
            appservices::save(tx, id, &row.registration, &row.file, false)?;
        }
    }
    for id in &plan.changed {
        if let Some((file, registration)) = plan.in_force.get(id) {
            appservices::save(tx, id, &serde_json::to_string(registration)?, file, true)?;
            let sender = format!(
                "@{}:{}",
                registration.sender_localpart, settings.server_name
            );
            accounts::ensure_sender(tx, &sender, id, now)?;
        }
    }
    let before = tx.interests();
    let interests = compile(
        plan.in_force.values().map(|(_, r)| r.clone()).collect(),
        settings,
    )?;
    for id in &plan.changed {
        device_lists::recount(tx, id, |user| interests.claim(id, user).is_some())?;
        if interests.service(id).is_some_and(|s| s.takes_device_lists) {
            settle_tracked(tx, &interests, id)?;
        }
        back_fill(tx, &before, &interests, id)?;
    }
    tx.swap_interests(interests);
    Ok(())
}
// ANCHOR_END: apply

/// Compile the interests of these registrations as the operator allows them.
pub(super) fn compile(registrations: Vec<Registration>, settings: &Settings) -> Result<Interests> {
    let allowed = |id: &ServiceId| {
        settings
            .observe
            .as_ref()
            .is_none_or(|list| list.contains(id))
    };
    let registrations = registrations
        .into_iter()
        .map(|r| {
            let observes = allowed(&r.id);
            (r, observes)
        })
        .collect();
    Interests::compile(
        settings.server_name.as_str(),
        registrations,
        settings.proposals,
    )
    .map_err(|why| Refusal::InvalidParam(format!("namespaces: {why}").into()).into())
}

/// Nobody told the service anything while it was away: whom it tracks is `changed` if still shared and `left` if not.
fn settle_tracked(tx: &mut Tx<'_>, interests: &Interests, service: &ServiceId) -> Result<()> {
    for user in device_lists::tracked_by(tx, service)? {
        let stays = interests.claim(service, &user).is_some()
            || device_lists::shares_a_room(tx, service, &user)?;
        device_lists::owe(tx, service, &user, !stays, stays)?;
    }
    Ok(())
}

/// What still waits in the inboxes of devices that the service decides over now and did not before. What it merely observes
/// begins with the next message.
fn back_fill(
    tx: &mut Tx<'_>,
    before: &Interests,
    now: &Interests,
    service: &ServiceId,
) -> Result<()> {
    if now.service(service).is_none_or(|s| !s.takes_to_device) {
        return Ok(());
    }
    let mut decides: BTreeMap<(String, String), bool> = BTreeMap::new();
    let mut after = Position::START;
    loop {
        let page = inbox::page(tx, after, PAGE)?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = Position(last.position);
        for row in page {
            let device = (row.user_id.clone(), row.device_id.clone());
            let decides = match decides.get(&device) {
                Some(known) => *known,
                None => {
                    let to = accounts::device(tx, &row.user_id, &row.device_id)?;
                    let newly = |to| {
                        has_authority(now, service, to)
                            && !(before.service(service).is_some()
                                && has_authority(before, service, to))
                    };
                    let newly = to.as_ref().is_some_and(newly);
                    decides.insert(device, newly);
                    newly
                }
            };
            if decides {
                inbox::copy_if_absent(tx, &copy(service, row))?;
            }
        }
    }
}

fn copy(service: &ServiceId, row: inbox::InboxRow) -> CopyRow {
    CopyRow {
        appservice_id: service.to_string(),
        position: row.position,
        explicit: true,
        user_id: row.user_id,
        device_id: row.device_id,
        sender: row.sender,
        kind: row.kind,
        content: row.content,
        txn: None,
    }
}

/// What was in force when the server stopped, compiled anew.
pub(super) fn restore(tx: &mut Tx<'_>, settings: &Settings) -> Result<()> {
    let rows = appservices::all(tx)?;
    let registrations = rows
        .iter()
        .filter(|row| row.present)
        .map(|row| serde_json::from_str(&row.registration));
    let registrations = registrations
        .collect::<Result<Vec<Registration>, _>>()
        .map_err(Error::from)?;
    let interests = compile(registrations, settings)?;
    tx.swap_interests(interests);
    Ok(())
}
