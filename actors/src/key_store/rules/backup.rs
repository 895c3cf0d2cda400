//! Which session keys a backup stores.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::check_identifier;
use crate::{Refusal, Result};

/// The largest encrypted session key, in bytes. Typical ones have about 1,000.
const SESSION: usize = 65_536;

/// The most sessions in a version of a key backup: more than a busy account collects in many years.
pub const SESSIONS: i64 = 1_000_000;

/// The most bytes of backed-up sessions of an account, in all versions of its key backup together.
pub const BYTES: i64 = 1 << 30;

/// The most sessions in one request. Clients send 100 to 200; the limit bounds how long other writes wait.
pub const STORED_AT_ONCE: usize = 5_000;

/// The most versions of an account's key backup. Clients keep one, and create another when they cannot decrypt it any more.
pub const VERSIONS: i64 = 100;

/// Check that an account that has this many versions of its key backup may create another.
///
/// # Errors
/// [`Refusal::TooMany`]
pub fn check_versions(existing: i64) -> Result<()> {
    if existing >= VERSIONS {
        let text = "an account has at most 100 backup versions; delete one first";
        return Err(Refusal::TooMany(text.into()).into());
    }
    Ok(())
}

/// Check that a request stores at most [`STORED_AT_ONCE`] sessions.
///
/// # Errors
/// [`Refusal::TooLarge`]
pub fn check_count(sessions: usize) -> Result<()> {
    if sessions > STORED_AT_ONCE {
        let text = "a request may store 5,000 sessions; send the rest in another";
        return Err(Refusal::TooLarge(text.into()).into());
    }
    Ok(())
}

/// The largest `auth_data` of a backup version, in bytes.
const AUTH_DATA: usize = 65_536;

/// The properties that decide which of two keys of a session is better. The rest of a key is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct KeyQuality {
    /// The index of the first message that it decrypts.
    pub first_message_index: u32,
    /// How often it was forwarded.
    pub forwarded_count: u32,
    /// Whether the owner verified the device from which it came.
    pub is_verified: bool,
}

/// Whether a new key of a session replaces the stored one: a verified key is better than an unverified one; then one that
/// decrypts from an earlier message; then one that was forwarded less often. ([spec]) Clause: cs.backup.better
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#backup-algorithm-mmegolm_backupv1curve25519-aes-sha2
pub fn is_better(new: KeyQuality, stored: KeyQuality) -> bool {
    let rank = |q: KeyQuality| (!q.is_verified, q.first_message_index, q.forwarded_count);
    rank(new) < rank(stored)
}

/// The quality of an uploaded session key. ([spec])
///
/// # Errors
/// [`Refusal::BadJson`] if it is not a session key, [`Refusal::TooLarge`].
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keyskeysroomidsessionid
pub fn quality(json: &RawValue) -> Result<KeyQuality> {
    #[derive(Deserialize)]
    struct Session<'a> {
        first_message_index: u32,
        forwarded_count: u32,
        is_verified: bool,
        #[serde(borrow)]
        session_data: &'a RawValue,
    }
    if json.get().len() > SESSION {
        return Err(
            Refusal::TooLarge("the key of a session is larger than 65,536 bytes".into()).into(),
        );
    }
    let session: Session<'_> = serde_json::from_str(json.get())
        .map_err(|e| Refusal::BadJson(format!("the key of a session: {e}").into()))?;
    if !session.session_data.get().starts_with('{') {
        return Err(Refusal::BadJson("session_data must be an object".into()).into());
    }
    Ok(KeyQuality {
        first_message_index: session.first_message_index,
        forwarded_count: session.forwarded_count,
        is_verified: session.is_verified,
    })
}

/// The description of a backup version: the algorithm of its keys and the data that the algorithm needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The algorithm.
    pub algorithm: String,
    /// A JSON object, with its original bytes.
    pub auth_data: String,
    /// The version that the request names.
    pub version: Option<String>,
}

/// Parse the description of a version, which has an algorithm and an object with its data. ([spec])
///
/// # Errors
/// [`Refusal::MissingParam`], [`Refusal::BadJson`], [`Refusal::InvalidParam`], [`Refusal::TooLarge`].
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3room_keysversion
pub fn description(json: &RawValue) -> Result<Description> {
    #[derive(Deserialize)]
    struct Body<'a> {
        algorithm: Option<String>,
        #[serde(borrow)]
        auth_data: Option<&'a RawValue>,
        version: Option<String>,
    }
    let body: Body<'_> = serde_json::from_str(json.get())
        .map_err(|e| Refusal::BadJson(format!("a backup version: {e}").into()))?;
    let missing = |what: &'static str| Refusal::MissingParam(what.into());
    let algorithm = body
        .algorithm
        .ok_or_else(|| missing("algorithm is missing"))?;
    let auth_data = body
        .auth_data
        .ok_or_else(|| missing("auth_data is missing"))?
        .get();
    check_identifier(&algorithm, "an algorithm")?;
    if !auth_data.starts_with('{') {
        return Err(Refusal::BadJson("auth_data must be an object".into()).into());
    }
    if auth_data.len() > AUTH_DATA {
        return Err(Refusal::TooLarge("auth_data is larger than 65,536 bytes".into()).into());
    }
    Ok(Description {
        algorithm,
        auth_data: auth_data.to_owned(),
        version: body.version,
    })
}

/// Check that an update names its own version, if it names one, and keeps the algorithm. ([spec])
///
/// # Errors
/// [`Refusal::InvalidParam`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keysversionversion
/// Clause: cs.backup.same-algorithm
pub fn check_update(update: &Description, version: &str, algorithm: &str) -> Result<()> {
    if update.version.as_deref().is_some_and(|v| v != version) {
        return Err(Refusal::InvalidParam("the body names another version".into()).into());
    }
    if update.algorithm != algorithm {
        return Err(
            Refusal::InvalidParam("the algorithm of a version cannot change".into()).into(),
        );
    }
    Ok(())
}

/// The number of a backup version, from its name. Versions with a name in another form do not exist.
///
/// # Errors
/// [`Refusal::NotFound`]
pub fn parse_version(version: &str) -> Result<i64> {
    version
        .parse()
        .ok()
        .filter(|n: &i64| *n > 0 && n.to_string() == version)
        .ok_or_else(|| Refusal::NotFound("there is no such backup version".into()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).expect("JSON")
    }

    #[test]
    fn the_better_key_stays() {
        let q = |is_verified, first_message_index, forwarded_count| KeyQuality {
            first_message_index,
            forwarded_count,
            is_verified,
        };
        let cases = [
            (q(true, 9, 9), q(false, 0, 0), true),
            (q(false, 0, 0), q(true, 9, 9), false),
            (q(true, 1, 9), q(true, 2, 0), true),
            (q(true, 2, 0), q(true, 1, 9), false),
            (q(false, 1, 0), q(false, 1, 1), true),
            (q(false, 1, 1), q(false, 1, 0), false),
            (q(false, 1, 1), q(false, 1, 1), false),
        ];
        for (new, stored, better) in cases {
            assert_eq!(is_better(new, stored), better, "{new:?} {stored:?}");
        }
    }

    #[test]
    fn sessions() {
        let good = r#"{"first_message_index":1,"forwarded_count":0,"is_verified":true,"session_data":{"x":1},"more":[]}"#;
        assert!(quality(&raw(good)).is_ok_and(|q| q.first_message_index == 1 && q.is_verified));
        for bad in [
            "[]",
            r#"{"first_message_index":1,"forwarded_count":0,"is_verified":true}"#,
            r#"{"first_message_index":-1,"forwarded_count":0,"is_verified":true,"session_data":{}}"#,
            r#"{"first_message_index":1,"forwarded_count":0,"is_verified":true,"session_data":"x"}"#,
        ] {
            assert!(quality(&raw(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn descriptions_and_updates() {
        for bad in [
            "[]",
            "{}",
            r#"{"algorithm":"a"}"#,
            r#"{"auth_data":{}}"#,
            r#"{"algorithm":"a","auth_data":[]}"#,
            r#"{"algorithm":"","auth_data":{}}"#,
        ] {
            assert!(description(&raw(bad)).is_err(), "{bad}");
        }
        let update = |json: &str| description(&raw(json)).expect("a description");
        let cases = [
            (r#"{"algorithm":"a","auth_data":{ "k": 1.5 }}"#, true),
            (r#"{"algorithm":"a","auth_data":{},"version":"1"}"#, true),
            (r#"{"algorithm":"a","auth_data":{},"version":"2"}"#, false),
            (r#"{"algorithm":"b","auth_data":{}}"#, false),
        ];
        for (json, fine) in cases {
            assert_eq!(
                check_update(&update(json), "1", "a").is_ok(),
                fine,
                "{json}"
            );
        }
        assert_eq!(update(cases[0].0).auth_data, r#"{ "k": 1.5 }"#);
    }

    #[test]
    fn names_of_versions() {
        for (name, number) in [
            ("1", Some(1)),
            ("12", Some(12)),
            ("01", None),
            ("0", None),
            ("-1", None),
            ("+1", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(parse_version(name).ok(), number, "{name}");
        }
    }
}
