//! Reads that do not wait for writes: the keys of users as a reader sees them, and backups.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId, UInt, UserId};
use schema::keys::DeviceWithKeys;
use schema::signing_keys::SignatureRow;
use schema::{Conn, backup, keys, signing_keys};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::rules::canonical;
use super::rules::present;
use super::rules::signing::Usage;
use super::rules::upload::check_query;
use super::{BackupState, SessionSelection, Sessions};
use crate::hooks::Hooks;
use crate::wire::DeviceSigner;
use crate::{Env, Error, Identity, Refusal, Result};

/// user → device ids; all devices of the user if the list is empty.
pub type Queried = BTreeMap<OwnedUserId, Vec<OwnedDeviceId>>;

/// The keys of users as one reader sees them. Each has the bytes that its owner uploaded, plus what the server adds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct UserKeys {
    /// The identity keys of devices, by user and device. Every requested user of this server has an entry.
    pub device_keys: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Box<RawValue>>>,
    /// The master keys, by user.
    pub master_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
    /// The self-signing keys, by user.
    pub self_signing_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
    /// The user-signing key of the reader: no other user's is included.
    pub user_signing_keys: BTreeMap<OwnedUserId, Box<RawValue>>,
}

/// The keys of these users' devices, and their cross-signing keys. The reader sees signatures by each key's owner and by the
/// reader. ([spec]) Clause: cs.signing.visible, cs.signing.user-signing
///
/// # Errors
/// [`Refusal::TooMany`] for more than [`QUERIED`](super::rules::upload::QUERIED) users.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery
pub async fn query_keys(env: &Env, reader: &Identity, queried: Queried) -> Result<UserKeys> {
    check_query(queried.len())?;
    let here = env.settings.server_name.clone();
    let (reader, hooks) = (reader.user.clone(), env.hooks.clone());
    env.store
        .read(move |db| {
            let users: Vec<&str> = queried
                .keys()
                .filter(|user| user.server_name() == here)
                .map(|user| user.as_str())
                .collect();
            let devices = keys::devices_with_keys(db, &users)?;
            let signing = signing_keys::signing_keys(db, &users)?;
            let mut signatures = signing_keys::signatures_for(db, reader.as_str(), &users)?;
            signatures.extend(signatures_for_devices(db, &hooks, &devices)?);
            let signatures = Signatures::new(signatures);

            let mut answer = UserKeys::default();
            for user in queried.keys().filter(|user| user.server_name() == here) {
                answer.device_keys.insert(user.clone(), BTreeMap::new());
            }
            for row in devices {
                let Some((user, wanted)) = queried.get_key_value(user_id(&row.user_id)?) else {
                    continue;
                };
                let device = OwnedDeviceId::from(row.device_id);
                if !wanted.is_empty() && !wanted.contains(&device) {
                    continue;
                }
                let more = signatures.over(&row.user_id, device.as_str());
                let shown = present::device_keys(row.json, row.display_name.as_deref(), more)?;
                if let Some(of_user) = answer.device_keys.get_mut(user) {
                    of_user.insert(device, shown);
                }
            }
            for row in signing {
                let user = user_id(&row.user_id)?.to_owned();
                let shown = |json| {
                    present::signing_key(json, signatures.over(&row.user_id, &row.public_key))
                };
                match row.usage.as_str() {
                    usage if usage == Usage::Master.as_str() => {
                        answer.master_keys.insert(user, shown(row.json)?);
                    }
                    usage if usage == Usage::SelfSigning.as_str() => {
                        answer.self_signing_keys.insert(user, shown(row.json)?);
                    }
                    _ if user == reader => {
                        answer.user_signing_keys.insert(user, shown(row.json)?);
                    }
                    _ => {}
                }
            }
            Ok(answer)
        })
        .await
}

// ANCHOR: signers
/// The signatures over these devices by other users' devices that sign for them. Every reader sees them.
/// Clause: as.impersonation.signature
fn signatures_for_devices(
    db: &mut Conn,
    hooks: &Hooks,
    devices: &[DeviceWithKeys],
) -> Result<Vec<SignatureRow>> {
    let mut signers: BTreeMap<(&str, &str), DeviceSigner> = BTreeMap::new();
    for row in devices.iter().filter(|_| hooks.finds_device_signers()) {
        // Keys that were stored before the proposal was switched on may not have its form. Then no device signs for this one.
        let found = canonical(&row.json).map(|keys| hooks.device_signer(&keys));
        if let Ok(Ok(Some(signer))) = found {
            signers.insert((&row.user_id, &row.device_id), signer);
        }
    }
    if signers.is_empty() {
        return Ok(Vec::new());
    }
    let users: BTreeSet<&str> = signers.keys().map(|(user, _)| *user).collect();
    let by: BTreeSet<&str> = signers.values().map(|s| s.user.as_str()).collect();
    let (users, by) = (Vec::from_iter(users), Vec::from_iter(by));
    let rows = signing_keys::signatures_by(db, &by, &users)?.into_iter();
    let counts = |row: &SignatureRow| {
        let signer = signers.get(&(row.target_user.as_str(), row.target_key.as_str()));
        signer.is_some_and(|s| s.user == row.signer_user && s.key_id() == row.signer_key)
    };
    Ok(rows.filter(counts).collect())
}
// ANCHOR_END: signers

fn user_id(stored: &str) -> Result<&UserId> {
    <&UserId>::try_from(stored)
        .map_err(|e| schema::Error::Damaged(format!("user id {stored:?}: {e}")).into())
}

/// Signatures, in order of the key that they cover.
struct Signatures(Vec<SignatureRow>);

impl Signatures {
    fn new(mut rows: Vec<SignatureRow>) -> Signatures {
        rows.sort_by(|a, b| key_of(a).cmp(&key_of(b)));
        Signatures(rows)
    }

    fn over(&self, user: &str, key: &str) -> &[SignatureRow] {
        let from = self.0.partition_point(|row| key_of(row) < (user, key));
        let len = self.0[from..].partition_point(|row| key_of(row) == (user, key));
        &self.0[from..from + len]
    }
}

fn key_of(row: &SignatureRow) -> (&str, &str) {
    (&row.target_user, &row.target_key)
}

/// A version of a key backup.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Its name.
    pub version: String,
    /// An object with `algorithm` and `auth_data`.
    pub description: Box<RawValue>,
    /// The state of its sessions.
    pub state: BackupState,
}

/// A version of a user's backup, or the current one if `version` is `None`. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversion
pub async fn backup(env: &Env, user: &UserId, version: Option<String>) -> Result<Backup> {
    #[derive(Serialize)]
    struct Description {
        algorithm: String,
        auth_data: Box<RawValue>,
    }
    let user = user.to_owned();
    let row = env
        .store
        .read(move |db| match version {
            Some(version) => super::backup::find(db, &user, &version),
            None => backup::current(db, user.as_str())?
                .ok_or_else(|| Error::from(Refusal::NotFound("there is no backup".into()))),
        })
        .await?;
    let description = Description {
        algorithm: row.algorithm,
        auth_data: RawValue::from_string(row.auth_data)?,
    };
    Ok(Backup {
        version: row.version.to_string(),
        description: to_raw_value(&description)?,
        state: BackupState {
            etag: row.etag.to_string(),
            count: UInt::try_from(row.sessions).unwrap_or_default(),
        },
    })
}

/// The key of one session. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeysroomidsessionid
pub async fn session(
    env: &Env,
    user: &UserId,
    version: String,
    room: OwnedRoomId,
    session: String,
) -> Result<Box<RawValue>> {
    let part = SessionSelection::Session(room, session);
    let found = sessions(env, user, version, part).await?;
    let mut found = found.into_values().flat_map(BTreeMap::into_values);
    Ok(found
        .next()
        .ok_or(Refusal::NotFound("there is no such session".into()))?)
}

/// The most backed-up sessions in one read: usually 200 KiB, at most about 12 MiB.
const PAGE: i64 = 200;

/// A page of stored sessions.
#[derive(Debug)]
pub struct SessionPage {
    /// Room, session and key, in order of room and session.
    pub sessions: Vec<backup::Stored>,
    /// Whether this is the last page.
    pub is_last: bool,
}

/// A page of the session keys in a version of a user's backup, of all rooms or of one, after a session of a room. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`] if there is no such version.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeys
pub async fn page(
    env: &Env,
    user: &UserId,
    version: String,
    room: Option<OwnedRoomId>,
    after: Option<(String, String)>,
) -> Result<SessionPage> {
    let user = user.to_owned();
    env.store
        .read_slow(move |db| {
            let version = super::backup::find(db, &user, &version)?.version;
            let after = after.as_ref().map(|(r, s)| (r.as_str(), s.as_str()));
            let room = room.as_ref().map(|room| room.as_str());
            let sessions = backup::page(db, user.as_str(), version, room, after, PAGE)?;
            let is_last = (sessions.len() as i64) < PAGE;
            Ok(SessionPage { sessions, is_last })
        })
        .await
}

/// The session keys in a version of a user's backup, without rooms that have none. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`] if there is no such version.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeys
pub async fn sessions(
    env: &Env,
    user: &UserId,
    version: String,
    part: SessionSelection,
) -> Result<Sessions> {
    let user = user.to_owned();
    env.store
        .read(move |db| {
            let version = super::backup::find(db, &user, &version)?;
            let stored = part.as_stored()?;
            let rows = backup::sessions(db, user.as_str(), version.version, &stored)?;
            let mut sessions = Sessions::new();
            for (room, session, json) in rows {
                let room = OwnedRoomId::try_from(room)
                    .map_err(|e| schema::Error::Damaged(format!("room id: {e}")))?;
                let of_room = sessions.entry(room).or_default();
                of_room.insert(session, RawValue::from_string(json)?);
            }
            Ok(sessions)
        })
        .await
}
