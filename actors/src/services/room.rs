//! Which appservices something in a room concerns.

use std::collections::BTreeSet;

use schema::owed::{EVENT, Owed};
use schema::{Conn, Position, ServiceId, aliases, service_rooms};

use super::interests::Interests;

/// The appservices that something in this room concerns: those with a joined member in it, or with a pattern for its id or one
/// of its aliases. Clause: as.txn.interest-member, as.txn.interest-room, as.txn.no-interest
pub fn interested_in_room(
    db: &mut Conn,
    interests: &Interests,
    room_id: &str,
) -> schema::Result<BTreeSet<ServiceId>> {
    let members = service_rooms::services_in(db, room_id)?.into_iter();
    let by_id = interests.in_room_id(room_id).into_iter();
    let mut found: BTreeSet<ServiceId> = members.chain(by_id.map(|s| s.id.clone())).collect();
    if interests.has_alias_patterns() {
        for name in aliases::of_room(db, room_id, i64::MAX)? {
            let by_alias = interests.in_alias(&name).into_iter();
            found.extend(by_alias.map(|(s, _)| s.id.clone()));
        }
    }
    Ok(found)
}

/// The rows by which these appservices are owed the event at this position. Appservices without a URL are owed nothing.
pub fn owed_event(
    interests: &Interests,
    event: Position,
    services: &BTreeSet<ServiceId>,
) -> Vec<Owed> {
    let services = services.iter().filter_map(|id| interests.service(id));
    let reachable = services.filter(|service| service.is_reachable());
    reachable
        .map(|service| service.owed(event, EVENT))
        .collect()
}
