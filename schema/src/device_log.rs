//! The device-list log: a line for each change of keys or memberships that can change which users an appservice tracks, and the
//! position up to which old lines are deleted.
//!
//! Owner: `device_lists`.
//!
//! Next on the way of a leave: `actors/src/device_lists/mod.rs`.

use std::collections::BTreeSet;

use diesel::prelude::*;

use crate::ServiceId;
use crate::cursors;
use crate::service_rooms::{count_member, services_in};
use crate::store::kept::Keep as _;
use crate::tables::device_list_log;
use crate::{Conn, Position, Result, Tx};

/// The name of the position up to which the actor `device_lists` has read the log.
const CURSOR: &str = "device_lists";

/// What a line of the log records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The user's devices, keys or signatures changed. Visible to every user that shares a room with it.
    Keys,
    /// A change that only the user itself sees: of its user-signing key, or of its signatures over other users' keys. The line's
    /// `subject` is the user whose keys now look different to the user of the line.
    Private,
    /// The user's membership in the room changed.
    Member,
    /// The appservice has its first joined member in the room.
    Gained,
    /// The appservice's last joined member left the room.
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

/// A line of the log. Fields that do not apply to its kind are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Its position.
    pub position: Position,
    /// What the line records.
    pub kind: Kind,
    /// The user whose keys or membership changed.
    pub user_id: String,
    /// The room in which the membership changed, or in which an appservice gained its first joined member or lost its last.
    pub room_id: String,
    /// The appservice.
    pub service: ServiceId,
    /// The user whose keys look different now. Only in a line of kind [`Kind::Private`].
    pub subject: String,
    /// The position of the event that caused the line, or the line's own if no event did.
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

/// Appends a line. After the commit, the storage calls the listener of
/// [`Store::on_device_list_log`](crate::Store::on_device_list_log).
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

/// Appends a line at the next position. All other functions append with it.
fn append(tx: &mut Tx<'_>, covers: Option<Position>, mut row: LogRow) -> Result<Position> {
    let position = tx.next_position();
    row.position = position.0;
    row.covers = covers.unwrap_or(position).0;
    on!(&mut **tx, |c| diesel::insert_into(device_list_log::table)
        .values(&row)
        .kept()
        .execute(c))?;
    tx.added(format_args!("device_list_log"), 1);
    tx.batch.logged = Some(position);
    Ok(position)
}

/// Records a change of a user's device list, in the write that makes the change.
pub fn keys_changed(tx: &mut Tx<'_>, user_id: &str) -> Result<Position> {
    log(tx, Kind::Keys, user_id, "", "", None)
}

/// Records that the keys of `subject` look different to this user, and to no other user, in the write that makes the change.
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

/// Records a change of membership, in the write of the membership event, after its row in `memberships`. `event` is the event's
/// position, and `own` are the appservices that the user belongs to.
///
/// Updates the counts of these appservices' joined members in the room and appends the lines. Returns the appservices that had
/// a joined member in the room before or have one now: the event concerns them.
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

/// The rooms in which a membership changed after `after`.
pub fn rooms_changed_since(db: &mut Conn, after: Position) -> Result<Vec<String>> {
    Ok(on!(db, |c| device_list_log::table
        .filter(device_list_log::position.gt(after.0))
        .filter(device_list_log::kind.eq(Kind::Member.text()))
        .select(device_list_log::room_id)
        .distinct()
        .load(c))?)
}

/// The lines up to a position that the actor `device_lists` has not read yet, oldest first. Leaves out those that only one user
/// sees.
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

/// The lines after `after` and up to `up_to`, oldest first.
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

/// The position up to which the actor `device_lists` has read the log.
pub fn cursor(db: &mut Conn) -> Result<Position> {
    cursors::stored(db, CURSOR)
}

/// Stores the position up to which the actor `device_lists` has read the log.
pub fn set_cursor(db: &mut Conn, position: Position) -> Result<()> {
    cursors::store(db, CURSOR, position)
}

/// Whether the log has more than `lines` lines after `after`.
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

/// The lines about a user's own keys, and those that only this user sees, after `after` and up to `up_to`, newest first.
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
        .kept()
        .load(c))?;
    Ok(rows.into_iter().map(LogEntry::from).collect())
}

/// Those of these users whose keys changed after `after`.
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
        .kept_for(users.len())
        .load(c))?)
}

/// The name of the position up to which lines of the log were deleted.
const PRUNED: &str = "device_list_log_pruned";

/// The prefix of the names of daily positions. The number of the day follows, with six digits, so that the names sort by day.
const DAY: &str = "head_of_day:";

fn name_of(day: i64) -> String {
    format!("{DAY}{day:06}")
}

/// The position up to which lines were deleted. A sync token below it is too old to list the changes since then.
pub fn pruned_up_to(db: &mut Conn) -> Result<Position> {
    cursors::stored(db, PRUNED)
}

/// Stores `head` as the position of `day`, unless the day has one. Returns the position of the newest day up to `horizon`, and
/// deletes those of the days before it.
pub fn mark_day(db: &mut Conn, day: i64, head: Position, horizon: i64) -> Result<Option<Position>> {
    use crate::tables::cursors as t;
    let row = (t::name.eq(name_of(day)), t::position.eq(head.0));
    on!(db, |c| diesel::insert_into(t::table)
        .values(&row)
        .on_conflict_do_nothing()
        .kept()
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

/// Deletes up to `limit` of the oldest lines up to a position, never one that the actor `device_lists` has not read. Returns
/// how many it deleted.
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
