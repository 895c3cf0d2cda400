//! The log of everything that can change who must track whose devices, and the services' members in rooms.
//!
//! Owner: `device_lists`.

use std::collections::BTreeSet;

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::ServiceId;
use crate::interests::{Interests, Service};
use crate::tables::{appservice_rooms, cursors, device_list_log};
use crate::{Conn, Position, Result, Tx};

use super::sharing::{sharing_among, tracked_among};

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
    pub(super) const fn text(self) -> &'static str {
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
    tx.batch.logged = Some(position);
    Ok(position)
}

/// The user's device list changed: part of the write that changed it.
///
/// # Errors
/// When the database fails.
pub fn keys_changed(tx: &mut Tx<'_>, user_id: &str) -> Result<Position> {
    log(tx, Kind::Keys, user_id, "", "", None)
}

/// The keys of a user, `subject`, look different to this user and to no other: part of the write that changed it.
///
/// # Errors
/// When the database fails.
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

/// A membership changed: part of the write of the membership event, whose position is `event`, after the row in `memberships`.
///
/// Counts the services' joined members in the room, logs what a pass must look at, and answers which services
/// had a member in the room before or have one after: the event concerns them all.
///
/// # Errors
/// When the database fails.
pub fn membership_changed(
    tx: &mut Tx<'_>,
    room_id: &str,
    user_id: &str,
    before: &str,
    after: &str,
    event: Position,
) -> Result<BTreeSet<ServiceId>> {
    let mut concerned: BTreeSet<ServiceId> = services_in(tx, room_id)?.into_iter().collect();
    let (was, is) = (before == "join", after == "join");
    if was != is {
        let interests = tx.interests();
        for (service, _) in interests.in_user(user_id) {
            concerned.insert(service.id.clone());
            let joined = count_member(tx, &service.id, room_id, is)?;
            match (is, joined) {
                (true, 1) => log(
                    tx,
                    Kind::Gained,
                    "",
                    room_id,
                    service.id.as_str(),
                    Some(event),
                )
                .map(drop)?,
                (false, 0) => log(
                    tx,
                    Kind::Lost,
                    "",
                    room_id,
                    service.id.as_str(),
                    Some(event),
                )
                .map(drop)?,
                _ => {}
            }
        }
    }
    log(tx, Kind::Member, user_id, room_id, "", Some(event))?;
    Ok(concerned)
}

/// One joined member more or less; how many there are now. No row is left for none.
fn count_member(db: &mut Conn, service: &ServiceId, room_id: &str, more: bool) -> Result<i64> {
    use appservice_rooms as t;
    let key = (service.as_str(), room_id);
    if more {
        let row = (
            t::appservice_id.eq(service.as_str()),
            t::room_id.eq(room_id),
            t::joined.eq(1),
        );
        return Ok(on!(db, |c| diesel::insert_into(t::table)
            .values(&row)
            .on_conflict((t::appservice_id, t::room_id))
            .do_update()
            .set(t::joined.eq(t::joined + 1))
            .returning(t::joined)
            .get_result(c))?);
    }
    let left: Option<i64> = on!(db, |c| diesel::update(t::table.find(key))
        .set(t::joined.eq(t::joined - 1))
        .returning(t::joined)
        .get_result(c)
        .optional())?;
    let left = left.unwrap_or(0);
    if left <= 0 {
        on!(db, |c| diesel::delete(t::table.find(key)).execute(c))?;
    }
    Ok(left)
}

/// The services with a joined member in this room.
///
/// # Errors
/// When the database fails.
pub fn services_in(db: &mut Conn, room_id: &str) -> Result<Vec<ServiceId>> {
    let ids: Vec<String> = on!(db, |c| appservice_rooms::table
        .filter(appservice_rooms::room_id.eq(room_id))
        .select(appservice_rooms::appservice_id)
        .order(appservice_rooms::appservice_id)
        .load(c))?;
    Ok(ids.into_iter().map(ServiceId::from).collect())
}

/// The rooms in which a membership changed after a position.
///
/// # Errors
/// When the database fails.
pub fn rooms_changed_since(db: &mut Conn, after: Position) -> Result<Vec<String>> {
    Ok(on!(db, |c| device_list_log::table
        .filter(device_list_log::position.gt(after.0))
        .filter(device_list_log::kind.eq(Kind::Member.text()))
        .select(device_list_log::room_id)
        .distinct()
        .load(c))?)
}

/// The log after a position, oldest first.
///
/// # Errors
/// When the database fails.
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
///
/// # Errors
/// When the database fails.
pub fn cursor(db: &mut Conn) -> Result<Position> {
    stored(db, CURSOR)
}

/// The pass has read up to here.
///
/// # Errors
/// When the database fails.
pub fn set_cursor(db: &mut Conn, position: Position) -> Result<()> {
    store(db, CURSOR, position)
}

/// The position that is stored under a name; 0 for none.
pub(super) fn stored(db: &mut Conn, name: &str) -> Result<Position> {
    let position: Option<i64> = on!(db, |c| cursors::table
        .find(name)
        .select(cursors::position)
        .first(c)
        .optional())?;
    Ok(Position(position.unwrap_or(0)))
}

/// Store a position under a name.
pub(super) fn store(db: &mut Conn, name: &str, position: Position) -> Result<()> {
    let row = (cursors::name.eq(name), cursors::position.eq(position.0));
    on!(db, |c| diesel::insert_into(cursors::table)
        .values(&row)
        .on_conflict(cursors::name)
        .do_update()
        .set(cursors::position.eq(excluded(cursors::position)))
        .execute(c))?;
    Ok(())
}

/// The most open lines that are looked at for one service. Where more are open, the next one counts as one that concerns it.
const OPEN: usize = 200;

/// A line of the log that the pass has not read yet, and that concerns a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenLine {
    /// Its place in the order.
    pub position: Position,
    /// The event that it is about, if there is one, or the line itself: nothing from here on may be sent to the service.
    pub covers: Position,
}

impl OpenLine {
    /// The position up to which a transaction may go.
    #[must_use]
    pub fn settled_up_to(held: Option<OpenLine>, head: Position) -> Position {
        held.map_or(head, |line| line.covers.before().min(head))
    }
}

// ANCHOR: held_by
/// The first open line that concerns this service, up to a position. No transaction of the service is cut above what it covers, so
/// that an event travels with the device-list changes that follow from it.
///
/// A line concerns the services that the pass may tell something because of it: those that track its user, those with a member in
/// its room or, for changed keys, in any room of the user, those of which it is an own user; and of a first or last member the
/// service alone. What was true when the line was written and is not any more has left an open line of its own.
///
/// # Errors
/// When the database fails.
pub fn held_by(
    db: &mut Conn,
    interests: &Interests,
    service: &Service,
    head: Position,
) -> Result<Option<OpenLine>> {
    if !service.takes_device_lists {
        return Ok(None);
    }
    let mut lines = open_lines(db, head)?;
    let beyond = (lines.len() > OPEN).then(|| lines.pop()).flatten();
    let users_of = |kinds: &[Kind]| -> Vec<String> {
        let lines = lines.iter().filter(|l| kinds.contains(&l.entry.kind));
        let users: BTreeSet<&str> = lines.map(|l| l.entry.user_id.as_str()).collect();
        users.into_iter().map(str::to_owned).collect()
    };
    let people = users_of(&[Kind::Keys, Kind::Member]);
    let tracked = tracked_among(db, &service.id, &people)?;
    let sharing = sharing_among(db, &service.id, &users_of(&[Kind::Keys]))?;
    let rooms: BTreeSet<&str> = lines.iter().map(|l| l.entry.room_id.as_str()).collect();
    let rooms = rooms_among(db, &service.id, rooms)?;
    let concerns = |line: &LogEntry| match line.kind {
        Kind::Private => false,
        Kind::Gained | Kind::Lost => line.service == service.id,
        Kind::Member => tracked.contains(&line.user_id) || rooms.contains(&line.room_id),
        Kind::Keys => {
            tracked.contains(&line.user_id)
                || sharing.contains(&line.user_id)
                || interests.claim(&service.id, &line.user_id).is_some()
        }
    };
    let found = lines.iter().find(|line| concerns(&line.entry));
    Ok(found.or(beyond.as_ref()).map(|line| OpenLine {
        position: line.entry.position,
        covers: line.covers,
    }))
}
// ANCHOR_END: held_by

struct Open {
    entry: LogEntry,
    covers: Position,
}

/// The oldest open lines that can concern a service, one more than [`OPEN`] where there are more.
fn open_lines(db: &mut Conn, head: Position) -> Result<Vec<Open>> {
    let cursor = cursor(db)?;
    let limit = i64::try_from(OPEN + 1).unwrap_or(i64::MAX);
    let rows: Vec<LogRow> = on!(db, |c| device_list_log::table
        .filter(device_list_log::position.gt(cursor.0))
        .filter(device_list_log::position.le(head.0))
        .filter(device_list_log::kind.ne(Kind::Private.text()))
        .order(device_list_log::position)
        .limit(limit)
        .select(LogRow::as_select())
        .load(c))?;
    let open = |row: LogRow| Open {
        covers: Position(row.covers),
        entry: row.into(),
    };
    Ok(rows.into_iter().map(open).collect())
}

/// Of these rooms, those in which the service has a joined member.
fn rooms_among(
    db: &mut Conn,
    service: &ServiceId,
    rooms: BTreeSet<&str>,
) -> Result<BTreeSet<String>> {
    let rooms: Vec<&str> = rooms.into_iter().filter(|room| !room.is_empty()).collect();
    if rooms.is_empty() {
        return Ok(BTreeSet::new());
    }
    let found: Vec<String> = on!(db, |c| appservice_rooms::table
        .filter(appservice_rooms::appservice_id.eq(service.as_str()))
        .filter(appservice_rooms::room_id.eq_any(&rooms))
        .select(appservice_rooms::room_id)
        .load(c))?;
    Ok(found.into_iter().collect())
}

/// Whether the log has more lines after a position than a number.
///
/// # Errors
/// When the database fails.
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
///
/// # Errors
/// When the database fails.
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
