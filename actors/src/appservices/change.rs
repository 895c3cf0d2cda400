//! Brings new registrations into force in one short write, alone in its batch. Counting members takes long, so it is done by
//! reads before the write. What an appservice missed is added afterwards, page by page ([`super::back_fill`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schema::ServiceId;
use schema::appservices::ServiceRow;
use schema::{
    Position, Store, Tx, accounts, appservices, back_fill, device_log, server_info, service_rooms,
    sync, tracked,
};

use super::rules::{Plan, RegistrationInForce};
use crate::accounts::account_data;
use crate::services::{
    FeaturesInForce, Interests, LastInForce, Registration, last_in_force, registration_of,
};
use crate::{Error, Refusal, Result, Settings};

/// The key under which the server stores the names of broken files that belong to no known appservice.
pub(super) const UNIDENTIFIED: &str = "registration_strangers";

/// The number of joined members of each appservice in each room.
type JoinedCounts = BTreeMap<ServiceId, BTreeMap<String, i64>>;

/// The joined members of appservices in each room. They were counted by reads, page by page, while the server went on.
#[derive(Clone)]
pub(super) struct MemberCounts {
    /// The last position when the counting began. Rooms in which a membership changed since are counted again.
    since: Position,
    members: JoinedCounts,
}

// ANCHOR: count
/// Count the joined members of these appservices in each room, in many short snapshots that block no write.
pub(super) async fn count(
    store: &Store,
    interests: &Arc<Interests>,
    services: &BTreeSet<ServiceId>,
) -> Result<MemberCounts> {
    let since = store.read(sync::head).await?;
    // An appservice without joined members gets an empty count, so that its stored count is deleted.
    let mut members: JoinedCounts = services
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
    Ok(MemberCounts { since, members })
}

/// The appservices among these that claim this user.
fn members_of(interests: &Interests, services: &BTreeSet<ServiceId>, user: &str) -> Vec<ServiceId> {
    let claimed = interests.in_user(user).into_iter();
    claimed
        .map(|(service, _)| service.id.clone())
        .filter(|id| services.contains(id))
        .collect()
}

/// The plan for the registrations, and what was prepared for it before the write.
pub(super) struct Change {
    pub(super) plan: Arc<Plan>,
    /// The compiled namespaces and the counted members; `None` if only file names have changed.
    pub(super) compiled: Option<(Arc<Interests>, MemberCounts)>,
    pub(super) settings: Settings,
    pub(super) now: i64,
}

/// Store the registrations and the member counts, start the back-fills, and swap the interests, all in one write. The counts are
/// stored together with the registration for which they were made, or not at all. Everything committed before this write is counted
/// or back-filled, and everything after it uses the new interests, so nothing is missed.
pub(super) fn apply(tx: &mut Tx<'_>, change: &Change) -> Result<()> {
    let Change { plan, compiled, .. } = change;
    let before: BTreeMap<ServiceId, ServiceRow> = appservices::all(tx)?
        .into_iter()
        .map(|row| (row.appservice_id.as_str().into(), row))
        .collect();
    server_info::set(
        tx,
        UNIDENTIFIED,
        &serde_json::to_string(&plan.unidentified)?,
    )?;
    for id in &plan.gone {
        if let Some(row) = before.get(id) {
            let missed = account_data_until(tx, id, row, &FeaturesInForce::default())?;
            note_end_of_lists(tx, id, row, &FeaturesInForce::default())?;
            let row = ServiceRow {
                present: false,
                in_force: in_force(FeaturesInForce::default(), missed)?,
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
                note_end_of_lists(tx, id, row, &held.in_force)?;
                account_data_until(tx, id, row, &held.in_force)?
            }
            None => None,
        };
        missed.insert(id, until);
        save(tx, id, held, until.filter(|_| !held.in_force.account_data))?;
        let sender = &held.registration.sender_localpart;
        let sender = format!("@{sender}:{}", change.settings.server_name);
        accounts::ensure_sender(tx, &sender, id, change.now)?;
    }
    let Some((interests, counted)) = compiled else {
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
    held: &RegistrationInForce,
    account_data_until: Option<Position>,
) -> Result<()> {
    let row = ServiceRow {
        appservice_id: id.to_string(),
        registration: serde_json::to_string(&held.registration)?,
        file: held.file.clone(),
        present: true,
        last_txn: 0,
        in_force: in_force(held.in_force.clone(), account_data_until)?,
        acknowledged: 0,
    };
    Ok(appservices::save(tx, &row)?)
}

fn in_force(in_force: FeaturesInForce, account_data_until: Option<Position>) -> Result<String> {
    let last = LastInForce {
        in_force,
        account_data_until: account_data_until.map(|p| p.0),
    };
    Ok(serde_json::to_string(&last)?)
}

/// The position up to which the appservice was owed account data when account data was last switched on for it. If this change
/// switches it off, that is the present position. Otherwise it is the position in an unfinished back-fill, if there is one, and
/// else the stored position.
fn account_data_until(
    tx: &mut Tx<'_>,
    id: &ServiceId,
    before: &ServiceRow,
    now: &FeaturesInForce,
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

/// If this change switches device lists off for an appservice, store the position up to which `device_lists` has read the log: the
/// appservice is owed nothing because of later lines. If an unfinished back-fill still has to cover an earlier gap, the earlier
/// position stays.
fn note_end_of_lists(
    tx: &mut Tx<'_>,
    id: &ServiceId,
    before: &ServiceRow,
    now: &FeaturesInForce,
) -> Result<()> {
    let were_on = last_in_force(before).is_some_and(|last| last.in_force.device_lists);
    if !were_on || now.device_lists || back_fill::get(tx, id)?.is_some_and(|b| b.away) {
        return Ok(());
    }
    let sent = device_log::cursor(tx)?;
    Ok(tracked::set_sent_until(tx, id, sent)?)
}

/// The member counts as of this write: rooms in which a membership changed since the counting began are counted again.
fn recounted(
    tx: &mut Tx<'_>,
    interests: &Interests,
    counted: &MemberCounts,
) -> Result<JoinedCounts> {
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

/// Whether the configuration lets an appservice observe.
pub(super) fn may_observe(settings: &Settings, id: &ServiceId) -> bool {
    let observe = settings.observe.as_ref();
    observe.is_none_or(|list| list.contains(id))
}

/// Compile the interests of these registrations, as the configuration permits them.
///
/// # Errors
/// The reason why they cannot be compiled.
pub(super) fn compile<'a>(
    registrations: impl Iterator<Item = &'a Registration>,
    settings: &Settings,
) -> Result<Interests, String> {
    let allowed = registrations.map(|r| (r.clone(), may_observe(settings, &r.id)));
    Interests::compile(
        settings.server_name.as_str(),
        allowed.collect(),
        &settings.proposals,
    )
    .map_err(|why| format!("namespaces: {why}"))
}

/// Compile again what was in force when the server stopped, for a command that runs without the server.
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
