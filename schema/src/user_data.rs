//! Data that clients store with an account: account data, global and for rooms, and filters.
//!
//! Owner: `accounts`.

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::inbox::octet_length;
use crate::store::kept::Keep as _;
use crate::tables::{account_data, filters};
use crate::{Conn, Position, Result, Tx};

/// A piece of account data.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = account_data)]
pub struct DataRow {
    /// The user that owns it.
    pub user_id: String,
    /// The room that it is for; empty if it is global.
    pub room_id: String,
    /// The event type.
    pub kind: String,
    /// The content, with the bytes that the client sent.
    pub content: String,
    /// The position of its last change.
    pub position: i64,
}

/// Inserts or replaces a piece of account data. `room_id` is empty for global account data.
pub fn put(
    tx: &mut Tx<'_>,
    user_id: &str,
    room_id: &str,
    kind: &str,
    content: &str,
) -> Result<DataRow> {
    use account_data as t;
    let row = DataRow {
        user_id: user_id.to_owned(),
        room_id: room_id.to_owned(),
        kind: kind.to_owned(),
        content: content.to_owned(),
        position: tx.next_position().0,
    };
    on!(&mut **tx, |c| diesel::insert_into(t::table)
        .values(&row)
        .on_conflict((t::user_id, t::room_id, t::kind))
        .do_update()
        .set((
            t::content.eq(excluded(t::content)),
            t::position.eq(excluded(t::position))
        ))
        .kept()
        .execute(c))?;
    Ok(row)
}

/// The content of a piece of account data. `room_id` is empty for global account data.
pub fn get(db: &mut Conn, user_id: &str, room_id: &str, kind: &str) -> Result<Option<String>> {
    Ok(on!(db, |c| account_data::table
        .find((user_id, room_id, kind))
        .select(account_data::content)
        .first(c)
        .optional())?)
}

/// The number of pieces of account data of a user, those of rooms included.
pub fn count(db: &mut Conn, user_id: &str) -> Result<i64> {
    Ok(on!(db, |c| account_data::table
        .filter(account_data::user_id.eq(user_id))
        .count()
        .get_result(c))?)
}

/// The size of a user's account data, in bytes, those of rooms included, without the piece named.
pub fn bytes_besides(db: &mut Conn, user_id: &str, room_id: &str, kind: &str) -> Result<i64> {
    use account_data as t;
    let sum: Option<i64> = on!(db, |c| t::table
        .filter(t::user_id.eq(user_id))
        .filter(t::room_id.ne(room_id).or(t::kind.ne(kind)))
        .select(diesel::dsl::sum(octet_length(t::content)))
        .first(c))?;
    Ok(sum.unwrap_or(0))
}

/// The account data of a user, global and of rooms, that changed after `after` and up to `up_to`, oldest first.
pub fn changed(
    db: &mut Conn,
    user_id: &str,
    after: Position,
    up_to: Position,
    limit: i64,
) -> Result<Vec<DataRow>> {
    Ok(on!(db, |c| account_data::table
        .filter(account_data::user_id.eq(user_id))
        .filter(account_data::position.gt(after.0))
        .filter(account_data::position.le(up_to.0))
        .order(account_data::position)
        .limit(limit)
        .select(DataRow::as_select())
        .load(c))?)
}

/// The account data of a user for one room, up to a position, in order of type: for a room that is new to a client.
pub fn of_room(
    db: &mut Conn,
    user_id: &str,
    room_id: &str,
    up_to: Position,
    limit: i64,
) -> Result<Vec<DataRow>> {
    Ok(on!(db, |c| account_data::table
        .filter(account_data::user_id.eq(user_id))
        .filter(account_data::room_id.eq(room_id))
        .filter(account_data::position.le(up_to.0))
        .order(account_data::kind)
        .limit(limit)
        .select(DataRow::as_select())
        .load(c))?)
}

/// Stores a filter, unless its id exists.
pub fn put_filter(db: &mut Conn, user_id: &str, filter_id: &str, filter: &str) -> Result<()> {
    let row = (
        filters::user_id.eq(user_id),
        filters::filter_id.eq(filter_id),
        filters::filter.eq(filter),
    );
    on!(db, |c| diesel::insert_into(filters::table)
        .values(&row)
        .on_conflict_do_nothing()
        .kept()
        .execute(c))?;
    Ok(())
}

/// A filter, as JSON.
pub fn filter(db: &mut Conn, user_id: &str, filter_id: &str) -> Result<Option<String>> {
    Ok(on!(db, |c| filters::table
        .find((user_id, filter_id))
        .select(filters::filter)
        .first(c)
        .optional())?)
}

/// The number of a user's filters.
pub fn count_filters(db: &mut Conn, user_id: &str) -> Result<i64> {
    Ok(on!(db, |c| filters::table
        .filter(filters::user_id.eq(user_id))
        .count()
        .get_result(c))?)
}
