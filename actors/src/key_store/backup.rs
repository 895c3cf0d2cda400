//! Key backups.

use actix::{Context, Handler, ResponseFuture};
use ruma::{UInt, UserId};
use schema::backup::{self, SessionRow, VersionRow};
use schema::{Conn, Tx};

use super::changed::Changed;
use super::emptying::{PIECE, empty_backups};
use super::rules::backup::{self as rule, KeyQuality};
use super::{
    BackupState, CreateBackup, DeleteBackup, DeleteSessions, KeyStore, SessionSelection,
    StoreSessions, UpdateBackup, rules,
};
use crate::{Refusal, Result, guarded};

impl Handler<CreateBackup> for KeyStore {
    type Result = ResponseFuture<Result<String>>;

    fn handle(&mut self, msg: CreateBackup, _: &mut Context<Self>) -> Self::Result {
        let description = rule::description(&msg.description);
        self.change(description.map(|new| {
            move |tx: &mut Tx<'_>| {
                let user = msg.user.as_str();
                rule::check_versions(backup::count(tx, user)?)?;
                let version = backup::create(tx, user, &new.algorithm, &new.auth_data)?;
                Ok((version.to_string(), Changed::default()))
            }
        }))
    }
}

impl Handler<UpdateBackup> for KeyStore {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: UpdateBackup, _: &mut Context<Self>) -> Self::Result {
        let description = rule::description(&msg.description);
        self.change(
            description.map(|new| {
                move |tx: &mut Tx<'_>| Ok((update(tx, &msg, &new)?, Changed::default()))
            }),
        )
    }
}

impl Handler<DeleteBackup> for KeyStore {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: DeleteBackup, _: &mut Context<Self>) -> Self::Result {
        let env = self.env.clone();
        let deleted = self.change(Ok(move |tx: &mut Tx<'_>| {
            Ok((delete(tx, &msg)?, Changed::default()))
        }));
        Box::pin(async move {
            deleted.await?;
            empty_backups(&env);
            Ok(())
        })
    }
}

impl Handler<StoreSessions> for KeyStore {
    type Result = ResponseFuture<Result<BackupState>>;

    fn handle(&mut self, msg: StoreSessions, _: &mut Context<Self>) -> Self::Result {
        let rows = check(&msg);
        self.change(
            rows.map(|rows| {
                move |tx: &mut Tx<'_>| Ok((store(tx, &msg, &rows)?, Changed::default()))
            }),
        )
    }
}

impl Handler<DeleteSessions> for KeyStore {
    type Result = ResponseFuture<Result<BackupState>>;

    /// Deletes the sessions in pieces, so that no write takes long. A request that fails may have deleted some of the sessions;
    /// sent again, it deletes the rest.
    fn handle(&mut self, msg: DeleteSessions, _: &mut Context<Self>) -> Self::Result {
        let (env, again) = (self.env.clone(), msg.clone());
        let first = env.store.write(move |tx| delete_piece(tx, &msg));
        guarded(&self.env, "key_store", async move {
            let (mut gone, mut state) = first.await?;
            while gone == PIECE {
                let msg = again.clone();
                let next = env.store.write(move |tx| delete_piece(tx, &msg));
                (gone, state) = next.await?;
            }
            Ok(state)
        })
    }
}

/// The row of a backup version, if it exists.
pub(super) fn find(db: &mut Conn, user: &UserId, version: &str) -> Result<VersionRow> {
    let number = rule::parse_version(version)?;
    let found = backup::version(db, user.as_str(), number)?;
    Ok(found.ok_or(Refusal::NotFound("there is no such backup version".into()))?)
}

pub(super) fn update(
    tx: &mut Tx<'_>,
    msg: &UpdateBackup,
    description: &rule::Description,
) -> Result<()> {
    let version = find(tx, &msg.user, &msg.version)?;
    rule::check_update(description, &msg.version, &version.algorithm)?;
    let (user, auth_data) = (msg.user.as_str(), &description.auth_data);
    Ok(backup::set_auth_data(tx, user, version.version, auth_data)?)
}

pub(super) fn delete(tx: &mut Tx<'_>, msg: &DeleteBackup) -> Result<()> {
    let version = find(tx, &msg.user, &msg.version)?;
    Ok(backup::delete(tx, msg.user.as_str(), version.version)?)
}

/// Check each key before the write.
pub(super) fn check(msg: &StoreSessions) -> Result<Vec<SessionRow>> {
    let version = rule::parse_version(&msg.version)?;
    rule::check_count(msg.rooms.values().map(|sessions| sessions.len()).sum())?;
    let mut rows = Vec::new();
    for (room, sessions) in &msg.rooms {
        rules::check_identifier(room.as_str(), "a room id")?;
        for (session, json) in sessions {
            rules::check_identifier(session, "a session id")?;
            let quality = rule::quality(json)?;
            rows.push(SessionRow {
                user_id: msg.user.to_string(),
                version,
                room_id: room.to_string(),
                session_id: session.clone(),
                first_message_index: quality.first_message_index.into(),
                forwarded_count: quality.forwarded_count.into(),
                is_verified: quality.is_verified,
                json: json.get().to_owned(),
            });
        }
    }
    Ok(rows)
}

/// Store the session keys that are better than the stored keys of the same sessions. Clause: cs.backup.current
pub(super) fn store(
    tx: &mut Tx<'_>,
    msg: &StoreSessions,
    rows: &[SessionRow],
) -> Result<BackupState> {
    let version = find(tx, &msg.user, &msg.version)?;
    let current = backup::current(tx, msg.user.as_str())?.map_or(0, |v| v.version);
    if version.version != current {
        return Err(Refusal::WrongBackupVersion {
            current: current.to_string(),
        }
        .into());
    }
    let stored_bytes = backup::bytes(tx, msg.user.as_str())?;
    let (mut added, mut grown, mut any) = (0, 0, false);
    for row in rows {
        let (user, room, id) = (&row.user_id, &row.room_id, &row.session_id);
        let stored = backup::session(tx, user, row.version, room, id)?;
        if stored
            .as_ref()
            .is_some_and(|s| !rule::is_better(quality(row), quality(s)))
        {
            continue;
        }
        any = true;
        added += i64::from(stored.is_none());
        if version.sessions + added > rule::SESSIONS {
            return Err(Refusal::TooMany("the backup is full".into()).into());
        }
        let size = |s: &SessionRow| i64::try_from(s.json.len()).unwrap_or(i64::MAX);
        grown += size(row) - stored.as_ref().map_or(0, size);
        backup::put_session(tx, row)?;
    }
    if grown > 0 && stored_bytes + grown > rule::BYTES {
        return Err(Refusal::TooLarge("a backup has at most 1 GiB".into()).into());
    }
    state(tx, &version, (added, grown), any)
}

fn quality(row: &SessionRow) -> KeyQuality {
    // Rows are written from a `u32`; a value out of range means a damaged row, and the largest value loses every comparison.
    let number = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
    KeyQuality {
        first_message_index: number(row.first_message_index),
        forwarded_count: number(row.forwarded_count),
        is_verified: row.is_verified,
    }
}

/// Delete one piece of the selected sessions. Returns how many were deleted, and the state of the backup version afterwards.
fn delete_piece(tx: &mut Tx<'_>, msg: &DeleteSessions) -> Result<(i64, BackupState)> {
    let version = find(tx, &msg.user, &msg.version)?;
    let (user, part) = (msg.user.as_str(), msg.part.as_stored()?);
    let (gone, bytes) = backup::delete_sessions(tx, user, version.version, &part, PIECE)?;
    Ok((gone, state(tx, &version, (-gone, -bytes), gone > 0)?))
}

/// The etag and the number of sessions of a backup version after a write that added this many sessions and bytes, perhaps none.
fn state(
    tx: &mut Tx<'_>,
    version: &VersionRow,
    (more, bytes): (i64, i64),
    any: bool,
) -> Result<BackupState> {
    let (etag, count) = if any {
        backup::changed(tx, &version.user_id, version.version, more, bytes)?
    } else {
        (version.etag, version.sessions)
    };
    Ok(BackupState {
        etag: etag.to_string(),
        count: UInt::try_from(count).unwrap_or_default(),
    })
}

impl SessionSelection {
    /// The selection, in the type that the storage uses.
    pub(super) fn as_stored(&self) -> Result<backup::KeySelection<'_>> {
        Ok(match self {
            SessionSelection::All => backup::KeySelection::All,
            SessionSelection::Room(room) => backup::KeySelection::Room(room.as_str()),
            SessionSelection::Session(room, session) => {
                rules::check_identifier(session, "a session id")?;
                backup::KeySelection::Session(room.as_str(), session)
            }
        })
    }
}
