//! Key backups: versions, and the room keys in them.
//!
//! Owner: `key_store`.

use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::inbox::octet_length;
use crate::store::kept::Keep as _;
use crate::tables::{backup_sessions, backup_versions};
use crate::{Conn, Result};

/// A version of a user's key backup. The row of a deleted version stays until the next version is created, so that its number is
/// not used again.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = backup_versions)]
pub struct VersionRow {
    /// The user that owns the backup.
    pub user_id: String,
    /// The number of the version, counted from 1 for each user.
    pub version: i64,
    /// The algorithm with which the keys are encrypted.
    pub algorithm: String,
    /// The `auth_data` that belongs to the algorithm, a JSON object with the bytes that the client sent.
    pub auth_data: String,
    /// Incremented each time the stored keys change.
    pub etag: i64,
    /// The number of stored keys.
    pub sessions: i64,
    /// Whether the version is deleted. If it is and `sessions` is not 0, its keys are still to be deleted.
    pub deleted: bool,
    /// The size of the stored keys, in bytes.
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

/// A version of a user's backup; `None` if it is deleted.
pub fn version(db: &mut Conn, user_id: &str, version: i64) -> Result<Option<VersionRow>> {
    use backup_versions as t;
    Ok(on!(db, |c| t::table
        .find((user_id, version))
        .filter(t::deleted.eq(false))
        .select(VersionRow::as_select())
        .first(c)
        .optional())?)
}

/// Returns how many versions of a user's key backup are not deleted.
pub fn count(db: &mut Conn, user_id: &str) -> Result<i64> {
    use backup_versions as t;
    Ok(on!(db, |c| t::table
        .filter(t::user_id.eq(user_id))
        .filter(t::deleted.eq(false))
        .count()
        .get_result(c))?)
}

/// Creates an empty version of a user's key backup, and returns its number. Removes the rows of deleted versions without keys,
/// which are needed no longer: the number of the new version is higher than theirs.
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
        .kept()
        .execute(c))?;
    on!(db, |c| diesel::delete(
        t::table
            .filter(t::user_id.eq(user_id))
            .filter(t::version.lt(row.version))
            .filter(t::deleted.eq(true))
            .filter(t::sessions.eq(0))
    )
    .execute(c))?;
    Ok(row.version)
}

/// Replaces the `auth_data` of a backup version.
pub fn set_auth_data(db: &mut Conn, user_id: &str, version: i64, auth_data: &str) -> Result<()> {
    use backup_versions as t;
    on!(db, |c| diesel::update(t::table.find((user_id, version)))
        .set(t::auth_data.eq(auth_data))
        .kept()
        .execute(c))?;
    Ok(())
}

/// Marks a version of a key backup as deleted, so that it is no longer found. [`empty`] deletes the keys in it afterwards, in
/// parts.
pub fn delete(db: &mut Conn, user_id: &str, version: i64) -> Result<()> {
    use backup_versions as t;
    on!(db, |c| diesel::update(t::table.find((user_id, version)))
        .set((t::deleted.eq(true), t::auth_data.eq("{}")))
        .kept()
        .execute(c))?;
    Ok(())
}

/// The user and the number of a deleted backup version that still has keys, if there is one.
pub fn to_empty(db: &mut Conn) -> Result<Option<(String, i64)>> {
    use backup_versions as t;
    Ok(on!(db, |c| t::table
        .filter(t::deleted.eq(true))
        .filter(t::sessions.gt(0))
        .select((t::user_id, t::version))
        .first(c)
        .optional())?)
}

/// Deletes up to `limit` keys of a deleted backup version. Returns how many it deleted: fewer than `limit` if the version is empty
/// now.
pub fn empty(db: &mut Conn, user_id: &str, version: i64, limit: i64) -> Result<i64> {
    use backup_versions as t;
    let (gone, _) = delete_sessions(db, user_id, version, &KeySelection::All, limit)?;
    if gone < limit {
        on!(db, |c| diesel::update(t::table.find((user_id, version)))
            .set((t::sessions.eq(0), t::bytes.eq(0)))
            .kept()
            .execute(c))?;
    }
    Ok(gone)
}

/// The size of all keys in a user's backups, in bytes, deleted versions not counted.
pub fn bytes(db: &mut Conn, user_id: &str) -> Result<i64> {
    use backup_versions as t;
    let each: Vec<i64> = on!(db, |c| t::table
        .filter(t::user_id.eq(user_id))
        .filter(t::deleted.eq(false))
        .select(t::bytes)
        .load(c))?;
    Ok(each.iter().sum())
}

/// Records that the number of stored keys of a backup version grew by `more`, and their size by `bytes`; both can be negative.
/// Returns the new etag and the number of keys.
///
/// # Errors
/// [`Error::Database`](crate::Error::Database) if the version does not exist.
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
    .kept()
    .get_result(c))?)
}

/// The key of a Megolm session, encrypted by the user's client.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable, Insertable)]
#[diesel(table_name = backup_sessions)]
pub struct SessionRow {
    /// The user that owns the backup.
    pub user_id: String,
    /// The version of the backup.
    pub version: i64,
    /// The room id.
    pub room_id: String,
    /// The session id.
    pub session_id: String,
    /// The index of the first message that the key decrypts.
    pub first_message_index: i64,
    /// How often the key was forwarded before it reached the client.
    pub forwarded_count: i64,
    /// Whether the user had verified the device that the key came from.
    pub is_verified: bool,
    /// The whole `KeyBackupData` object, with the bytes that the client sent.
    pub json: String,
}

/// The backed-up key of a session.
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

/// Inserts or replaces the backed-up key of a session.
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
        .kept()
        .execute(c))?;
    Ok(())
}

/// A selection of the keys in a backup version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySelection<'a> {
    /// All keys.
    All,
    /// The keys of one room.
    Room(&'a str),
    /// The key of one session, by room id and session id.
    Session(&'a str, &'a str),
}

/// The selected keys, in order of room id and session id, each as room id, session id and the whole object.
pub fn sessions(
    db: &mut Conn,
    user_id: &str,
    version: i64,
    part: &KeySelection<'_>,
) -> Result<Vec<(String, String, String)>> {
    use backup_sessions as t;
    let of_version = t::table
        .filter(t::user_id.eq(user_id))
        .filter(t::version.eq(version))
        .order((t::room_id, t::session_id))
        .select((t::room_id, t::session_id, t::json));
    Ok(on!(db, |c| match part {
        KeySelection::All => of_version.load(c),
        KeySelection::Room(room) => of_version.filter(t::room_id.eq(room)).load(c),
        KeySelection::Session(room, session) => of_version
            .filter(t::room_id.eq(room))
            .filter(t::session_id.eq(session))
            .load(c),
    })?)
}

/// A stored key: room id, session id, and the whole object.
pub type Stored = (String, String, String);

/// A page of up to `limit` keys, in order of room id and session id, after the given one. `only` restricts it to one room.
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

/// Deletes up to `limit` of the selected keys, in order of room and session. Returns how many they were, and their size in bytes:
/// fewer than `limit` if none is left.
pub fn delete_sessions(
    db: &mut Conn,
    user_id: &str,
    version: i64,
    part: &KeySelection<'_>,
    limit: i64,
) -> Result<(i64, i64)> {
    use backup_sessions as t;
    match part {
        KeySelection::All => {
            let (mut gone, mut bytes) = (0, 0);
            while gone < limit
                && let Some(room) = room_after(db, user_id, version, "")?
            {
                let piece = delete_in_room(db, user_id, version, &room, limit - gone)?;
                gone += piece.0;
                bytes += piece.1;
            }
            Ok((gone, bytes))
        }
        KeySelection::Room(room) => delete_in_room(db, user_id, version, room, limit),
        KeySelection::Session(room, session) => {
            let sizes: Vec<i32> = on!(db, |c| diesel::delete(
                t::table.find((user_id, version, room, session))
            )
            .returning(octet_length(t::json))
            .get_results(c))?;
            Ok(sum(&sizes))
        }
    }
}

fn delete_in_room(
    db: &mut Conn,
    user_id: &str,
    version: i64,
    room: &str,
    limit: i64,
) -> Result<(i64, i64)> {
    use backup_sessions as t;
    macro_rules! of_room {
        () => {
            t::table
                .filter(t::user_id.eq(user_id))
                .filter(t::version.eq(version))
                .filter(t::room_id.eq(room))
        };
    }
    let last: Option<String> = on!(db, |c| of_room!()
        .order(t::session_id)
        .select(t::session_id)
        .offset(limit - 1)
        .first(c)
        .optional())?;
    let sizes: Vec<i32> = change!(db, |c| match &last {
        Some(last) => diesel::delete(of_room!().filter(t::session_id.le(last)))
            .returning(octet_length(t::json))
            .get_results(c),
        None => diesel::delete(of_room!())
            .returning(octet_length(t::json))
            .get_results(c),
    })?;
    Ok(sum(&sizes))
}

/// The number of these sizes, and their sum.
fn sum(sizes: &[i32]) -> (i64, i64) {
    let count = i64::try_from(sizes.len()).unwrap_or(i64::MAX);
    (count, sizes.iter().map(|size| i64::from(*size)).sum())
}

/// Deletes all backups of a deactivated user, as [`delete`] does.
pub fn forget_user(db: &mut Conn, user_id: &str) -> Result<()> {
    use backup_versions as t;
    on!(db, |c| diesel::update(
        t::table
            .filter(t::user_id.eq(user_id))
            .filter(t::deleted.eq(false))
    )
    .set((t::deleted.eq(true), t::auth_data.eq("{}")))
    .kept()
    .execute(c))?;
    Ok(())
}
