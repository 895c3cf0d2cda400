//! Relations between events: replies in threads, edits, annotations.
//!
//! Owner: `rooms`.

use diesel::prelude::*;

use crate::events::EventRow;
use crate::store::kept::Keep as _;
use crate::tables::{events, relations};
use crate::{Conn, Position, Result, threads};

/// A relation of an event to another.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = relations)]
pub struct RelationRow {
    /// The position of the event that has the relation.
    pub position: i64,
    /// The id of the event that it relates to.
    pub parent: String,
    /// The type of the relation: `m.annotation`, `m.replace`, `m.thread`, …
    pub rel_type: String,
    /// The type of the event that has the relation.
    pub kind: String,
    /// The sender of the event that has the relation.
    pub sender: String,
    /// The `key` of an annotation; else empty.
    pub key: String,
}

/// Inserts a relation between events of a room, and updates the thread if it is a reply.
pub fn insert(db: &mut Conn, room_id: &str, row: &RelationRow) -> Result<()> {
    on!(db, |c| diesel::insert_into(relations::table)
        .values(row)
        .kept()
        .execute(c))?;
    if row.rel_type == threads::REL_TYPE {
        threads::replied(db, room_id, &row.parent, Position(row.position))?;
    }
    Ok(())
}

/// Deletes the relation of an event that was redacted, and counts its thread again.
pub fn forget(db: &mut Conn, room_id: &str, position: Position) -> Result<()> {
    let Some(row) = of(db, position)? else {
        return Ok(());
    };
    on!(db, |c| diesel::delete(relations::table.find(position.0))
        .execute(c))?;
    if row.rel_type == threads::REL_TYPE {
        threads::count_again(db, room_id, &row.parent)?;
    }
    Ok(())
}

/// Whether this sender has sent an event before with the same type and the same relation (same parent, relation type and `key`).
pub fn exists(db: &mut Conn, row: &RelationRow) -> Result<bool> {
    let found: Option<i64> = on!(db, |c| relations::table
        .filter(relations::parent.eq(&row.parent))
        .filter(relations::rel_type.eq(&row.rel_type))
        .filter(relations::kind.eq(&row.kind))
        .filter(relations::sender.eq(&row.sender))
        .filter(relations::key.eq(&row.key))
        .select(relations::position)
        .first(c)
        .optional())?;
    Ok(found.is_some())
}

/// The positions and ids of up to `limit` events of a room that relate to one of `parents`, oldest first.
pub fn children(
    db: &mut Conn,
    room_id: &str,
    parents: &[String],
    limit: i64,
) -> Result<Vec<(i64, String)>> {
    Ok(on!(db, |c| relations::table
        .inner_join(events::table.on(events::position.eq(relations::position)))
        .filter(relations::parent.eq_any(parents))
        .filter(events::room_id.eq(room_id))
        .order(relations::position)
        .limit(limit)
        .select((events::position, events::event_id))
        .load(c))?)
}

/// The events of a room that relate to `parent`, after `after` and up to `up_to`.
pub fn about(
    db: &mut Conn,
    room_id: &str,
    parent: &str,
    after: Position,
    up_to: Position,
    newest_first: bool,
    limit: i64,
) -> Result<Vec<EventRow>> {
    macro_rules! related {
        () => {
            relations::table
                .inner_join(events::table.on(events::position.eq(relations::position)))
                .filter(relations::parent.eq(parent))
                .filter(relations::position.gt(after.0))
                .filter(relations::position.le(up_to.0))
                .filter(events::room_id.eq(room_id))
                .limit(limit)
                .select(EventRow::as_select())
        };
    }
    Ok(if newest_first {
        on!(db, |c| related!().order(relations::position.desc()).load(c))?
    } else {
        on!(db, |c| related!().order(relations::position).load(c))?
    })
}

/// The relation of the event at a position; `None` if it has none.
pub fn of(db: &mut Conn, position: Position) -> Result<Option<RelationRow>> {
    Ok(on!(db, |c| relations::table
        .find(position.0)
        .select(RelationRow::as_select())
        .first(c)
        .optional())?)
}
