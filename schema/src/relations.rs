//! Which events say something about which others: replies in threads, edits, annotations.
//!
//! Owner: `rooms`.

use diesel::prelude::*;

use crate::events::EventRow;
use crate::tables::{events, relations};
use crate::{Conn, Position, Result, threads};

/// One event says something about another.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = relations)]
pub struct RelationRow {
    /// The position of the event that says it.
    pub position: i64,
    /// The id of the event that it is about.
    pub parent: String,
    /// How: `m.annotation`, `m.replace`, `m.thread`, …
    pub rel_type: String,
    /// The type of the event that says it.
    pub kind: String,
    /// Who says it.
    pub sender: String,
    /// What an annotation says; else empty.
    pub key: String,
}

/// Keep a relation between events of a room, and with it the thread that it makes longer.
pub fn insert(db: &mut Conn, room_id: &str, row: &RelationRow) -> Result<()> {
    on!(db, |c| diesel::insert_into(relations::table)
        .values(row)
        .execute(c))?;
    if row.rel_type == threads::REL_TYPE {
        threads::replied(db, room_id, &row.parent, Position(row.position))?;
    }
    Ok(())
}

/// The event of a room at this position was redacted: it says nothing any more, and is no reply in a thread.
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

/// Whether this was said before by the same sender about the same event in the same words.
pub fn is_said(db: &mut Conn, row: &RelationRow) -> Result<bool> {
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

/// The events of a room that say something about one of its events, after a position and up to another.
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

/// How the event at a position relates to another, if it does.
pub fn of(db: &mut Conn, position: Position) -> Result<Option<RelationRow>> {
    Ok(on!(db, |c| relations::table
        .find(position.0)
        .select(RelationRow::as_select())
        .first(c)
        .optional())?)
}
