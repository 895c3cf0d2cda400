//! What the hooks of proposals are informed of when something is acknowledged. Read only if a hook observes changes.

use diesel::prelude::*;

use crate::inbox::InboxRow;
use crate::owed::{DELIVERED, Owed};
use crate::tables::{inbox, owed};
use crate::{Conn, Position, Result, ServiceId};

/// The items that a transaction carries, in order.
pub fn carried(db: &mut Conn, service: &ServiceId, txn: i64) -> Result<Vec<Owed>> {
    Ok(on!(db, |c| owed::table
        .filter(owed::appservice_id.eq(service.as_str()))
        .filter(owed::txn.eq(txn))
        .order(owed::position)
        .select(Owed::as_select())
        .load(c))?)
}

/// The unacknowledged messages between two positions over whose devices an appservice decides and that it is not owed any more: those
/// that [`acknowledge_service`](crate::inbox::acknowledge_service) deletes or marks as acknowledged.
pub fn taken_by(
    db: &mut Conn,
    service: &ServiceId,
    from: Position,
    up_to: Position,
    limit: i64,
) -> Result<Vec<InboxRow>> {
    let own = diesel::dsl::exists(
        owed::table
            .filter(owed::position.eq(inbox::position))
            .filter(owed::appservice_id.eq(service.as_str()))
            .filter(owed::txn.is_null().or(owed::txn.ne(DELIVERED))),
    );
    let positions: Vec<i64> = on!(db, |c| inbox::table
        .filter(inbox::position.ge(from.0))
        .filter(inbox::position.le(up_to.0))
        .filter(inbox::decided_by.eq(service.as_str()))
        .filter(diesel::dsl::not(inbox::acknowledged))
        .filter(diesel::dsl::not(own))
        .order(inbox::position)
        .limit(limit)
        .select(inbox::position)
        .load(c))?;
    let positions: Vec<Position> = positions.into_iter().map(Position).collect();
    crate::inbox::at(db, &positions)
}
