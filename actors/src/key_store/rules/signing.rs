//! Which cross-signing keys and signatures are taken in: a signature is believed when it has been verified.

use ruma::encryption::{CrossSigningKey, KeyUsage};
use ruma::serde::Base64;
use ruma::signatures::{to_canonical_json_string_for_signing, verify_canonical_json_bytes};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, SigningKeyAlgorithm, UserId};
use serde_json::value::RawValue;

use super::{canonical, check_identifier, is_same_signed_part};
use crate::wire::DeviceSigner;
use crate::{Refusal, Result};

/// The largest key object, in bytes: as large as a room event may be.
const KEY: usize = 65_536;

/// How many signatures of one user over one key are looked at.
const SIGNATURES: usize = 100;

/// How many signed objects may be uploaded at once. Verifying a signature costs some 0.05 ms of the writer's time.
const OBJECTS: usize = 500;

/// An upload has so many signed objects at most.
///
/// # Errors
/// [`Refusal::TooMany`]
pub fn check_objects(objects: usize) -> Result<()> {
    if objects > OBJECTS {
        return Err(Refusal::TooMany("too many signed keys at once".into()).into());
    }
    Ok(())
}

/// What a cross-signing key is for. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#cross-signing
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    /// It signs the two others, and stands for the user.
    Master,
    /// It signs the user's own devices.
    SelfSigning,
    /// It signs the master keys of others.
    UserSigning,
}

impl Usage {
    /// Its name on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Usage::Master => "master",
            Usage::SelfSigning => "self_signing",
            Usage::UserSigning => "user_signing",
        }
    }
}

/// A cross-signing key that has the right form.
#[derive(Debug, Clone)]
pub struct SigningKey {
    /// What it is for.
    pub usage: Usage,
    /// The public key, base64 as its owner wrote it.
    pub public_key: String,
    /// The object.
    pub object: CanonicalJsonObject,
    /// The object, as its bytes came.
    pub json: String,
}

impl SigningKey {
    /// The name under which it signs.
    #[must_use]
    pub fn id(&self) -> String {
        format!("ed25519:{}", self.public_key)
    }
}

/// A cross-signing key is its user's, names its usage, and has exactly one public key, of Ed25519, under its own name.
/// ([spec])
///
/// # Errors
/// [`Refusal::BadJson`], [`Refusal::TooLarge`]; [`Refusal::InvalidParam`] for what has the form and says the wrong thing.
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

/// The signatures of a user over an object: the id of the key and the signature, base64.
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

/// Whether this is a signature of the public key over the object. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/appendices/#checking-for-a-signature
#[must_use]
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

/// The signature over the object of this user's key, verified.
///
/// # Errors
/// [`Refusal::InvalidSignature`] when there is none, or it is wrong.
pub fn signature_by<'a>(
    object: &'a CanonicalJsonObject,
    user: &UserId,
    public_key: &str,
) -> Result<&'a str, Refusal> {
    let id = format!("ed25519:{public_key}");
    let signature = signatures_of(object, user)
        .find(|(key, _)| *key == id)
        .ok_or(Refusal::InvalidSignature(
            "the key that must sign has not signed".into(),
        ))?
        .1;
    if !verifies(object, public_key, signature) {
        return Err(Refusal::InvalidSignature("a signature is wrong".into()));
    }
    Ok(signature)
}

/// The signature over a device's keys of the other device that signs for it, if it is there: then it is right.
///
/// # Errors
/// [`Refusal::InvalidSignature`] when it is wrong.
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

/// Which of the stored keys the uploaded ones change: those whose signed part is another, or is there for the first time.
#[must_use]
pub fn is_new_key(stored: Option<&str>, uploaded: &SigningKey) -> bool {
    let same = |json| canonical(json).is_ok_and(|k| is_same_signed_part(&k, &uploaded.object));
    !stored.is_some_and(same)
}

/// New keys besides an existing master key must be confirmed by their owner; the first ones need not, nor what is there
/// already. Application services never confirm. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysdevice_signingupload
#[must_use]
pub fn must_be_confirmed(has_master: bool, any_new: bool, is_appservice: bool) -> bool {
    has_master && any_new && !is_appservice
}

/// A signed object that was uploaded is the stored key with signatures, and nothing else. ([spec])
///
/// # Errors
/// [`Refusal::InvalidSignature`] when the key has another content, [`Refusal::BadJson`] when it is no object.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keyssignaturesupload
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

/// The id of the device that a key id names: `ed25519:DEVICE`.
#[must_use]
pub fn device_of(key_id: &str) -> Option<&str> {
    let device = key_id.strip_prefix("ed25519:")?;
    check_identifier(device, "a device id")
        .is_ok()
        .then_some(device)
}

/// The Ed25519 key of a device, from its identity keys.
#[must_use]
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
    fn who_must_confirm() {
        let cases = [
            // (has a master key, anything new, is an application service)
            (false, true, false, false),
            (true, false, false, false),
            (true, true, false, true),
            (true, true, true, false),
        ];
        for (has_master, any_new, is_appservice, confirms) in cases {
            assert_eq!(
                must_be_confirmed(has_master, any_new, is_appservice),
                confirms
            );
        }
    }

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
