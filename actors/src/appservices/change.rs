//! Bringing new registrations into force: one write, alone in its batch, and short. What is long about it, counting members, is
//! done before it by reading; giving a service what it missed is done after it, page by page ([`super::back_fill`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schema::interests::{Claim, Interests};
use schema::registration::{Registration, ServiceId};
use schema::{
    Position, Store, Tx, accounts, appservices, back_fill, device_lists, service_rooms, sync,
    user_data,
};

use super::rules::Plan;
use crate::{Error, Refusal, Result, Settings};

/// Rooms written down in one go.
const PIECE: usize = 500;

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
    for (id, rooms) in &members {
        write_gained(store, id, rooms).await?;
    }
    Ok(Counted { since, members })
}

/// Write down the rooms that a service gains, piece by piece and a little early, so that the one write that counts finds most of
/// them there. Being told early harms nobody, and a room in which something happens meanwhile is counted again.
async fn write_gained(store: &Store, id: &ServiceId, rooms: &BTreeMap<String, i64>) -> Result<()> {
    let service = id.clone();
    let known = store.read(move |db| Ok::<_, Error>(service_rooms::members(db, &service)?));
    let known = known.await?;
    let gained = rooms.iter().filter(|(room, _)| !known.contains_key(*room));
    let gained: Vec<_> = gained.map(|(room, n)| (room.clone(), *n)).collect();
    for piece in gained.chunks(PIECE) {
        let (service, piece) = (id.clone(), piece.to_vec());
        let write = store.write_always(move |tx| {
            let mut piece = piece.iter();
            piece.try_for_each(|(room, n)| service_rooms::put_members(tx, &service, room, *n))
        });
        write.await.map_err(Error::from)?;
    }
    Ok(())
}

/// Of these services, those whose user this is.
fn members_of(interests: &Interests, services: &BTreeSet<ServiceId>, user: &str) -> Vec<ServiceId> {
    let claimed = interests.in_user(user).into_iter();
    claimed
        .map(|(service, _)| service.id.clone())
        .filter(|id| services.contains(id))
        .collect()
}

/// Store the registrations and the members, mark whom to give what it missed, and swap the interests. Everything committed
/// before this write is counted or back-filled, everything after it sees the new interests; so nothing falls between.
pub(super) fn apply(
    tx: &mut Tx<'_>,
    plan: &Plan,
    interests: Arc<Interests>,
    counted: Counted,
    settings: &Settings,
    now: i64,
) -> Result<()> {
    for row in appservices::all(tx)? {
        let id = ServiceId::from(row.appservice_id.as_str());
        if plan.gone.contains(&id) {
            appservices::save(tx, &id, &row.registration, &row.file, false)?;
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
    let members = recounted(tx, &interests, counted)?;
    for (id, rooms) in &members {
        service_rooms::set_members(tx, id, rooms)?;
        let is_its_own = |user: &str| interests.claim(id, user).is_some_and(Claim::is_exclusive);
        user_data::retain_owed(tx, id, is_its_own)?;
        back_fill::begin(tx, id, plan.away.contains(id))?;
    }
    tx.swap_interests(interests);
    Ok(())
}

/// The members as of this write: rooms in which somebody came or went since the counting began are counted again, whole.
fn recounted(tx: &mut Tx<'_>, interests: &Interests, counted: Counted) -> Result<Members> {
    let Counted { since, mut members } = counted;
    if members.is_empty() {
        return Ok(members);
    }
    let services: BTreeSet<ServiceId> = members.keys().cloned().collect();
    for room in device_lists::rooms_changed_since(tx, since)? {
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
