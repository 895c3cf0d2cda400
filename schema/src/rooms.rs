//! Rooms: one row for each, with the last event of its linear history and the numbers of its members.
//!
//! Owner: `rooms`.

use diesel::prelude::*;

use crate::store::kept::Keep as _;
use crate::tables::rooms;
use crate::{Conn, Result};

/// The row of a room; `None` if it does not exist. Its history is linear: `tip` is the only event that no other event follows.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = rooms)]
pub struct RoomRow {
    /// The room id.
    pub room_id: String,
    /// The room version.
    pub version: String,
    /// The sender of the create event.
    pub creator: String,
    /// The id of its last event.
    pub tip: String,
    /// The `depth` of the last event.
    pub depth: i64,
    /// The number of joined users.
    pub joined: i64,
    /// The number of invited users.
    pub invited: i64,
    /// Whether the room directory lists the room.
    pub is_public: bool,
}

/// A room.
pub fn room(db: &mut Conn, room_id: &str) -> Result<Option<RoomRow>> {
    Ok(on!(db, |c| rooms::table
        .find(room_id)
        .select(RoomRow::as_select())
        .first(c)
        .optional())?)
}

/// Inserts a room.
///
/// # Errors
/// [`Error::Database`](crate::Error::Database) if the room exists.
pub fn create(db: &mut Conn, row: &RoomRow) -> Result<()> {
    on!(db, |c| diesel::insert_into(rooms::table)
        .values(row)
        .kept()
        .execute(c))?;
    Ok(())
}

/// Stores the last event of a room, its depth and the numbers of members.
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
    .kept()
    .execute(c))?;
    Ok(())
}

/// Adds a room to the directory or removes it.
pub fn set_public(db: &mut Conn, room_id: &str, public: bool) -> Result<()> {
    on!(db, |c| diesel::update(rooms::table.find(room_id))
        .set(rooms::is_public.eq(public))
        .kept()
        .execute(c))?;
    Ok(())
}

/// A page of the rooms in the directory, the largest first. `after` is the number of joined users and the id of the last room
/// of the page before.
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

/// The number of rooms in the directory.
pub fn count_public(db: &mut Conn) -> Result<i64> {
    Ok(on!(db, |c| rooms::table
        .filter(rooms::is_public.eq(true))
        .count()
        .get_result(c))?)
}
