//! Which cross-signing keys and signatures are stored: only signatures that verify.

use ruma::encryption::{CrossSigningKey, KeyUsage};
use ruma::serde::Base64;
use ruma::signatures::{to_canonical_json_string_for_signing, verify_canonical_json_bytes};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, SigningKeyAlgorithm, UserId};
use serde_json::value::RawValue;

use super::{canonical, check_identifier, is_same_signed_part};
use crate::wire::DeviceSigner;
use crate::{Refusal, Result};

/// The largest key object, in bytes: the limit of a room event.
const KEY: usize = 65_536;

/// The most signatures of one user over one key that are checked.
const SIGNATURES: usize = 100;

/// The most signed objects in one upload. Verifying a signature takes about 0.05 ms of the writer's time.
const OBJECTS: usize = 500;

/// Check that an upload has at most 500 signed objects.
///
/// # Errors
/// [`Refusal::TooMany`]
pub fn check_objects(objects: usize) -> Result<()> {
    if objects > OBJECTS {
        return Err(Refusal::TooMany("too many signed keys at once".into()).into());
    }
    Ok(())
}

/// The purpose of a cross-signing key. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#cross-signing
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    /// The master key signs the two others and identifies the user.
    Master,
    /// The self-signing key signs the user's own devices.
    SelfSigning,
    /// The user-signing key signs the master keys of other users.
    UserSigning,
}

impl Usage {
    /// Its name on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Usage::Master => "master",
            Usage::SelfSigning => "self_signing",
            Usage::UserSigning => "user_signing",
        }
    }
}

/// A cross-signing key whose form has been checked.
#[derive(Debug, Clone)]
pub struct SigningKey {
    /// Its purpose.
    pub usage: Usage,
    /// The public key, in base64 as its owner wrote it.
    pub public_key: String,
    /// The parsed object.
    pub object: CanonicalJsonObject,
    /// The object with its original bytes.
    pub json: String,
}

impl SigningKey {
    /// The key id of its signatures.
    pub fn id(&self) -> String {
        format!("ed25519:{}", self.public_key)
    }
}

/// Parse a cross-signing key: it belongs to the user, names its usage, and has exactly one public key, an Ed25519 key whose id
/// contains the key itself. ([spec]) Clause: cs.signing.form
///
/// # Errors
/// [`Refusal::BadJson`], [`Refusal::TooLarge`]; [`Refusal::InvalidParam`] for a well-formed object with wrong content.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload
pub fn parse_signing_key(json: &RawValue, usage: Usage, user: &UserId) -> Result<SigningKey> {
    if json.get().len() > KEY {
        return Err(Refusal::TooLarge("a key is larger than 65,536 bytes".into()).into());
    }
    let invalid = |why: &'static str| {
        Refusal::InvalidParam(format!("the {} key {why}", usage.as_str()).into())
    };
    let key: CrossSigningKey = serde_json::from_str(json.get())
        .map_err(|e| Refusal::BadJson(format!("the {} key: {e}", usage.as_str()).into()))?;
    if key.user_id != user {
        return Err(invalid("must be that of the user who uploads it").into());
    }
    if !key.usage.contains(&KeyUsage::from(usage.as_str())) {
        return Err(invalid("must name its usage").into());
    }
    let mut keys = key.keys.into_iter();
    let (Some((id, public_key)), None) = (keys.next(), keys.next()) else {
        return Err(invalid("must have exactly one public key").into());
    };
    if id.as_str() != format!("ed25519:{public_key}") {
        return Err(invalid("must be of ed25519 and named after itself").into());
    }
    if decode(&public_key).is_none_or(|bytes| bytes.len() != 32) {
        return Err(invalid("must be 32 bytes in base64").into());
    }
    Ok(SigningKey {
        usage,
        public_key,
        object: canonical(json.get())?,
        json: json.get().to_owned(),
    })
}

fn decode(base64: &str) -> Option<Vec<u8>> {
    Base64::<ruma::serde::base64::Standard>::parse(base64)
        .ok()
        .map(Base64::into_inner)
}

/// The signatures of a user over an object: pairs of key id and signature in base64.
pub fn signatures_of<'a>(
    object: &'a CanonicalJsonObject,
    user: &UserId,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let of_user = match object.get("signatures") {
        Some(CanonicalJsonValue::Object(all)) => all.get(user.as_str()),
        _ => None,
    };
    let signatures = match of_user {
        Some(CanonicalJsonValue::Object(signatures)) => Some(signatures),
        _ => None,
    };
    let text = |(id, signature): (&'a String, &'a CanonicalJsonValue)| match signature {
        CanonicalJsonValue::String(signature) => Some((id.as_str(), signature.as_str())),
        _ => None,
    };
    signatures
        .into_iter()
        .flatten()
        .take(SIGNATURES)
        .filter_map(text)
}

/// Whether this is a valid signature by the public key over the object. ([spec]) Clause: cs.signing.verified
///
/// [spec]: https://spec.matrix.org/v1.19/appendices/#checking-for-a-signature
pub fn verifies(object: &CanonicalJsonObject, public_key: &str, signature: &str) -> bool {
    let (Some(key), Some(signature), Ok(signed)) = (
        decode(public_key),
        decode(signature),
        to_canonical_json_string_for_signing(object),
    ) else {
        return false;
    };
    let algorithm = SigningKeyAlgorithm::Ed25519;
    verify_canonical_json_bytes(&algorithm, &key, &signature, signed.as_bytes()).is_ok()
}

/// The signature of this user's key over the object, verified. Clause: cs.signing.signed
///
/// # Errors
/// [`Refusal::InvalidSignature`] if it is missing or wrong.
pub fn signature_by<'a>(
    object: &'a CanonicalJsonObject,
    user: &UserId,
    public_key: &str,
) -> Result<&'a str, Refusal> {
    let id = format!("ed25519:{public_key}");
    let signature = signatures_of(object, user)
        .find(|(key, _)| *key == id)
        .ok_or(Refusal::InvalidSignature(
            "the signature of the required key is missing".into(),
        ))?
        .1;
    if !verifies(object, public_key, signature) {
        return Err(Refusal::InvalidSignature("a signature is wrong".into()));
    }
    Ok(signature)
}

/// The signature over a device's keys by another device that signs for it, verified; `None` if it is missing.
///
/// # Errors
/// [`Refusal::InvalidSignature`] if it is wrong.
pub fn signature_for_device<'a>(
    object: &'a CanonicalJsonObject,
    signer: &DeviceSigner,
) -> Result<Option<&'a str>, Refusal> {
    let id = signer.key_id();
    let found = signatures_of(object, &signer.user).find(|(key, _)| *key == id);
    match found {
        Some((_, signature)) if !verifies(object, &signer.public_key, signature) => Err(
            Refusal::InvalidSignature("the signature of the device that signs is wrong".into()),
        ),
        found => Ok(found.map(|(_, signature)| signature)),
    }
}

/// Whether an uploaded key is new: there is no stored key, or its signed part is different.
pub fn is_new_key(stored: Option<&str>, uploaded: &SigningKey) -> bool {
    let same = |json| canonical(json).is_ok_and(|k| is_same_signed_part(&k, &uploaded.object));
    !stored.is_some_and(same)
}

/// Check that an uploaded signed object is the stored key, with nothing but signatures added. ([spec])
///
/// # Errors
/// [`Refusal::InvalidSignature`] if the content differs, [`Refusal::BadJson`] if it is no object.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload
/// Clause: cs.signing.same-key
pub fn same_key(uploaded: &RawValue, stored: &str) -> Result<CanonicalJsonObject, Refusal> {
    let bad = |_| Refusal::BadJson("not a canonical JSON object".into());
    if uploaded.get().len() > KEY {
        return Err(Refusal::TooLarge(
            "a key is larger than 65,536 bytes".into(),
        ));
    }
    let object: CanonicalJsonObject = serde_json::from_str(uploaded.get()).map_err(bad)?;
    let known: CanonicalJsonObject = serde_json::from_str(stored).map_err(bad)?;
    if !is_same_signed_part(&object, &known) {
        return Err(Refusal::InvalidSignature(
            "the signed key is not the one that is stored".into(),
        ));
    }
    Ok(object)
}

/// The device id in a key id such as `ed25519:DEVICE`.
pub fn device_of(key_id: &str) -> Option<&str> {
    let device = key_id.strip_prefix("ed25519:")?;
    check_identifier(device, "a device id")
        .is_ok()
        .then_some(device)
}

/// The Ed25519 key in a device's identity keys.
pub fn device_signing_key(device_keys: &str, key_id: &str) -> Option<String> {
    let keys: ruma::encryption::DeviceKeys = serde_json::from_str(device_keys).ok()?;
    keys.keys
        .into_iter()
        .find(|(id, _)| id.as_str() == key_id)
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_device_signed() {
        let cases = [
            ("ed25519:LAPTOP", Some("LAPTOP")),
            ("ed25519:", None),
            ("curve25519:LAPTOP", None),
            ("LAPTOP", None),
        ];
        for (key_id, device) in cases {
            assert_eq!(device_of(key_id), device, "{key_id}");
        }
    }

    #[test]
    fn only_text_is_a_signature() {
        let object =
            canonical(r#"{"signatures":{"@a:test":{"ed25519:A":"s","ed25519:B":1},"@b:test":[]}}"#)
                .expect("canonical");
        let of = |user: &str| -> Vec<(String, String)> {
            let user = <&UserId>::try_from(user).expect("a user id");
            signatures_of(&object, user)
                .map(|(id, signature)| (id.to_owned(), signature.to_owned()))
                .collect()
        };
        assert_eq!(of("@a:test"), [("ed25519:A".to_owned(), "s".to_owned())]);
        assert!(of("@b:test").is_empty() && of("@c:test").is_empty());
    }
}
