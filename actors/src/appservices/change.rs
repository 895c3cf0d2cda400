//! Bringing new registrations into force: one write, alone in its batch, and short. What is long about it, counting members, is
//! done before it by reading; giving a service what it missed is done after it, page by page ([`super::back_fill`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schema::ServiceId;
use schema::appservices::ServiceRow;
use schema::{
    Position, Store, Tx, accounts, appservices, back_fill, device_log, server_info, service_rooms,
    sync, tracked,
};

use super::rules::{Held, Plan};
use crate::accounts::account_data;
use crate::services::{
    InForce, Interests, LastInForce, Registration, last_in_force, registration_of,
};
use crate::{Error, Refusal, Result, Settings};

/// Under which key the server keeps the names of files that say nothing about any service it knows.
pub(super) const STRANGERS: &str = "registration_strangers";

/// How many joined members each service has in each room.
type Members = BTreeMap<ServiceId, BTreeMap<String, i64>>;

/// Members as they were counted by reading, page by page, while everything else went on.
#[derive(Clone)]
pub(super) struct Counted {
    /// The head when the counting began: rooms whose members changed since then are counted again.
    since: Position,
    members: Members,
}

// ANCHOR: count
/// Count the joined members of these services in each room, in many short snapshots: nobody waits for it.
pub(super) async fn count(
    store: &Store,
    interests: &Arc<Interests>,
    services: &BTreeSet<ServiceId>,
) -> Result<Counted> {
    let since = store.read(sync::head).await?;
    // A service without members has an empty count, not none: what was counted before it must go.
    let mut members: Members = services
        .iter()
        .map(|id| (id.clone(), BTreeMap::new()))
        .collect();
    let mut after = String::new();
    while !services.is_empty() {
        let (interests, services, from) = (Arc::clone(interests), services.clone(), after);
        let page = store.read(move |db| {
            let whose = |user: &str| members_of(&interests, &services, user);
            let page = service_rooms::joined_page(db, &from, |user| !whose(user).is_empty())?;
            let joined = page.map(|page| {
                let joined = page.joined.into_iter();
                let joined = joined.map(|(user, room)| (whose(&user), room));
                (page.last, joined.collect::<Vec<_>>())
            });
            Ok::<_, Error>(joined)
        });
        let Some((last, joined)) = page.await? else {
            break;
        };
        for (whose, room) in joined {
            for id in whose {
                let rooms = members.entry(id).or_default();
                *rooms.entry(room.clone()).or_default() += 1;
            }
        }
        after = last;
    }
    Ok(Counted { since, members })
}

/// Of these services, those whose user this is.
fn members_of(interests: &Interests, services: &BTreeSet<ServiceId>, user: &str) -> Vec<ServiceId> {
    let claimed = interests.in_user(user).into_iter();
    claimed
        .map(|(service, _)| service.id.clone())
        .filter(|id| services.contains(id))
        .collect()
}

/// What is to be written down: the plan, and what was prepared for it beside the writer.
pub(super) struct Change {
    pub(super) plan: Arc<Plan>,
    /// The compiled namespaces and the counted members; `None` where only names of files are not what they were.
    pub(super) news: Option<(Arc<Interests>, Counted)>,
    pub(super) settings: Settings,
    pub(super) now: i64,
}

/// Store the registrations and the members, mark whom to give what it missed, and swap the interests, all in one write: the
/// members that were counted are on the disk together with the registration that they were counted for, or not at all.
/// Everything committed before this write is counted or back-filled, everything after it sees the new interests; so nothing
/// falls between.
pub(super) fn apply(tx: &mut Tx<'_>, change: &Change) -> Result<()> {
    let Change { plan, news, .. } = change;
    let before: BTreeMap<ServiceId, ServiceRow> = appservices::all(tx)?
        .into_iter()
        .map(|row| (row.appservice_id.as_str().into(), row))
        .collect();
    server_info::set(tx, STRANGERS, &serde_json::to_string(&plan.strangers)?)?;
    for id in &plan.gone {
        if let Some(row) = before.get(id) {
            let missed = account_data_until(tx, id, row, InForce::default())?;
            note_end_of_lists(tx, id, row, InForce::default())?;
            let row = ServiceRow {
                present: false,
                in_force: in_force(InForce::default(), missed)?,
                ..row.clone()
            };
            appservices::save(tx, &row)?;
        }
    }
    let mut missed = BTreeMap::new();
    for id in plan.changed.iter().chain(&plan.moved) {
        let Some(held) = plan.in_force.get(id) else {
            continue;
        };
        let until = match before.get(id) {
            Some(row) => {
                note_end_of_lists(tx, id, row, held.in_force)?;
                account_data_until(tx, id, row, held.in_force)?
            }
            None => None,
        };
        missed.insert(id, until);
        save(tx, id, held, until.filter(|_| !held.in_force.account_data))?;
        let sender = &held.registration.sender_localpart;
        let sender = format!("@{sender}:{}", change.settings.server_name);
        accounts::ensure_sender(tx, &sender, id, change.now)?;
    }
    let Some((interests, counted)) = news else {
        return Ok(());
    };
    for (id, rooms) in &recounted(tx, interests, counted)? {
        service_rooms::set_members(tx, id, rooms)?;
        account_data::retain_owed(tx, interests, id)?;
        let until = missed.get(id).copied().flatten();
        back_fill::begin(tx, id, plan.away.contains(id), until)?;
    }
    crate::services::swap_interests(tx, Arc::clone(interests));
    Ok(())
}

fn save(
    tx: &mut Tx<'_>,
    id: &ServiceId,
    held: &Held,
    account_data_until: Option<Position>,
) -> Result<()> {
    let row = ServiceRow {
        appservice_id: id.to_string(),
        registration: serde_json::to_string(&held.registration)?,
        file: held.file.clone(),
        present: true,
        last_txn: 0,
        in_force: in_force(held.in_force, account_data_until)?,
        acknowledged: 0,
    };
    Ok(appservices::save(tx, &row)?)
}

fn in_force(in_force: InForce, account_data_until: Option<Position>) -> Result<String> {
    let last = LastInForce {
        in_force,
        account_data_until: account_data_until.map(|p| p.0),
    };
    Ok(serde_json::to_string(&last)?)
}

/// The position up to which the service was owed account data when that was last on: now, when this change switches it off; what
/// a back-fill that is not finished says; else as it was written down.
fn account_data_until(
    tx: &mut Tx<'_>,
    id: &ServiceId,
    before: &ServiceRow,
    now: InForce,
) -> Result<Option<Position>> {
    let last = last_in_force(before).unwrap_or_default();
    if !last.in_force.account_data {
        return Ok(last.account_data_until.map(Position));
    }
    if now.account_data {
        return Ok(None);
    }
    let under_way = back_fill::get(tx, id)?.and_then(|b| b.account_data_after);
    Ok(Some(under_way.unwrap_or(tx.head())))
}

/// Where this change switches device lists off for a service, remember up to which line of their log it was told: what the pass has not
/// read yet, it is not told by the pass. A back-fill that is not finished has still to tell what came after an earlier end.
fn note_end_of_lists(
    tx: &mut Tx<'_>,
    id: &ServiceId,
    before: &ServiceRow,
    now: InForce,
) -> Result<()> {
    let were_on = last_in_force(before).is_some_and(|last| last.in_force.device_lists);
    if !were_on || now.device_lists || back_fill::get(tx, id)?.is_some_and(|b| b.away) {
        return Ok(());
    }
    let told = device_log::cursor(tx)?;
    Ok(tracked::set_told_until(tx, id, told)?)
}

/// The members as of this write: rooms in which somebody came or went since the counting began are counted again, whole.
fn recounted(tx: &mut Tx<'_>, interests: &Interests, counted: &Counted) -> Result<Members> {
    let mut members = counted.members.clone();
    if members.is_empty() {
        return Ok(members);
    }
    let services: BTreeSet<ServiceId> = members.keys().cloned().collect();
    for room in device_log::rooms_changed_since(tx, counted.since)? {
        for rooms in members.values_mut() {
            rooms.remove(&room);
        }
        for user in service_rooms::joined_to(tx, &room)? {
            for id in members_of(interests, &services, &user) {
                let rooms = members.entry(id).or_default();
                *rooms.entry(room.clone()).or_default() += 1;
            }
        }
    }
    Ok(members)
}
// ANCHOR_END: count

/// Whether the operator lets a service observe.
pub(super) fn may_observe(settings: &Settings, id: &ServiceId) -> bool {
    let observe = settings.observe.as_ref();
    observe.is_none_or(|list| list.contains(id))
}

/// Compile the interests of these registrations as the operator allows them.
///
/// # Errors
/// Why they cannot be compiled.
pub(super) fn compile<'a>(
    registrations: impl Iterator<Item = &'a Registration>,
    settings: &Settings,
) -> Result<Interests, String> {
    let allowed = registrations.map(|r| (r.clone(), may_observe(settings, &r.id)));
    Interests::compile(
        settings.server_name.as_str(),
        allowed.collect(),
        settings.proposals,
    )
    .map_err(|why| format!("namespaces: {why}"))
}

/// What was in force when the server stopped, compiled anew: for a command on a server that does not run.
pub(super) fn restore(tx: &mut Tx<'_>, settings: &Settings) -> Result<()> {
    let rows = appservices::all(tx)?;
    let present = rows.iter().filter(|row| row.present);
    let registrations: Vec<Registration> = present.filter_map(registration_of).collect();
    let interests = compile(registrations.iter(), settings);
    crate::services::swap_interests(
        tx,
        interests.map_err(|why| Refusal::InvalidParam(why.into()))?,
    );
    Ok(())
}
