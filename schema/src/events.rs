//! Room events, each as it was signed, and the current state of rooms. Fields by which events are searched have columns of
//! their own.
//!
//! Owner: `rooms`.

use diesel::dsl::max;
use diesel::prelude::*;

use crate::store::conn::{Engine, is_key};
use crate::store::kept::Keep as _;
use crate::tables::{events, room_state};
use crate::{Conn, Position, Result};

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = events, treat_none_as_default_value = false)]
pub struct EventRow {
    /// Its position, which also orders the events of its room.
    pub position: i64,
    /// The event id, a hash of the event.
    pub event_id: String,
    /// The room id.
    pub room_id: String,
    /// The `type`.
    pub kind: String,
    /// The state key; `None` if it is not a state event.
    pub state_key: Option<String>,
    /// The user that sent it.
    pub sender: String,
    /// When it was sent, in milliseconds since the epoch.
    pub origin_server_ts: i64,
    /// The whole event in the server-server format, as canonical JSON. Once the event is redacted, its redacted form.
    pub pdu: String,
    /// The id of the state event that it replaced.
    pub replaces: Option<String>,
    /// The id of the event that redacted it.
    pub redacted_by: Option<String>,
    /// The device that sent the event.
    pub device_id: Option<String>,
    /// The transaction id with which the client sent the event.
    pub txn_id: Option<String>,
}

/// Inserts an event.
pub fn insert(db: &mut Conn, row: &EventRow) -> Result<()> {
    on!(db, |c| diesel::insert_into(events::table)
        .values(row)
        .kept()
        .execute(c))?;
    db.added(format_args!("events"), 1);
    Ok(())
}

/// The event with this id.
pub fn by_id(db: &mut Conn, event_id: &str) -> Result<Option<EventRow>> {
    if !is_key(event_id) {
        return Ok(None);
    }
    Ok(on!(db, |c| events::table
        .filter(events::event_id.eq(event_id))
        .select(EventRow::as_select())
        .first(c)
        .optional())?)
}

/// The events at these positions, which must be ascending. Positions without an event are skipped.
pub fn at(db: &mut Conn, positions: &[Position]) -> Result<Vec<EventRow>> {
    let mut found = Vec::with_capacity(positions.len());
    match &mut db.engine {
        // One query for each, because the statement is cached: a query for a list is a new statement for each length.
        Engine::Sqlite(c) => {
            for position in positions {
                found.extend(
                    events::table
                        .find(position.0)
                        .select(EventRow::as_select())
                        .first(c)
                        .optional()?,
                );
            }
        }
        Engine::Postgres(c) => {
            let positions: Vec<i64> = positions.iter().map(|p| p.0).collect();
            found = events::table
                .filter(events::position.eq_any(&positions))
                .order(events::position)
                .select(EventRow::as_select())
                .load(c)?;
        }
    }
    Ok(found)
}

/// The events of a room after `after` and up to `up_to`, oldest first.
pub fn oldest_first(
    db: &mut Conn,
    room_id: &str,
    after: Position,
    up_to: Position,
    limit: i64,
) -> Result<Vec<EventRow>> {
    Ok(on!(db, |c| events::table
        .filter(events::room_id.eq(room_id))
        .filter(events::position.gt(after.0))
        .filter(events::position.le(up_to.0))
        .order(events::position)
        .limit(limit)
        .select(EventRow::as_select())
        .load(c))?)
}

/// The events of a room after `after` and up to `up_to`, newest first.
pub fn newest_first(
    db: &mut Conn,
    room_id: &str,
    after: Position,
    up_to: Position,
    limit: i64,
) -> Result<Vec<EventRow>> {
    Ok(on!(db, |c| events::table
        .filter(events::room_id.eq(room_id))
        .filter(events::position.gt(after.0))
        .filter(events::position.le(up_to.0))
        .order(events::position.desc())
        .limit(limit)
        .select(EventRow::as_select())
        .load(c))?)
}

/// Replaces an event by its redacted form `pdu`. `by` is the id of the event that redacts it.
pub fn redact(db: &mut Conn, event_id: &str, pdu: &str, by: &str) -> Result<()> {
    on!(db, |c| diesel::update(
        events::table.filter(events::event_id.eq(event_id))
    )
    .set((events::pdu.eq(pdu), events::redacted_by.eq(by)))
    .kept()
    .execute(c))?;
    Ok(())
}

#[derive(Debug, Insertable, AsChangeset)]
#[diesel(table_name = room_state)]
struct StateRow<'a> {
    room_id: &'a str,
    kind: &'a str,
    state_key: &'a str,
    event_id: &'a str,
    position: i64,
}

/// Makes an event the current state for its type and state key. Does nothing if it is not a state event.
pub fn make_current(db: &mut Conn, event: &EventRow) -> Result<()> {
    use room_state as t;
    let Some(state_key) = &event.state_key else {
        return Ok(());
    };
    let row = StateRow {
        room_id: &event.room_id,
        kind: &event.kind,
        state_key,
        event_id: &event.event_id,
        position: event.position,
    };
    on!(db, |c| diesel::insert_into(t::table)
        .values(&row)
        .on_conflict((t::room_id, t::kind, t::state_key))
        .do_update()
        .set(&row)
        .kept()
        .execute(c))?;
    Ok(())
}

/// The current state event for a type and state key.
pub fn state(
    db: &mut Conn,
    room_id: &str,
    kind: &str,
    state_key: &str,
) -> Result<Option<EventRow>> {
    if !is_key(kind) || !is_key(state_key) {
        return Ok(None);
    }
    Ok(on!(db, |c| room_state::table
        .inner_join(events::table.on(events::position.eq(room_state::position)))
        .filter(room_state::room_id.eq(room_id))
        .filter(room_state::kind.eq(kind))
        .filter(room_state::state_key.eq(state_key))
        .select(EventRow::as_select())
        .first(c)
        .optional())?)
}

/// The current state of a room, in order of type and state key.
pub fn current_state(db: &mut Conn, room_id: &str, limit: i64) -> Result<Vec<EventRow>> {
    Ok(on!(db, |c| room_state::table
        .inner_join(events::table.on(events::position.eq(room_state::position)))
        .filter(room_state::room_id.eq(room_id))
        .order((room_state::kind, room_state::state_key))
        .limit(limit)
        .select(EventRow::as_select())
        .load(c))?)
}

/// The current state events of one type in a room, in order of state key.
pub fn current_state_of(
    db: &mut Conn,
    room_id: &str,
    kind: &str,
    limit: i64,
) -> Result<Vec<EventRow>> {
    Ok(on!(db, |c| room_state::table
        .inner_join(events::table.on(events::position.eq(room_state::position)))
        .filter(room_state::room_id.eq(room_id))
        .filter(room_state::kind.eq(kind))
        .order(room_state::state_key)
        .limit(limit)
        .select(EventRow::as_select())
        .load(c))?)
}

/// The state event for a type and state key as of a position.
pub fn state_as_of(
    db: &mut Conn,
    room_id: &str,
    kind: &str,
    state_key: &str,
    up_to: Position,
) -> Result<Option<EventRow>> {
    if !is_key(kind) || !is_key(state_key) {
        return Ok(None);
    }
    Ok(on!(db, |c| events::table
        .filter(events::room_id.eq(room_id))
        .filter(events::kind.eq(kind))
        .filter(events::state_key.eq(state_key))
        .filter(events::position.le(up_to.0))
        .order(events::position.desc())
        .select(EventRow::as_select())
        .first(c)
        .optional())?)
}

/// The state events for a type and state key after `after` and up to `up_to`, oldest first.
pub fn state_history(
    db: &mut Conn,
    room_id: &str,
    kind: &str,
    state_key: &str,
    after: Position,
    up_to: Position,
    limit: i64,
) -> Result<Vec<EventRow>> {
    Ok(on!(db, |c| events::table
        .filter(events::room_id.eq(room_id))
        .filter(events::kind.eq(kind))
        .filter(events::state_key.eq(state_key))
        .filter(events::position.gt(after.0))
        .filter(events::position.le(up_to.0))
        .order(events::position)
        .limit(limit)
        .select(EventRow::as_select())
        .load(c))?)
}

/// The state of a room that changed after `after` and up to `up_to`, in order of position: the last event for each type and
/// state key. From [`Position::START`] on it is the whole state as of `up_to`.
pub fn state_between(
    db: &mut Conn,
    room_id: &str,
    after: Position,
    up_to: Position,
    limit: i64,
) -> Result<Vec<EventRow>> {
    let latest = diesel::alias!(events as latest);
    Ok(on!(db, |c| events::table
        .filter(
            events::position.nullable().eq_any(
                latest
                    .filter(latest.field(events::room_id).eq(room_id))
                    .filter(latest.field(events::state_key).is_not_null())
                    .filter(latest.field(events::position).gt(after.0))
                    .filter(latest.field(events::position).le(up_to.0))
                    .group_by(latest.fields((events::kind, events::state_key)))
                    .select(max(latest.field(events::position)))
            )
        )
        .order(events::position)
        .limit(limit)
        .select(EventRow::as_select())
        .load(c))?)
}

/// The events of a room around a time, nearest first: those up to `ts` if `backwards`, else those from `ts` on.
pub fn near(
    db: &mut Conn,
    room_id: &str,
    ts: i64,
    backwards: bool,
    limit: i64,
) -> Result<Vec<EventRow>> {
    let (ts_column, position) = (events::origin_server_ts, events::position);
    Ok(if backwards {
        on!(db, |c| events::table
            .filter(events::room_id.eq(room_id))
            .filter(ts_column.le(ts))
            .order((ts_column.desc(), position.desc()))
            .limit(limit)
            .select(EventRow::as_select())
            .load(c))?
    } else {
        on!(db, |c| events::table
            .filter(events::room_id.eq(room_id))
            .filter(ts_column.ge(ts))
            .order((ts_column, position))
            .limit(limit)
            .select(EventRow::as_select())
            .load(c))?
    })
}
