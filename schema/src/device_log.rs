//! The log of everything that can change which users an appservice must track, and how far back it goes.
//!
//! Owner: `device_lists`.
//!
//! Next on the way of a leave: `actors/src/device_lists/mod.rs`.

use std::collections::BTreeSet;

use diesel::prelude::*;

use crate::ServiceId;
use crate::cursors;
use crate::service_rooms::{count_member, services_in};
use crate::tables::device_list_log;
use crate::{Conn, Position, Result, Tx};

/// The cursor of the one pass that reads the log.
const CURSOR: &str = "device_lists";

/// What a line of the log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The user's devices, keys or signatures changed, for everybody who shares a room.
    Keys,
    /// Something changed that only the user itself sees: its user-signing key, its signatures over others. The line names
    /// the user whose keys look different now.
    Private,
    /// The user's membership in the room changed.
    Member,
    /// The service has its first joined member in the room.
    Gained,
    /// The service's last joined member left the room.
    Lost,
}

impl Kind {
    const fn text(self) -> &'static str {
        match self {
            Kind::Keys => "keys",
            Kind::Private => "private",
            Kind::Member => "member",
            Kind::Gained => "gained",
            Kind::Lost => "lost",
        }
    }

    fn parse(text: &str) -> Kind {
        match text {
            "keys" => Kind::Keys,
            "private" => Kind::Private,
            "gained" => Kind::Gained,
            "lost" => Kind::Lost,
            _ => Kind::Member,
        }
    }
}

#[derive(Debug, Queryable, Selectable, Insertable)]
#[diesel(table_name = device_list_log)]
struct LogRow {
    position: i64,
    kind: String,
    user_id: String,
    room_id: String,
    appservice_id: String,
    covers: i64,
    about: String,
}

/// One line of the log. Fields that its kind has no use for are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place in the order.
    pub position: Position,
    /// What it says.
    pub kind: Kind,
    /// About whom.
    pub user_id: String,
    /// In which room.
    pub room_id: String,
    /// For which service.
    pub service: ServiceId,
    /// The user whose keys look different now, in a line of kind [`Kind::Private`].
    pub subject: String,
    /// The event that it is about, if there is one, or the line itself.
    pub covers: Position,
}

impl From<LogRow> for LogEntry {
    fn from(row: LogRow) -> Self {
        LogEntry {
            position: Position(row.position),
            kind: Kind::parse(&row.kind),
            user_id: row.user_id,
            room_id: row.room_id,
            service: row.appservice_id.into(),
            subject: row.about,
            covers: Position(row.covers),
        }
    }
}

/// The only way to append a line. The listener of [`Store::on_device_list_log`](crate::Store::on_device_list_log) is called when it is
/// committed.
fn log(
    tx: &mut Tx<'_>,
    kind: Kind,
    user_id: &str,
    room_id: &str,
    service: &str,
    covers: Option<Position>,
) -> Result<Position> {
    append(
        tx,
        covers,
        LogRow {
            position: 0,
            kind: kind.text().to_owned(),
            user_id: user_id.to_owned(),
            room_id: room_id.to_owned(),
            appservice_id: service.to_owned(),
            covers: 0,
            about: String::new(),
        },
    )
}

/// Append a line at the next position.
fn append(tx: &mut Tx<'_>, covers: Option<Position>, mut row: LogRow) -> Result<Position> {
    let position = tx.next_position();
    row.position = position.0;
    row.covers = covers.unwrap_or(position).0;
    on!(&mut **tx, |c| diesel::insert_into(device_list_log::table)
        .values(&row)
        .execute(c))?;
    tx.added(format_args!("device_list_log"), 1);
    tx.batch.logged = Some(position);
    Ok(position)
}

/// The user's device list changed: part of the write that changed it.
pub fn keys_changed(tx: &mut Tx<'_>, user_id: &str) -> Result<Position> {
    log(tx, Kind::Keys, user_id, "", "", None)
}

/// The keys of a user, `subject`, look different to this user and to no other: part of the write that changed it.
pub fn private_keys_changed(tx: &mut Tx<'_>, user_id: &str, subject: &str) -> Result<Position> {
    append(
        tx,
        None,
        LogRow {
            position: 0,
            kind: Kind::Private.text().to_owned(),
            user_id: user_id.to_owned(),
            room_id: String::new(),
            appservice_id: String::new(),
            covers: 0,
            about: subject.to_owned(),
        },
    )
}

/// A membership changed: part of the write of the membership event, whose position is `event`, after the row in `memberships`. `own` are
/// the services whose user this is.
///
/// Counts their joined members in the room, logs what a pass must look at, and answers which services
/// had a member in the room before or have one after: the event concerns them all.
pub fn membership_changed(
    tx: &mut Tx<'_>,
    room_id: &str,
    user_id: &str,
    own: &BTreeSet<ServiceId>,
    (before, after): (&str, &str),
    event: Position,
) -> Result<BTreeSet<ServiceId>> {
    let mut concerned: BTreeSet<ServiceId> = services_in(tx, room_id)?.into_iter().collect();
    let (was, is) = (before == "join", after == "join");
    for service in own.iter().filter(|_| was != is) {
        concerned.insert(service.clone());
        let kind = match (is, count_member(tx, service, room_id, is)?) {
            (true, 1) => Kind::Gained,
            (false, 0) => Kind::Lost,
            _ => continue,
        };
        log(tx, kind, "", room_id, service.as_str(), Some(event))?;
    }
    log(tx, Kind::Member, user_id, room_id, "", Some(event))?;
    Ok(concerned)
}

/// The rooms in which a membership changed after a position.
pub fn rooms_changed_since(db: &mut Conn, after: Position) -> Result<Vec<String>> {
    Ok(on!(db, |c| device_list_log::table
        .filter(device_list_log::position.gt(after.0))
        .filter(device_list_log::kind.eq(Kind::Member.text()))
        .select(device_list_log::room_id)
        .distinct()
        .load(c))?)
}

/// The oldest lines, up to a position, that the pass has not read yet and that other users may see.
pub fn open_lines(db: &mut Conn, up_to: Position, limit: i64) -> Result<Vec<LogEntry>> {
    let cursor = cursor(db)?;
    let rows: Vec<LogRow> = on!(db, |c| device_list_log::table
        .filter(device_list_log::position.gt(cursor.0))
        .filter(device_list_log::position.le(up_to.0))
        .filter(device_list_log::kind.ne(Kind::Private.text()))
        .order(device_list_log::position)
        .limit(limit)
        .select(LogRow::as_select())
        .load(c))?;
    Ok(rows.into_iter().map(LogEntry::from).collect())
}

/// The log after a position, oldest first.
pub fn log_after(
    db: &mut Conn,
    after: Position,
    up_to: Position,
    limit: i64,
) -> Result<Vec<LogEntry>> {
    let rows: Vec<LogRow> = on!(db, |c| device_list_log::table
        .filter(device_list_log::position.gt(after.0))
        .filter(device_list_log::position.le(up_to.0))
        .order(device_list_log::position)
        .limit(limit)
        .select(LogRow::as_select())
        .load(c))?;
    Ok(rows.into_iter().map(LogEntry::from).collect())
}

/// How far the pass has read.
pub fn cursor(db: &mut Conn) -> Result<Position> {
    cursors::stored(db, CURSOR)
}

/// The pass has read up to here.
pub fn set_cursor(db: &mut Conn, position: Position) -> Result<()> {
    cursors::store(db, CURSOR, position)
}

/// Whether the log has more lines after a position than a number.
pub fn is_longer(db: &mut Conn, after: Position, lines: i64) -> Result<bool> {
    let more: Option<i64> = on!(db, |c| device_list_log::table
        .filter(device_list_log::position.gt(after.0))
        .order(device_list_log::position)
        .select(device_list_log::position)
        .offset(lines)
        .limit(1)
        .first(c)
        .optional())?;
    Ok(more.is_some())
}

/// The newest lines about a user's own keys and those that only this user sees, after a position and up to another.
pub fn own_lines(
    db: &mut Conn,
    user_id: &str,
    (after, up_to): (Position, Position),
    limit: i64,
) -> Result<Vec<LogEntry>> {
    let rows: Vec<LogRow> = on!(db, |c| device_list_log::table
        .filter(device_list_log::user_id.eq(user_id))
        .filter(device_list_log::position.gt(after.0))
        .filter(device_list_log::position.le(up_to.0))
        .filter(device_list_log::kind.eq_any([Kind::Keys.text(), Kind::Private.text()]))
        .order(device_list_log::position.desc())
        .limit(limit)
        .select(LogRow::as_select())
        .load(c))?;
    Ok(rows.into_iter().map(LogEntry::from).collect())
}

/// Of these users, those whose keys changed after a position.
pub fn keys_changed_among(db: &mut Conn, users: &[&str], after: Position) -> Result<Vec<String>> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    Ok(on!(db, |c| device_list_log::table
        .filter(device_list_log::user_id.eq_any(users))
        .filter(device_list_log::position.gt(after.0))
        .filter(device_list_log::kind.eq(Kind::Keys.text()))
        .select(device_list_log::user_id)
        .distinct()
        .load(c))?)
}

/// Up to which position lines of the log were deleted.
const PRUNED: &str = "device_list_log_pruned";

/// What the head was on a day: this and the day's number, with six digits so that names are in order.
const DAY: &str = "head_of_day:";

fn name_of(day: i64) -> String {
    format!("{DAY}{day:06}")
}

/// Up to this position the log is no longer complete: a token below it is too old for it.
pub fn pruned_up_to(db: &mut Conn) -> Result<Position> {
    cursors::stored(db, PRUNED)
}

/// Remember where the order stands on a day, once, and answer where it stood on the newest day that is not after another.
pub fn mark_day(db: &mut Conn, day: i64, head: Position, horizon: i64) -> Result<Option<Position>> {
    use crate::tables::cursors as t;
    let row = (t::name.eq(name_of(day)), t::position.eq(head.0));
    on!(db, |c| diesel::insert_into(t::table)
        .values(&row)
        .on_conflict_do_nothing()
        .execute(c))?;
    let newest: Option<(String, i64)> = on!(db, |c| t::table
        .filter(t::name.between(name_of(0), name_of(horizon)))
        .order(t::name.desc())
        .select((t::name, t::position))
        .first(c)
        .optional())?;
    let Some((name, position)) = newest else {
        return Ok(None);
    };
    on!(db, |c| diesel::delete(
        t::table
            .filter(t::name.ge(name_of(0)))
            .filter(t::name.lt(&name))
    )
    .execute(c))?;
    Ok(Some(Position(position)))
}

/// Delete the oldest lines of the log up to a position, as far as the pass has read it, and at most so many. How many went.
pub fn prune(db: &mut Conn, up_to: Position, limit: i64) -> Result<i64> {
    let up_to = up_to.min(cursor(db)?);
    let oldest: Vec<i64> = on!(db, |c| device_list_log::table
        .filter(device_list_log::position.le(up_to.0))
        .order(device_list_log::position)
        .select(device_list_log::position)
        .limit(limit)
        .load(c))?;
    let Some(last) = oldest.last() else {
        return Ok(0);
    };
    on!(db, |c| diesel::delete(
        device_list_log::table.filter(device_list_log::position.le(last))
    )
    .execute(c))?;
    cursors::store(db, PRUNED, Position(*last))?;
    Ok(i64::try_from(oldest.len()).unwrap_or(limit))
}
