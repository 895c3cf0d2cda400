//! Rooms: one row each, with the tip of its linear history and how many are in it.
//!
//! Owner: `rooms`.

use diesel::prelude::*;

use crate::tables::rooms;
use crate::{Conn, Result};

/// A room. Its history is a line: `tip` is the only event that nothing follows.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = rooms)]
pub struct RoomRow {
    /// Its id.
    pub room_id: String,
    /// Its room version.
    pub version: String,
    /// Who sent its create event.
    pub creator: String,
    /// The id of its last event.
    pub tip: String,
    /// The depth of that event.
    pub depth: i64,
    /// How many users are joined.
    pub joined: i64,
    /// How many users are invited.
    pub invited: i64,
    /// Whether the room directory lists it.
    pub is_public: bool,
}

/// One room.
pub fn room(db: &mut Conn, room_id: &str) -> Result<Option<RoomRow>> {
    Ok(on!(db, |c| rooms::table
        .find(room_id)
        .select(RoomRow::as_select())
        .first(c)
        .optional())?)
}

/// A new room.
///
/// # Errors
/// When the database fails, or the room exists.
pub fn create(db: &mut Conn, row: &RoomRow) -> Result<()> {
    on!(db, |c| diesel::insert_into(rooms::table)
        .values(row)
        .execute(c))?;
    Ok(())
}

/// The room has a new last event and perhaps other numbers of members.
pub fn advance(db: &mut Conn, row: &RoomRow) -> Result<()> {
    on!(db, |c| diesel::update(
        rooms::table.find(row.room_id.as_str())
    )
    .set((
        rooms::tip.eq(&row.tip),
        rooms::depth.eq(row.depth),
        rooms::joined.eq(row.joined),
        rooms::invited.eq(row.invited),
    ))
    .execute(c))?;
    Ok(())
}

/// List the room in the directory, or no longer.
pub fn set_public(db: &mut Conn, room_id: &str, public: bool) -> Result<()> {
    on!(db, |c| diesel::update(rooms::table.find(room_id))
        .set(rooms::is_public.eq(public))
        .execute(c))?;
    Ok(())
}

/// The rooms of the directory, the largest first; `after` is the size and id of the last one of the page before.
pub fn public(db: &mut Conn, after: Option<(i64, &str)>, limit: i64) -> Result<Vec<RoomRow>> {
    let (joined, room_id) = after.unwrap_or((i64::MAX, ""));
    Ok(on!(db, |c| rooms::table
        .filter(rooms::is_public.eq(true))
        .filter(
            rooms::joined
                .lt(joined)
                .or(rooms::joined.eq(joined).and(rooms::room_id.gt(room_id)))
        )
        .order((rooms::joined.desc(), rooms::room_id))
        .limit(limit)
        .select(RoomRow::as_select())
        .load(c))?)
}

/// How many rooms the directory lists.
pub fn count_public(db: &mut Conn) -> Result<i64> {
    Ok(on!(db, |c| rooms::table
        .filter(rooms::is_public.eq(true))
        .count()
        .get_result(c))?)
}
