//! What may be said to the keeper of keys.

use std::collections::BTreeMap;

use actix::Message;
use ruma::{OneTimeKeyAlgorithm, OwnedDeviceId, OwnedOneTimeKeyId, OwnedRoomId, OwnedUserId, UInt};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{Identity, Refusal, Result};

/// One-time or fallback keys by id, each as its bytes came.
pub type Keys = BTreeMap<OwnedOneTimeKeyId, Box<RawValue>>;

/// How many one-time keys of each algorithm wait to be claimed. `signed_curve25519` is always named, with 0 if there is none.
pub type Counts = BTreeMap<OneTimeKeyAlgorithm, UInt>;

/// Put the identity keys of a device where the old ones are, add one-time keys behind those that are there, replace
/// fallback keys. All or nothing. ([spec])
///
/// What is there already in the same form changes nothing. Answers how many one-time keys there are now;
/// [`Refusal::NoDevice`] without a device, [`Refusal::TooMany`] beyond the limit of an algorithm,
/// [`Refusal::Unknown`] when the id of a one-time key is taken by another.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Counts>")]
pub struct Upload {
    /// Whose keys these are: the user and the device.
    pub from: Identity,
    /// The identity keys, as their bytes came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_keys: Option<Box<RawValue>>,
    /// Keys that are each given away once.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub one_time_keys: Keys,
    /// Keys that are given away when there are no others, one for each algorithm.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fallback_keys: Keys,
}

/// user → device → the algorithm of which a key is wanted.
pub type Wanted = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>>;

/// user → device → the key that was claimed, by its id.
pub type OneTimeKeys = BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Keys>>;

/// Take a key from each of these devices: the oldest one-time key, which nobody gets again; else, if asked for, its fallback
/// key. ([spec])
///
/// All in one write: of two that ask for the last key, one gets it.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Claimed>")]
pub struct Claim {
    /// From which devices.
    pub wanted: Wanted,
    /// Whether a fallback key will do. Where not, whoever asks can look elsewhere for what is missing and then [`ClaimFallback`].
    pub or_fallback: bool,
}

/// Take the fallback key of each of these devices, for whom no one-time key was found here or elsewhere.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Claimed>")]
pub struct ClaimFallback {
    /// From which devices.
    pub wanted: Wanted,
}

/// What was claimed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Claimed {
    /// The keys.
    pub one_time_keys: OneTimeKeys,
    /// The part of what was wanted for which there was no key.
    pub missing: Wanted,
}

/// Put cross-signing keys where the old ones are. All or nothing. ([spec])
///
/// What is there already changes nothing. A new key besides an existing master key must be confirmed by its owner:
/// without it the answer is [`SigningUploaded::MustBeConfirmed`] and nothing is changed. Application services need not confirm.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<SigningUploaded>")]
pub struct UploadSigning {
    /// Whose keys these are.
    pub from: Identity,
    /// Whether the owner has confirmed the request.
    pub confirmed: bool,
    /// The key that signs the two others, as its bytes came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_key: Option<Box<RawValue>>,
    /// The key that signs the user's own devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub self_signing_key: Option<Box<RawValue>>,
    /// The key that signs the master keys of others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_signing_key: Option<Box<RawValue>>,
}

/// What became of an upload of cross-signing keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum SigningUploaded {
    /// The keys are in force.
    Done,
    /// Nothing was changed: the owner must confirm the request first.
    MustBeConfirmed,
}

/// Keep signatures over keys: each object is a key as it is stored, with signatures of the sender's keys over it. ([spec])
///
/// Each signature is verified. Answers which objects were refused, and why; the others are kept.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<Failures>")]
pub struct UploadSignatures {
    /// Who signed.
    pub from: Identity,
    /// user → device id or public key → the signed key, as its bytes came.
    pub signed: BTreeMap<OwnedUserId, BTreeMap<String, Box<RawValue>>>,
}

/// user → device id or public key → why its signatures were not kept.
pub type Failures = BTreeMap<OwnedUserId, BTreeMap<String, Refusal>>;

/// Begin a new version of the sender's key backup, which becomes the current one. Answers its name. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3room_keysversion
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<String>")]
pub struct CreateBackup {
    /// Whose backup.
    pub user: OwnedUserId,
    /// An object with `algorithm` and `auth_data`.
    pub description: Box<RawValue>,
}

/// Change the `auth_data` of a version; its algorithm stays. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keysversionversion
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct UpdateBackup {
    /// Whose backup.
    pub user: OwnedUserId,
    /// Which version.
    pub version: String,
    /// An object with `algorithm`, `auth_data` and perhaps `version`, which must be the same.
    pub description: Box<RawValue>,
}

/// Delete a version and all that is in it. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keysversionversion
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<()>")]
pub struct DeleteBackup {
    /// Whose backup.
    pub user: OwnedUserId,
    /// Which version.
    pub version: String,
}

/// room → session → the encrypted key, as its bytes came.
pub type Sessions = BTreeMap<OwnedRoomId, BTreeMap<String, Box<RawValue>>>;

/// Store keys of sessions in the current version; of two keys of a session the better one stays. ([spec])
///
/// [`Refusal::WrongBackupVersion`] when another version is current.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeys
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<BackupState>")]
pub struct StoreSessions {
    /// Whose backup.
    pub user: OwnedUserId,
    /// In which version.
    pub version: String,
    /// The keys.
    pub rooms: Sessions,
}

/// Which sessions of a backup are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Part {
    /// All of them.
    All,
    /// Those of one room.
    Room(OwnedRoomId),
    /// One session of one room.
    Session(OwnedRoomId, String),
}

/// Delete keys of sessions from a version. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeys
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "Result<BackupState>")]
pub struct DeleteSessions {
    /// Whose backup.
    pub user: OwnedUserId,
    /// From which version.
    pub version: String,
    /// Which of them.
    pub part: Part,
}

/// The state of a backup version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackupState {
    /// Changes whenever what is stored changes.
    pub etag: String,
    /// How many sessions are stored.
    pub count: UInt,
}
