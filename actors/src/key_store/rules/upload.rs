//! Which device keys, one-time keys and fallback keys are accepted.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ruma::encryption::DeviceKeys;
use ruma::{CanonicalJsonObject, DeviceId, OneTimeKeyAlgorithm, UInt, UserId};
use schema::keys::OneTimeKey;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::super::messages::{Keys, OneTimeKeyCounts, Wanted};
use super::{canonical, check_identifier, is_same};
use crate::{Refusal, Result};

/// The most unclaimed one-time keys of one algorithm on a device. Clients keep 50 to 100.
pub const PER_ALGORITHM: usize = 500;

/// The most unclaimed one-time keys of a device in all, so that made-up algorithms do not circumvent the limit.
pub const PER_DEVICE: usize = 2 * PER_ALGORITHM;

/// The fewest hashes of claimed keys that are kept for a device: the newest ones. They cover 100 uploads of 50 keys.
pub const CLAIMED_KEPT: i64 = 5_000;

/// The most fallback keys of a device: a few algorithms with one key each.
pub const FALLBACK_KEYS: i64 = 10;

/// The most devices in one claim: several times the largest encrypted rooms. The limit bounds how long other writes wait.
pub const CLAIMED: usize = 5_000;

/// The most users in one key query. Clients ask for 250.
pub const QUERIED: usize = 5_000;

/// The largest object of identity keys, in bytes: the limit of a room event.
const DEVICE_KEYS: usize = 65_536;

/// The largest one-time key, in bytes. Typical ones have about 200.
const ONE_TIME_KEY: usize = 8_192;

/// Check that identity keys have the form of the specification, and belong to the user and the device that upload them.
/// ([spec]) Clause: cs.keys.own
///
/// Returns them in canonical form.
///
/// # Errors
/// [`Refusal::BadJson`], [`Refusal::InvalidParam`] if they belong to another user or device, [`Refusal::TooLarge`].
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload
pub fn check_device_keys(
    json: &RawValue,
    user: &UserId,
    device: &DeviceId,
) -> Result<CanonicalJsonObject> {
    if json.get().len() > DEVICE_KEYS {
        return Err(Refusal::TooLarge("device keys are larger than 65,536 bytes".into()).into());
    }
    let keys: DeviceKeys = serde_json::from_str(json.get())
        .map_err(|e| Refusal::BadJson(format!("device keys: {e}").into()))?;
    if keys.user_id != user || keys.device_id != device {
        return Err(Refusal::InvalidParam(
            "device keys must be those of the user and device that upload them".into(),
        )
        .into());
    }
    canonical(json.get())
}

/// A signed key, as far as its form is checked here; other fields are allowed.
#[derive(Deserialize)]
struct SignedKey<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow)]
    signatures: &'a RawValue,
}

/// Check that one-time and fallback keys have valid ids and a valid form: a signed key is an object with `key` and
/// `signatures`, a key of another algorithm an object or a string. ([spec])
///
/// # Errors
/// [`Refusal::InvalidParam`], [`Refusal::BadJson`], [`Refusal::TooLarge`], [`Refusal::TooMany`].
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys
pub fn check_keys(keys: &Keys) -> Result<()> {
    if keys.len() > PER_DEVICE {
        return Err(Refusal::TooMany("too many keys in one request".into()).into());
    }
    for (id, key) in keys {
        let (algorithm, name) = split(id.as_str());
        check_identifier(algorithm, "an algorithm")?;
        check_identifier(name, "a key id")?;
        let json = key.get();
        if json.len() > ONE_TIME_KEY {
            return Err(Refusal::TooLarge("a key is larger than 8,192 bytes".into()).into());
        }
        let usable = if algorithm == "signed_curve25519" {
            serde_json::from_str::<SignedKey<'_>>(json)
                .is_ok_and(|k| !k.key.is_empty() && k.signatures.get().starts_with('{'))
        } else {
            json.starts_with(['{', '"'])
        };
        if !usable {
            return Err(Refusal::BadJson(format!("{id} is not a key").into()).into());
        }
    }
    Ok(())
}

/// Check that there is at most one fallback key for each algorithm. ([spec]) Clause: cs.keys.fallback-one
///
/// # Errors
/// [`Refusal::InvalidParam`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysupload
pub fn check_fallback_keys(keys: &Keys) -> Result<()> {
    let mut algorithms: Vec<&str> = keys.keys().map(|id| split(id.as_str()).0).collect();
    algorithms.sort_unstable();
    if algorithms.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(
            Refusal::InvalidParam("more than one fallback key for an algorithm".into()).into(),
        );
    }
    Ok(())
}

/// Check that the device may have a fallback key of another algorithm.
///
/// # Errors
/// [`Refusal::TooMany`]
pub fn check_fallback_count(known: i64) -> Result<()> {
    if known >= FALLBACK_KEYS {
        return Err(Refusal::TooMany("too many fallback keys".into()).into());
    }
    Ok(())
}

/// Check that a claim names valid devices and algorithms, and not too many devices.
///
/// # Errors
/// [`Refusal::TooMany`], [`Refusal::InvalidParam`].
pub fn check_claim(wanted: &Wanted) -> Result<()> {
    if wanted.values().map(|devices| devices.len()).sum::<usize>() > CLAIMED {
        return Err(Refusal::TooMany("keys of too many devices are claimed at once".into()).into());
    }
    for (device, algorithm) in wanted.values().flatten() {
        check_identifier(device.as_str(), "a device id")?;
        check_identifier(algorithm.as_str(), "an algorithm")?;
    }
    Ok(())
}

/// Check that a query names at most [`QUERIED`] users.
///
/// # Errors
/// [`Refusal::TooMany`]
pub fn check_query(users: usize) -> Result<()> {
    if users > QUERIED {
        return Err(Refusal::TooMany("keys of too many users are queried at once".into()).into());
    }
    Ok(())
}

/// The algorithm and the name in a key id.
pub fn split(id: &str) -> (&str, &str) {
    id.split_once(':').unwrap_or((id, ""))
}

/// The key without its signatures. Text that is no signed key is returned unchanged.
fn key_itself(json: &str) -> Cow<'_, str> {
    #[derive(Deserialize)]
    struct Signed<'a> {
        #[serde(borrow)]
        key: Cow<'a, str>,
    }
    match serde_json::from_str::<Signed<'_>>(json) {
        Ok(signed) => signed.key,
        Err(_) => Cow::Borrowed(json),
    }
}

/// Whether two uploaded keys are the same apart from their signatures: a client that got no answer to its upload signs the key
/// again.
pub fn is_same_key(a: &str, b: &str) -> bool {
    key_itself(a) == key_itself(b) || is_same(a, b)
}

/// The stored trace of a claimed key: 64 bits of a hash of its algorithm, its id and the key itself.
pub fn hash(algorithm: &str, key_id: &str, json: &str) -> i64 {
    let mut sha = Sha256::new();
    for part in [algorithm, key_id, &key_itself(json)] {
        sha.update(part.as_bytes());
        sha.update([0]);
    }
    let digest = sha.finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(first)
}

/// The hashes of uploaded keys.
pub fn hashes(keys: &Keys) -> Vec<i64> {
    keys.iter()
        .map(|(id, key)| {
            let (algorithm, key_id) = split(id.as_str());
            hash(algorithm, key_id, key.get())
        })
        .collect()
}

/// The new ones among the uploaded one-time keys, in the order in which they will be claimed: keys of an earlier upload come
/// first ([spec]), keys of one upload in order of their ids. Clause: cs.keys.oldest-first, cs.keys.same-id
///
/// A stored key is not new, even with other signatures. A key whose hash is in `claimed` is not new either: it was claimed, and
/// a one-time key is given away only once. An id of an unclaimed key cannot get another key.
///
/// # Errors
/// [`Refusal::Unknown`] if an id has another key, [`Refusal::TooMany`] beyond [`PER_ALGORITHM`] or [`PER_DEVICE`].
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys
pub fn new_one_time_keys(
    known: &[OneTimeKey],
    claimed: &BTreeSet<i64>,
    uploaded: &Keys,
) -> Result<Vec<OneTimeKey>> {
    let mut per_algorithm: BTreeMap<&str, usize> = BTreeMap::new();
    let mut by_id: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for key in known {
        *per_algorithm.entry(&key.algorithm).or_default() += 1;
        by_id.insert((&key.algorithm, &key.key_id), &key.json);
    }
    let mut new = Vec::with_capacity(uploaded.len());
    for (id, key) in uploaded {
        let (algorithm, key_id) = split(id.as_str());
        match by_id.get(&(algorithm, key_id)) {
            Some(json) if is_same_key(json, key.get()) => {}
            Some(_) => {
                return Err(Refusal::Unknown(
                    format!("one-time key {id} exists already with another key").into(),
                )
                .into());
            }
            None if claimed.contains(&hash(algorithm, key_id, key.get())) => {}
            None => {
                let count = per_algorithm.entry(algorithm).or_default();
                *count += 1;
                if *count > PER_ALGORITHM || known.len() + new.len() >= PER_DEVICE {
                    return Err(Refusal::TooMany("too many one-time keys".into()).into());
                }
                new.push(OneTimeKey {
                    algorithm: algorithm.to_owned(),
                    key_id: key_id.to_owned(),
                    json: key.get().to_owned(),
                });
            }
        }
    }
    Ok(new)
}

/// The counts as clients receive them: `signed_curve25519` is included even if it is zero, since clients make new keys only
/// when they see the number. Clause: cs.keys.counts
pub fn counts<'a>(per_algorithm: impl IntoIterator<Item = (&'a str, i64)>) -> OneTimeKeyCounts {
    let mut counts =
        OneTimeKeyCounts::from([(OneTimeKeyAlgorithm::SignedCurve25519, UInt::from(0_u32))]);
    for (algorithm, count) in per_algorithm {
        let more = UInt::try_from(count).unwrap_or_default();
        let total = counts.entry(algorithm.into()).or_default();
        *total = total.saturating_add(more);
    }
    counts
}

#[cfg(test)]
mod tests {
    use ruma::{OwnedOneTimeKeyId, device_id, user_id};
    use serde_json::json;
    use serde_json::value::to_raw_value;

    use super::*;

    fn keys(all: &[(&str, &str)]) -> Keys {
        all.iter()
            .map(|(id, json)| {
                let id: OwnedOneTimeKeyId = (*id).try_into().expect("a key id");
                (id, RawValue::from_string((*json).to_owned()).expect("JSON"))
            })
            .collect()
    }

    fn known(all: &[(&str, &str)]) -> Vec<OneTimeKey> {
        new_one_time_keys(&[], &BTreeSet::new(), &keys(all)).expect("new keys")
    }

    fn refusal<T>(result: Result<T>) -> Option<Refusal> {
        match result {
            Err(crate::Error::Refused(refusal)) => Some(refusal),
            _ => None,
        }
    }

    /// Clause: cs.keys.own
    #[test]
    fn device_keys_are_the_uploaders_own() {
        let object = |user: &str, device: &str| {
            json!({"user_id": user, "device_id": device, "algorithms": [],
            "keys": {}, "signatures": {}, "org.example.more": [1]})
        };
        let check = |value: serde_json::Value| {
            let json = to_raw_value(&value).expect("JSON");
            refusal(check_device_keys(
                &json,
                user_id!("@alice:test"),
                device_id!("LAPTOP"),
            ))
        };
        assert_eq!(check(object("@alice:test", "LAPTOP")), None);
        for (user, device) in [("@bob:test", "LAPTOP"), ("@alice:test", "PHONE")] {
            assert!(matches!(
                check(object(user, device)),
                Some(Refusal::InvalidParam(_))
            ));
        }
        let mut float = object("@alice:test", "LAPTOP");
        float["org.example.more"] = json!(1.5);
        for value in [json!([]), json!({"user_id": "@alice:test"}), float] {
            assert!(matches!(check(value), Some(Refusal::BadJson(_))));
        }
        let mut large = object("@alice:test", "LAPTOP");
        large["padding"] = "x".repeat(70_000).into();
        assert!(matches!(check(large), Some(Refusal::TooLarge(_))));
    }

    #[test]
    fn keys_have_a_form() {
        let long = format!("signed_curve25519:{}", "x".repeat(256));
        let cases: &[(&str, &str, bool)] = &[
            (
                "signed_curve25519:AAAAAQ",
                r#"{"key":"k","signatures":{}}"#,
                true,
            ),
            (
                "signed_curve25519:AAAAAQ",
                r#"{"key":"k","signatures":{},"fallback":true,"more":1.5}"#,
                true,
            ),
            ("signed_curve25519:AAAAAQ", r#""k""#, false),
            ("signed_curve25519:AAAAAQ", r#"{"key":"k"}"#, false),
            (
                "signed_curve25519:AAAAAQ",
                r#"{"key":1,"signatures":{}}"#,
                false,
            ),
            (
                "signed_curve25519:AAAAAQ",
                r#"{"key":"k","signatures":[]}"#,
                false,
            ),
            ("curve25519:AAAAAQ", r#""k""#, true),
            ("curve25519:AAAAAQ", "1", false),
            ("curve25519:", r#""k""#, false),
            ("curve25519:a\0", r#""k""#, false),
            (&long, r#"{"key":"k","signatures":{}}"#, false),
        ];
        for (id, json, fine) in cases {
            assert_eq!(
                check_keys(&keys(&[(id, json)])).is_ok(),
                *fine,
                "{id} {json}"
            );
        }
    }

    #[test]
    fn one_fallback_key_for_an_algorithm() {
        let two = [("a:1", r#""k""#), ("b:1", r#""k""#)];
        assert!(check_fallback_keys(&keys(&two)).is_ok());
        let same = [("a:1", r#""k""#), ("b:1", r#""k""#), ("a:2", r#""k""#)];
        assert!(check_fallback_keys(&keys(&same)).is_err());
    }

    #[test]
    fn a_claimed_key_is_not_new() {
        let signed = |by: &str| format!(r#"{{"key":"x","signatures":{{"@a:b":{{"{by}":"s"}}}}}}"#);
        let claimed = BTreeSet::from([hash("a", "1", &signed("old"))]);
        let new = |id: &str, json: &str| {
            let new = new_one_time_keys(&[], &claimed, &keys(&[(id, json)])).expect("keys");
            new.len()
        };
        assert_eq!(new("a:1", &signed("fresh")), 0);
        // A reset device counts its key ids from the start again: another key under the same id is a new key.
        assert_eq!(new("a:1", r#"{"key":"y"}"#), 1);
        assert_eq!(new("a:2", &signed("old")), 1);
        assert_eq!(new("b:1", &signed("old")), 1);
    }

    #[test]
    fn an_id_never_changes_its_key() {
        let there = known(&[("a:1", r#"{"key":"x"}"#), ("b:1", r#"{"key":"z"}"#)]);
        type Named = [(&'static str, &'static str)];
        let cases: &[(&Named, Option<&[&str]>)] = &[
            (&[], Some(&[])),
            (&[("a:1", r#"{"key":"x"}"#)], Some(&[])),
            (&[("a:1", r#"{ "key": "x" }"#)], Some(&[])),
            // Signed again by a client that got no answer to its first upload.
            (
                &[(
                    "a:1",
                    r#"{"key":"x","signatures":{"@a:b":{"ed25519:D":"fresh"}}}"#,
                )],
                Some(&[]),
            ),
            (
                &[("a:2", r#"{"key":"y"}"#), ("a:10", r#"{"key":"y"}"#)],
                Some(&["10", "2"]),
            ),
            // The same name under another algorithm is another key.
            (&[("c:1", r#"{"key":"y"}"#)], Some(&["1"])),
            (&[("a:1", r#"{"key":"y"}"#)], None),
            (
                &[("a:3", r#"{"key":"y"}"#), ("b:1", r#"{"key":"y"}"#)],
                None,
            ),
        ];
        for (uploaded, expected) in cases {
            let new = new_one_time_keys(&there, &BTreeSet::new(), &keys(uploaded)).ok();
            let ids: Option<Vec<&str>> = new
                .as_ref()
                .map(|new| new.iter().map(|k| k.key_id.as_str()).collect());
            assert_eq!(ids.as_deref(), *expected, "{uploaded:?}");
        }
    }

    #[test]
    fn the_number_of_keys_is_limited() {
        let many = |algorithm: &str, from: usize, to: usize| -> Keys {
            (from..to)
                .map(|i| {
                    let id = format!("{algorithm}:{i:05}");
                    let id: OwnedOneTimeKeyId = id.as_str().try_into().expect("a key id");
                    (id, to_raw_value("k").expect("JSON"))
                })
                .collect()
        };
        let new =
            |known: &[OneTimeKey], keys: &Keys| new_one_time_keys(known, &BTreeSet::new(), keys);
        let full = new(&[], &many("a", 0, PER_ALGORITHM)).expect("as many as may be");
        assert!(matches!(
            refusal(new(&full, &many("a", 500, 501))),
            Some(Refusal::TooMany(_))
        ));
        // Repeated keys do not count again, and each algorithm has its own limit.
        assert!(new(&full, &many("a", 0, 10)).is_ok_and(|new| new.is_empty()));
        let both = new(&full, &many("b", 0, PER_ALGORITHM)).expect("another algorithm");
        let all = [full, both].concat();
        assert!(new(&all, &many("c", 0, 1)).is_err());
    }

    /// Clause: cs.keys.counts
    #[test]
    fn zero_is_included_in_the_counts() {
        let zero = counts([]);
        assert_eq!(
            zero.get(&OneTimeKeyAlgorithm::SignedCurve25519),
            Some(&UInt::from(0_u32))
        );
        let some = counts([("signed_curve25519", 2), ("x", 1)]);
        let named: Vec<(String, u64)> = some
            .iter()
            .map(|(a, n)| (a.to_string(), u64::from(*n)))
            .collect();
        assert_eq!(
            named,
            [("signed_curve25519".to_owned(), 2), ("x".to_owned(), 1)]
        );
    }
}
