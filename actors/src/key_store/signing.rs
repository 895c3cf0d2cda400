//! Handles uploads of cross-signing keys and of signatures.

use std::collections::BTreeSet;

use actix::{Context, Handler, ResponseFuture};
use ruma::UserId;
use schema::signing_keys::{SignatureRow, SigningKeyRow};
use schema::{Tx, accounts, keys, signing_keys};
use serde_json::value::RawValue;

use super::changed::Changed;
use super::rules::signing::{self as rule, SigningKey, Usage};
use super::{Failures, KeyStore, SigningUploaded, UploadSignatures, UploadSigning, rules};
use crate::hooks::Hooks;
use crate::{Error, Refusal, Result};

impl Handler<UploadSigning> for KeyStore {
    type Result = ResponseFuture<Result<SigningUploaded>>;

    /// Clause: as.devices.signing-keys
    fn handle(&mut self, msg: UploadSigning, _: &mut Context<Self>) -> Self::Result {
        let parsed = parse(&msg);
        let confirmed = msg.confirmed || self.env.manages_devices(&msg.from);
        self.change(parsed.map(|keys| move |tx: &mut Tx<'_>| upload(tx, &msg, &keys, confirmed)))
    }
}

impl Handler<UploadSignatures> for KeyStore {
    type Result = ResponseFuture<Result<Failures>>;

    fn handle(&mut self, msg: UploadSignatures, _: &mut Context<Self>) -> Self::Result {
        let objects = msg.signed.values().map(|of_user| of_user.len()).sum();
        let checked = rule::check_objects(objects);
        let env = self.env.clone();
        self.change(
            checked.map(|()| move |tx: &mut Tx<'_>| upload_signatures(tx, &msg, &env.hooks)),
        )
    }
}

/// The uploaded keys, the master key first. Their form is checked.
pub(super) fn parse(msg: &UploadSigning) -> Result<Vec<SigningKey>> {
    [
        (&msg.master_key, Usage::Master),
        (&msg.self_signing_key, Usage::SelfSigning),
        (&msg.user_signing_key, Usage::UserSigning),
    ]
    .into_iter()
    .filter_map(|(json, usage)| Some((json.as_ref()?, usage)))
    .map(|(json, usage)| rule::parse_signing_key(json, usage, &msg.from.user))
    .collect()
}

/// Store the keys that are new. Those of a user with a master key must be `confirmed` first. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload
/// Clause: cs.signing.confirmed, cs.signing.first, cs.signing.list-changed
pub(super) fn upload(
    tx: &mut Tx<'_>,
    msg: &UploadSigning,
    keys: &[SigningKey],
    confirmed: bool,
) -> Result<(SigningUploaded, Changed)> {
    let user = &msg.from.user;
    let stored = signing_keys::signing_keys(tx, &[user.as_str()])?;
    let stored = |usage: Usage| stored.iter().find(|k| k.usage == usage.as_str());

    check_signed_by_master(user, keys, stored(Usage::Master))?;
    let is_new = |k: &SigningKey| rule::is_new_key(stored(k.usage).map(|s| s.json.as_str()), k);
    let has_master = stored(Usage::Master).is_some();
    if !confirmed && has_master && keys.iter().any(is_new) {
        return Ok((SigningUploaded::MustBeConfirmed, Changed::default()));
    }

    let (mut shared, mut private) = (false, false);
    // Other users whose master keys lose a signature that only this user sees.
    let mut unsigned = BTreeSet::new();
    for key in keys {
        let before = stored(key.usage);
        if before.is_some_and(|b| rules::is_same(&b.json, &key.json)) {
            continue;
        }
        unsigned.extend(put(tx, user, key, before)?);
        match key.usage {
            Usage::Master | Usage::SelfSigning => shared = true,
            Usage::UserSigning => private = true,
        }
        if key.usage == Usage::Master && before.is_some_and(|b| b.public_key != key.public_key) {
            // A key that the old master key signed and that this request does not replace is not signed any more.
            for usage in [Usage::SelfSigning, Usage::UserSigning] {
                if let Some(orphan) = stored(usage)
                    && !keys.iter().any(|k| k.usage == usage)
                {
                    unsigned.extend(forget(tx, user, orphan)?);
                    signing_keys::remove_signing_key(tx, user.as_str(), usage.as_str())?;
                }
            }
        }
    }
    let mut changed = Changed::default();
    if shared {
        changed.device_lists(tx, user)?;
    } else if private {
        changed.private(tx, user, user.as_str())?;
    }
    for subject in unsigned {
        changed.private(tx, user, &subject)?;
    }
    Ok((SigningUploaded::Done, changed))
}

/// Check that the self-signing and the user-signing key are signed by the master key of the request, or else by the stored one.
/// ([spec]) Clause: cs.signing.master-first
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload
fn check_signed_by_master(
    user: &UserId,
    keys: &[SigningKey],
    stored: Option<&SigningKeyRow>,
) -> Result<()> {
    let uploaded = keys.iter().find(|k| k.usage == Usage::Master);
    let master = uploaded
        .map(|k| &k.public_key)
        .or_else(|| stored.map(|k| &k.public_key));
    for key in keys.iter().filter(|k| k.usage != Usage::Master) {
        let master = master.ok_or(Refusal::MissingParam("there is no master key".into()))?;
        rule::signature_by(&key.object, user, master)?;
    }
    Ok(())
}

/// Store a key. Returns the other users whose keys lose a signature.
fn put(
    tx: &mut Tx<'_>,
    user: &UserId,
    key: &SigningKey,
    before: Option<&SigningKeyRow>,
) -> Result<Vec<String>> {
    // Signatures name device ids and public keys in one map, so a key must not have the same name as a device.
    if accounts::has_device(tx, user.as_str(), &key.public_key)? {
        return Err(Refusal::Forbidden(
            "the public key is the id of one of the user's devices".into(),
        )
        .into());
    }
    let unsigned = match before.filter(|before| before.public_key != key.public_key) {
        Some(before) => forget(tx, user, before)?,
        None => Vec::new(),
    };
    let row = SigningKeyRow {
        user_id: user.to_string(),
        usage: key.usage.as_str().to_owned(),
        public_key: key.public_key.clone(),
        json: key.json.clone(),
    };
    signing_keys::put_signing_key(tx, &row)?;
    Ok(unsigned)
}

/// Delete the signatures over a key and by it. Returns the other users whose keys lose a signature.
fn forget(tx: &mut Tx<'_>, user: &UserId, key: &SigningKeyRow) -> Result<Vec<String>> {
    signing_keys::forget_signatures_over(tx, user.as_str(), &key.public_key)?;
    let id = format!("ed25519:{}", key.public_key);
    let unsigned = signing_keys::signed_by(tx, user.as_str(), &id)?;
    signing_keys::forget_signatures_by(tx, user.as_str(), &id)?;
    Ok(unsigned)
}

/// Store the valid signatures. Returns why the others were refused.
pub(super) fn upload_signatures(
    tx: &mut Tx<'_>,
    msg: &UploadSignatures,
    hooks: &Hooks,
) -> Result<(Failures, Changed)> {
    let me = &msg.from.user;
    let mut failures = Failures::new();
    // Users whose keys changed for everyone, and users whose keys changed for the sender alone.
    let (mut shared, mut private) = (BTreeSet::new(), BTreeSet::new());
    for (user, objects) in &msg.signed {
        for (key, object) in objects {
            let (rows, for_all) = match signature_for_device(tx, hooks, me, user, key, object) {
                Ok(Some(row)) => (Ok(vec![row]), true),
                Ok(None) => (signatures(tx, me, user, key, object), user == me),
                Err(refused) => (Err(refused), false),
            };
            match rows {
                Ok(rows) => {
                    for row in rows {
                        let new = signing_keys::put_signature(tx, &row)?;
                        if new && for_all {
                            shared.insert(user);
                        } else if new {
                            private.insert(user);
                        }
                    }
                }
                Err(Error::Refused(why)) => {
                    failures
                        .entry(user.clone())
                        .or_default()
                        .insert(key.clone(), why);
                }
                Err(broken) => return Err(broken),
            }
        }
    }
    let mut changed = Changed::default();
    for user in private.difference(&shared) {
        changed.private(tx, me, user.as_str())?;
    }
    for user in shared {
        changed.device_lists(tx, user)?;
    }
    Ok((failures, changed))
}

/// The signature that this object adds to a device of another user for which one of the sender's devices signs. `None` if it is
/// no such device: then the object is about cross-signing.
fn signature_for_device(
    tx: &mut Tx<'_>,
    hooks: &Hooks,
    me: &UserId,
    user: &UserId,
    key: &str,
    object: &RawValue,
) -> Result<Option<SignatureRow>> {
    if !hooks.finds_device_signers() || user == me {
        return Ok(None);
    }
    rules::check_identifier(key, "a key id")?;
    let Some(stored) = keys::device_keys(tx, user.as_str(), key)? else {
        return Ok(None);
    };
    let signer = hooks.device_signer(&rules::canonical(&stored)?)?;
    let Some(signer) = signer.filter(|signer| signer.user == *me) else {
        return Ok(None);
    };
    let object = rule::same_key(object, &stored)?;
    let signature = rule::signature_for_device(&object, &signer)?.ok_or(
        Refusal::InvalidSignature("the device that must sign has not signed".into()),
    )?;
    Ok(Some(SignatureRow {
        target_user: user.to_string(),
        signer_user: me.to_string(),
        target_key: key.to_owned(),
        signer_key: signer.key_id(),
        signature: signature.to_owned(),
    }))
}

/// The signatures that this object adds to a stored key. ([spec])
///
/// A user's own device is signed by the self-signing key, the user's own master key by the user's devices, and another user's
/// master key by the user-signing key. Other signatures in the object are ignored.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload
fn signatures(
    tx: &mut Tx<'_>,
    me: &UserId,
    user: &UserId,
    key: &str,
    object: &RawValue,
) -> Result<Vec<SignatureRow>> {
    rules::check_identifier(key, "a key id")?;
    let master = signing_keys::signing_key(tx, user.as_str(), Usage::Master.as_str())?;
    let master = master.filter(|m| m.public_key == key);
    let row = |signer_key: String, signature: &str| SignatureRow {
        target_user: user.to_string(),
        signer_user: me.to_string(),
        target_key: key.to_owned(),
        signer_key,
        signature: signature.to_owned(),
    };
    if let Some(master) = master.as_ref().filter(|_| user == me) {
        let object = rule::same_key(object, &master.json)?;
        let mut rows = Vec::new();
        for (id, signature) in rule::signatures_of(&object, me) {
            let Some(device) = rule::device_of(id) else {
                continue;
            };
            let device = keys::device_keys(tx, me.as_str(), device)?;
            // Skip unknown devices too: the object may contain older signatures of deleted keys.
            let Some(public_key) = device.and_then(|d| rule::device_signing_key(&d, id)) else {
                continue;
            };
            if !rule::verifies(&object, &public_key, signature) {
                return Err(Refusal::InvalidSignature("a signature is wrong".into()).into());
            }
            rows.push(row(id.to_owned(), signature));
        }
        if rows.is_empty() {
            return Err(Refusal::InvalidSignature("no device has signed the key".into()).into());
        }
        return Ok(rows);
    }
    let (stored, usage) = if user == me {
        (keys::device_keys(tx, me.as_str(), key)?, Usage::SelfSigning)
    } else {
        (master.map(|m| m.json), Usage::UserSigning)
    };
    let stored = stored.ok_or(Refusal::NotFound("there is no such key".into()))?;
    let signer = signing_keys::signing_key(tx, me.as_str(), usage.as_str())?
        .ok_or(Refusal::NotFound("there is no key to sign with".into()))?;
    let object = rule::same_key(object, &stored)?;
    let signature = rule::signature_by(&object, me, &signer.public_key)?;
    Ok(vec![row(
        format!("ed25519:{}", signer.public_key),
        signature,
    )])
}
