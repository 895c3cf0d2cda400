//! Backups of room keys: versions, and the sessions in them.
//!
//! Owner: `key_store`.

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::inbox::octet_length;
use crate::tables::{backup_sessions, backup_versions};
use crate::{Conn, Result};

/// A version of a user's backup. A deleted one stays as an empty row: its number is never used again.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = backup_versions)]
pub struct VersionRow {
    /// Whose backup it is.
    pub user_id: String,
    /// Counted from 1 for each user.
    pub version: i64,
    /// How the keys are encrypted.
    pub algorithm: String,
    /// What the algorithm needs, a JSON object as its bytes came.
    pub auth_data: String,
    /// Grows with each change of what is stored.
    pub etag: i64,
    /// How many sessions are stored.
    pub sessions: i64,
    /// Whether it was deleted. While `sessions` is not 0 then, they are still to be deleted.
    pub deleted: bool,
    /// How many bytes the sessions have.
    pub bytes: i64,
}

/// The current version of a user's backup: the newest that is not deleted.
pub fn current(db: &mut Conn, user_id: &str) -> Result<Option<VersionRow>> {
    use backup_versions as t;
    Ok(on!(db, |c| t::table
        .filter(t::user_id.eq(user_id))
        .filter(t::deleted.eq(false))
        .order(t::version.desc())
        .select(VersionRow::as_select())
        .first(c)
        .optional())?)
}

/// A version of a user's backup, unless it is deleted.
pub fn version(db: &mut Conn, user_id: &str, version: i64) -> Result<Option<VersionRow>> {
    use backup_versions as t;
    Ok(on!(db, |c| t::table
        .find((user_id, version))
        .filter(t::deleted.eq(false))
        .select(VersionRow::as_select())
        .first(c)
        .optional())?)
}

/// Begin a new, empty version. Its number.
pub fn create(db: &mut Conn, user_id: &str, algorithm: &str, auth_data: &str) -> Result<i64> {
    use backup_versions as t;
    let last: Option<i64> = on!(db, |c| t::table
        .filter(t::user_id.eq(user_id))
        .select(diesel::dsl::max(t::version))
        .first(c))?;
    let row = VersionRow {
        user_id: user_id.to_owned(),
        version: last.unwrap_or(0) + 1,
        algorithm: algorithm.to_owned(),
        auth_data: auth_data.to_owned(),
        etag: 0,
        sessions: 0,
        deleted: false,
        bytes: 0,
    };
    on!(db, |c| diesel::insert_into(t::table)
        .values(&row)
        .execute(c))?;
    Ok(row.version)
}

/// From now on this is what the version's algorithm needs.
pub fn set_auth_data(db: &mut Conn, user_id: &str, version: i64, auth_data: &str) -> Result<()> {
    use backup_versions as t;
    on!(db, |c| diesel::update(t::table.find((user_id, version)))
        .set(t::auth_data.eq(auth_data))
        .execute(c))?;
    Ok(())
}

/// Delete a version. From now on it is not found; the sessions in it are deleted afterwards, see [`empty`].
pub fn delete(db: &mut Conn, user_id: &str, version: i64) -> Result<()> {
    use backup_versions as t;
    on!(db, |c| diesel::update(t::table.find((user_id, version)))
        .set((t::deleted.eq(true), t::auth_data.eq("{}")))
        .execute(c))?;
    Ok(())
}

/// A deleted version that has sessions still: whose, and which.
pub fn to_empty(db: &mut Conn) -> Result<Option<(String, i64)>> {
    use backup_versions as t;
    Ok(on!(db, |c| t::table
        .filter(t::deleted.eq(true))
        .filter(t::sessions.gt(0))
        .select((t::user_id, t::version))
        .first(c)
        .optional())?)
}

/// Delete so many sessions of a deleted version. How many there were: fewer when it is empty now.
pub fn empty(db: &mut Conn, user_id: &str, version: i64, limit: i64) -> Result<i64> {
    use {backup_sessions as s, backup_versions as t};
    macro_rules! of_room {
        ($room:expr) => {
            s::table
                .filter(s::user_id.eq(user_id))
                .filter(s::version.eq(version))
                .filter(s::room_id.eq($room))
        };
    }
    let mut gone = 0;
    while gone < limit {
        let Some(room) = room_after(db, user_id, version, "")? else {
            on!(db, |c| diesel::update(t::table.find((user_id, version)))
                .set((t::sessions.eq(0), t::bytes.eq(0)))
                .execute(c))?;
            break;
        };
        let last: Option<String> = on!(db, |c| of_room!(&room)
            .order(s::session_id)
            .select(s::session_id)
            .offset(limit - gone - 1)
            .first(c)
            .optional())?;
        let deleted = change!(db, |c| match &last {
            Some(last) => diesel::delete(of_room!(&room).filter(s::session_id.le(last))).execute(c),
            None => diesel::delete(of_room!(&room)).execute(c),
        })?;
        gone += i64::try_from(deleted).unwrap_or(limit);
    }
    Ok(gone)
}

/// How many bytes the sessions in a user's backup have, of all versions that are not deleted.
pub fn bytes(db: &mut Conn, user_id: &str) -> Result<i64> {
    use backup_versions as t;
    let each: Vec<i64> = on!(db, |c| t::table
        .filter(t::user_id.eq(user_id))
        .filter(t::deleted.eq(false))
        .select(t::bytes)
        .load(c))?;
    Ok(each.iter().sum())
}

/// What is stored in the version changed: so many sessions and bytes more or fewer. Its new etag and count.
///
/// # Errors
/// When the database fails or the version does not exist.
pub fn changed(
    db: &mut Conn,
    user_id: &str,
    version: i64,
    more: i64,
    bytes: i64,
) -> Result<(i64, i64)> {
    use backup_versions as t;
    Ok(on!(db, |c| diesel::update(
        t::table.find((user_id, version))
    )
    .set((
        t::etag.eq(t::etag + 1),
        t::sessions.eq(t::sessions + more),
        t::bytes.eq(t::bytes + bytes)
    ))
    .returning((t::etag, t::sessions))
    .get_result(c))?)
}

/// The key of a megolm session, encrypted by its owner.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = backup_sessions)]
pub struct SessionRow {
    /// Whose backup it is in.
    pub user_id: String,
    /// In which version.
    pub version: i64,
    /// The room.
    pub room_id: String,
    /// The session.
    pub session_id: String,
    /// From which message on it decrypts.
    pub first_message_index: i64,
    /// How often it was forwarded before it came here.
    pub forwarded_count: i64,
    /// Whether its owner verified the device that it came from.
    pub is_verified: bool,
    /// The whole object, as its bytes came.
    pub json: String,
}

/// A stored session.
pub fn session(
    db: &mut Conn,
    user_id: &str,
    version: i64,
    room_id: &str,
    session_id: &str,
) -> Result<Option<SessionRow>> {
    Ok(on!(db, |c| backup_sessions::table
        .find((user_id, version, room_id, session_id))
        .select(SessionRow::as_select())
        .first(c)
        .optional())?)
}

/// Store a session; one with the same id is replaced.
pub fn put_session(db: &mut Conn, row: &SessionRow) -> Result<()> {
    use backup_sessions as t;
    on!(db, |c| diesel::insert_into(t::table)
        .values(row)
        .on_conflict((t::user_id, t::version, t::room_id, t::session_id))
        .do_update()
        .set((
            t::first_message_index.eq(excluded(t::first_message_index)),
            t::forwarded_count.eq(excluded(t::forwarded_count)),
            t::is_verified.eq(excluded(t::is_verified)),
            t::json.eq(excluded(t::json))
        ))
        .execute(c))?;
    Ok(())
}

/// Which of a version's sessions are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part<'a> {
    /// All of them.
    All,
    /// Those of one room.
    Room(&'a str),
    /// One session of one room.
    Session(&'a str, &'a str),
}

/// The stored sessions, in order of room and session: room, session, the whole object.
pub fn sessions(
    db: &mut Conn,
    user_id: &str,
    version: i64,
    part: &Part<'_>,
) -> Result<Vec<(String, String, String)>> {
    use backup_sessions as t;
    let of_version = t::table
        .filter(t::user_id.eq(user_id))
        .filter(t::version.eq(version))
        .order((t::room_id, t::session_id))
        .select((t::room_id, t::session_id, t::json));
    Ok(on!(db, |c| match part {
        Part::All => of_version.load(c),
        Part::Room(room) => of_version.filter(t::room_id.eq(room)).load(c),
        Part::Session(room, session) => of_version
            .filter(t::room_id.eq(room))
            .filter(t::session_id.eq(session))
            .load(c),
    })?)
}

/// A stored session: room, session, the whole object.
pub type Stored = (String, String, String);

/// A piece of the stored sessions, all or those of one room, in order of room and session, after one of them.
pub fn page(
    db: &mut Conn,
    user_id: &str,
    version: i64,
    only: Option<&str>,
    after: Option<(&str, &str)>,
    limit: i64,
) -> Result<Vec<Stored>> {
    let mut found: Vec<Stored> = Vec::new();
    let mut at = match (after, only) {
        (Some((room, session)), _) => Some((room.to_owned(), session.to_owned())),
        (None, Some(room)) => Some((room.to_owned(), String::new())),
        (None, None) => room_after(db, user_id, version, "")?.map(|room| (room, String::new())),
    };
    while let Some((room, session)) = at {
        let missing = limit - i64::try_from(found.len()).unwrap_or(limit);
        let piece = in_room(db, user_id, version, (&room, &session), missing)?;
        let full = i64::try_from(piece.len()).unwrap_or(missing) >= missing;
        found.extend(piece);
        if full || only.is_some() {
            break;
        }
        at = room_after(db, user_id, version, &room)?.map(|room| (room, String::new()));
    }
    Ok(found)
}

fn room_after(db: &mut Conn, user_id: &str, version: i64, room: &str) -> Result<Option<String>> {
    use backup_sessions as t;
    Ok(on!(db, |c| t::table
        .filter(t::user_id.eq(user_id))
        .filter(t::version.eq(version))
        .filter(t::room_id.gt(room))
        .order(t::room_id)
        .select(t::room_id)
        .first(c)
        .optional())?)
}

fn in_room(
    db: &mut Conn,
    user_id: &str,
    version: i64,
    (room, after): (&str, &str),
    limit: i64,
) -> Result<Vec<Stored>> {
    use backup_sessions as t;
    Ok(on!(db, |c| t::table
        .filter(t::user_id.eq(user_id))
        .filter(t::version.eq(version))
        .filter(t::room_id.eq(room))
        .filter(t::session_id.gt(after))
        .order(t::session_id)
        .limit(limit)
        .select((t::room_id, t::session_id, t::json))
        .load(c))?)
}

/// Delete stored sessions. How many there were, and how many bytes.
pub fn delete_sessions(
    db: &mut Conn,
    user_id: &str,
    version: i64,
    part: &Part<'_>,
) -> Result<(usize, i64)> {
    use backup_sessions as t;
    macro_rules! of_version {
        () => {
            t::table
                .filter(t::user_id.eq(user_id))
                .filter(t::version.eq(version))
        };
    }
    macro_rules! gone {
        ($c:expr, $which:expr) => {{
            let size = diesel::dsl::sum(octet_length(t::json));
            let bytes: Option<i64> = $which.select(size).first($c)?;
            Ok::<_, diesel::result::Error>((
                diesel::delete($which).execute($c)?,
                bytes.unwrap_or(0),
            ))
        }};
    }
    Ok(change!(db, |c| match part {
        Part::All => gone!(c, of_version!()),
        Part::Room(room) => gone!(c, of_version!().filter(t::room_id.eq(room))),
        Part::Session(room, session) => gone!(
            c,
            of_version!()
                .filter(t::room_id.eq(room))
                .filter(t::session_id.eq(session))
        ),
    })?)
}

/// The account is given up: its backups go, see [`delete`].
pub fn forget_user(db: &mut Conn, user_id: &str) -> Result<()> {
    use backup_versions as t;
    on!(db, |c| diesel::update(
        t::table
            .filter(t::user_id.eq(user_id))
            .filter(t::deleted.eq(false))
    )
    .set((t::deleted.eq(true), t::auth_data.eq("{}")))
    .execute(c))?;
    Ok(())
}
