//! Read receipts: the last one for each user, type and thread of a room.
//!
//! Owner: `rooms`.

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::store::kept::Keep as _;
use crate::tables::receipts;
use crate::{Conn, Position, Result};

/// A read receipt.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = receipts)]
pub struct ReceiptRow {
    /// The room id.
    pub room_id: String,
    /// The user that sent it.
    pub user_id: String,
    /// `m.read` or `m.read.private`.
    pub kind: String,
    /// The thread, or `main`; empty if the receipt names none.
    pub thread_id: String,
    /// The id of the event up to which the user has read.
    pub event_id: String,
    /// When it was sent, in milliseconds since the epoch.
    pub ts: i64,
    /// Its position.
    pub position: i64,
}

/// The receipt of a user for one type and thread of a room.
pub fn get(
    db: &mut Conn,
    room_id: &str,
    user_id: &str,
    kind: &str,
    thread_id: &str,
) -> Result<Option<ReceiptRow>> {
    Ok(on!(db, |c| receipts::table
        .find((room_id, user_id, kind, thread_id))
        .select(ReceiptRow::as_select())
        .first(c)
        .optional())?)
}

/// All receipts of a user in a room.
pub fn of_user(db: &mut Conn, room_id: &str, user_id: &str, limit: i64) -> Result<Vec<ReceiptRow>> {
    Ok(on!(db, |c| receipts::table
        .filter(receipts::room_id.eq(room_id))
        .filter(receipts::user_id.eq(user_id))
        .order((receipts::kind, receipts::thread_id))
        .limit(limit)
        .select(ReceiptRow::as_select())
        .load(c))?)
}

/// Inserts or replaces a receipt.
pub fn put(db: &mut Conn, row: &ReceiptRow) -> Result<()> {
    use receipts as t;
    on!(db, |c| diesel::insert_into(t::table)
        .values(row)
        .on_conflict((t::room_id, t::user_id, t::kind, t::thread_id))
        .do_update()
        .set((
            t::event_id.eq(excluded(t::event_id)),
            t::ts.eq(excluded(t::ts)),
            t::position.eq(excluded(t::position))
        ))
        .kept()
        .execute(c))?;
    Ok(())
}

/// The receipts of a room after `after` and up to `up_to`, oldest first.
pub fn after(
    db: &mut Conn,
    room_id: &str,
    after: Position,
    up_to: Position,
    limit: i64,
) -> Result<Vec<ReceiptRow>> {
    Ok(on!(db, |c| receipts::table
        .filter(receipts::room_id.eq(room_id))
        .filter(receipts::position.gt(after.0))
        .filter(receipts::position.le(up_to.0))
        .order(receipts::position)
        .limit(limit)
        .select(ReceiptRow::as_select())
        .load(c))?)
}
