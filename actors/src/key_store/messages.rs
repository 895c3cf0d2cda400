//! Messages to the key store.

use std::collections::BTreeMap;

use actix::Message;
use ruma::{OneTimeKeyAlgorithm, OwnedDeviceId, OwnedOneTimeKeyId, OwnedRoomId, OwnedUserId, UInt};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Identity, Refusal, Result};

/// One-time or fallback keys by id, each with its original bytes.
pub type Keys = BTreeMap<OwnedOneTimeKeyId, Box<RawValue>>;

/// The number of unclaimed one-time keys of each algorithm. `signed_curve25519` is always included, with 0 if there are none.
pub type OneTimeKeyCounts = BTreeMap<OneTimeKeyAlgorithm, UInt>;

/// Replace the identity keys of a device, add one-time keys behind the existing ones, and replace fallback keys, all or
/// nothing. ([spec])
///
/// Keys that are stored already change nothing. Replies with the number of one-time keys; [`Refusal::NoDevice`] without a
/// device, [`Refusal::TooMany`] beyond the limit of an algorithm, [`Refusal::Unknown`] if another one-time key has the same id.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<OneTimeKeyCounts>")]
pub struct Upload {
    /// The user and the device that own the keys.
    pub from: Identity,
    /// The identity keys, with their original bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_keys: Option<Box<RawValue>>,
    /// One-time keys: each is given away once.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub one_time_keys: Keys,
    /// Fallback keys, one for each algorithm: given away when there are no one-time keys.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fallback_keys: Keys,
}

/// user → device → the algorithm of the wanted key.
pub type Wanted = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>>;

/// user → device → the claimed key, by its id.
pub type OneTimeKeys = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Keys>>;

/// Take a key from each of these devices: the oldest one-time key, which is never given away again, or else its fallback key if
/// that is allowed. ([spec])
///
/// All in one write: of two claims for the last key, one gets it.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Claimed>")]
pub struct Claim {
    /// The devices from which keys are claimed.
    pub wanted: Wanted,
    /// Whether to take a fallback key where there is no one-time key. If not, the caller can look for the missing keys
    /// elsewhere and then send [`ClaimFallback`].
    pub or_fallback: bool,
}

/// Take the fallback key of each of these devices, after no one-time key was found here or elsewhere.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Claimed>")]
pub struct ClaimFallback {
    /// The devices from which keys are claimed.
    pub wanted: Wanted,
}

/// The result of a claim.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Claimed {
    /// The claimed keys.
    pub one_time_keys: OneTimeKeys,
    /// The part of `wanted` for which no key was found.
    pub missing: Wanted,
}

/// Replace cross-signing keys, all or nothing. ([spec])
///
/// Keys that are stored already change nothing. If there is a master key, the owner must confirm new keys: without that the
/// reply is [`SigningUploaded::MustBeConfirmed`] and nothing changes. Application services need not confirm.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<SigningUploaded>")]
pub struct UploadSigning {
    /// The owner of the keys.
    pub from: Identity,
    /// Whether the owner has confirmed the request.
    pub confirmed: bool,
    /// The key that signs the two others, with its original bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_key: Option<Box<RawValue>>,
    /// The key that signs the user's own devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_signing_key: Option<Box<RawValue>>,
    /// The key that signs the master keys of other users.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_signing_key: Option<Box<RawValue>>,
}

/// The result of an upload of cross-signing keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum SigningUploaded {
    /// The keys are in force.
    Done,
    /// Nothing was changed: the owner must confirm the request first.
    MustBeConfirmed,
}

/// Store signatures over keys. Each object is a stored key with signatures by the sender's keys over it. ([spec])
///
/// Each signature is verified. Replies with the refused objects and the reasons; the others are stored.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Failures>")]
pub struct UploadSignatures {
    /// The user whose keys made the signatures.
    pub from: Identity,
    /// user → device id or public key → the signed key, with its original bytes.
    pub signed: BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>,
}

/// user → device id or public key → why its signatures were refused.
pub type Failures = BTreeMap<OwnedUserId, BTreeMap<String, Refusal>>;

/// Create a new version of the sender's key backup, which becomes the current one. Replies with the name of the version.
/// ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3room_keysversion
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<String>")]
pub struct CreateBackup {
    /// The owner of the backup.
    pub user: OwnedUserId,
    /// An object with `algorithm` and `auth_data`.
    pub description: Box<RawValue>,
}

/// Change the `auth_data` of a version of a key backup; its algorithm stays. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keysversionversion
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct UpdateBackup {
    /// The owner of the backup.
    pub user: OwnedUserId,
    /// The name of the backup version.
    pub version: String,
    /// An object with `auth_data`, the version's unchanged `algorithm` and, optionally, its name as `version`.
    pub description: Box<RawValue>,
}

/// Delete a version of a key backup, with its sessions. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keysversionversion
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct DeleteBackup {
    /// The owner of the backup.
    pub user: OwnedUserId,
    /// The name of the version.
    pub version: String,
}

/// room → session → the encrypted key, with its original bytes.
pub type Sessions = BTreeMap<OwnedRoomId, BTreeMap<String, Box<RawValue>>>;

/// Store session keys in the current version of a key backup. If a session has a key already, the better one stays. ([spec])
///
/// [`Refusal::WrongBackupVersion`] when another version is current.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeys
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<BackupState>")]
pub struct StoreSessions {
    /// The owner of the backup.
    pub user: OwnedUserId,
    /// The name of the version.
    pub version: String,
    /// The keys to store.
    pub rooms: Sessions,
}

/// A selection of the sessions in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum SessionSelection {
    /// All sessions.
    All,
    /// The sessions of one room.
    Room(OwnedRoomId),
    /// One session of one room.
    Session(OwnedRoomId, String),
}

/// Delete session keys from a version of a key backup. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeys
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<BackupState>")]
pub struct DeleteSessions {
    /// The owner of the backup.
    pub user: OwnedUserId,
    /// The name of the version.
    pub version: String,
    /// The sessions to delete.
    pub part: SessionSelection,
}

/// The etag of a key backup's version, and the number of its sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupState {
    /// A value that changes whenever the stored sessions change.
    pub etag: String,
    /// The number of stored sessions.
    pub count: UInt,
}
