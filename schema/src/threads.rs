//! The threads of rooms, each with its last reply and the number of replies. [`crate::relations`] keeps them up to date.

use diesel::dsl::{count_star, exists, max, select};
use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::store::kept::Keep as _;
use crate::tables::{events, relations, threads};
use crate::{Conn, Position, Result};

/// The type of the relation that makes an event a reply in a thread.
pub const REL_TYPE: &str = "m.thread";

/// A thread.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = threads)]
pub struct ThreadRow {
    /// The room id.
    pub room_id: String,
    /// The id of the event that starts the thread.
    pub root: String,
    /// The position of the last reply.
    pub latest: i64,
    /// The number of replies.
    pub replies: i64,
}

/// Adds a reply to a thread.
pub(crate) fn replied(db: &mut Conn, room_id: &str, root: &str, at: Position) -> Result<()> {
    use threads as t;
    let row = ThreadRow {
        room_id: room_id.to_owned(),
        root: root.to_owned(),
        latest: at.0,
        replies: 1,
    };
    on!(db, |c| diesel::insert_into(t::table)
        .values(&row)
        .on_conflict((t::room_id, t::root))
        .do_update()
        .set((
            t::latest.eq(excluded(t::latest)),
            t::replies.eq(t::replies + 1)
        ))
        .kept()
        .execute(c))?;
    Ok(())
}

/// Counts the replies of a thread again, after one was redacted.
pub(crate) fn count_again(db: &mut Conn, room_id: &str, root: &str) -> Result<()> {
    use threads as t;
    let (replies, latest): (i64, Option<i64>) = on!(db, |c| relations::table
        .inner_join(events::table.on(events::position.eq(relations::position)))
        .filter(relations::parent.eq(root))
        .filter(relations::rel_type.eq(REL_TYPE))
        .filter(events::room_id.eq(room_id))
        .select((count_star(), max(relations::position)))
        .first(c))?;
    match latest {
        Some(latest) => {
            on!(db, |c| diesel::update(t::table.find((room_id, root)))
                .set((t::latest.eq(latest), t::replies.eq(replies)))
                .kept()
                .execute(c))?;
        }
        None => {
            on!(db, |c| diesel::delete(t::table.find((room_id, root)))
                .execute(c))?;
        }
    }
    Ok(())
}

/// The thread that starts with an event.
pub fn get(db: &mut Conn, room_id: &str, root: &str) -> Result<Option<ThreadRow>> {
    Ok(on!(db, |c| threads::table
        .find((room_id, root))
        .select(ThreadRow::as_select())
        .first(c)
        .optional())?)
}

/// The threads of a room whose last reply is at or before a position, the one with the newest reply first.
pub fn newest_first(
    db: &mut Conn,
    room_id: &str,
    up_to: Position,
    limit: i64,
) -> Result<Vec<ThreadRow>> {
    Ok(on!(db, |c| threads::table
        .filter(threads::room_id.eq(room_id))
        .filter(threads::latest.le(up_to.0))
        .order(threads::latest.desc())
        .limit(limit)
        .select(ThreadRow::as_select())
        .load(c))?)
}

/// Whether a user has replied in a thread.
pub fn has_replied(db: &mut Conn, root: &str, user_id: &str) -> Result<bool> {
    Ok(on!(db, |c| select(exists(
        relations::table
            .filter(relations::parent.eq(root))
            .filter(relations::rel_type.eq(REL_TYPE))
            .filter(relations::sender.eq(user_id))
    ))
    .get_result(c))?)
}
