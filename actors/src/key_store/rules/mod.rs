//! The specification's requirements on keys, as pure functions, one file for each kind.

pub mod backup;
pub(super) mod present;
pub mod signing;
pub mod upload;

use std::borrow::Cow;

use ruma::{CanonicalJsonObject, CanonicalJsonValue};

use crate::runtime::lengths::NAME;
use crate::{Refusal, Result};

/// Check that an identifier is not empty, has at most 255 bytes, and holds no U+0000, which PostgreSQL cannot store.
///
/// # Errors
/// [`Refusal::InvalidParam`]
pub fn check_identifier(id: &str, what: &'static str) -> Result<()> {
    if id.is_empty() || id.len() > NAME || id.contains('\0') {
        return Err(Refusal::InvalidParam(Cow::Owned(format!(
            "{what} must have 1 to {NAME} bytes, none of them zero"
        )))
        .into());
    }
    Ok(())
}

/// Parse a key object into its canonical form, in which objects are compared and signed. ([spec])
///
/// # Errors
/// [`Refusal::BadJson`] if it is no object, or holds a number that canonical JSON does not allow.
///
/// [spec]: https://spec.matrix.org/v1.19/appendices/#canonical-json
pub fn canonical(json: &str) -> Result<CanonicalJsonObject> {
    serde_json::from_str(json)
        .map_err(|e| Refusal::BadJson(format!("not a canonical JSON object: {e}").into()).into())
}

/// Whether two texts are the same JSON. Texts without a canonical form are compared byte for byte.
pub fn is_same(a: &str, b: &str) -> bool {
    let value = |json| serde_json::from_str::<CanonicalJsonValue>(json).ok();
    a == b || value(a).is_some_and(|a| value(b).is_some_and(|b| a == b))
}

/// Whether two objects have the same signed part: everything except `signatures` and `unsigned`. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/appendices/#signing-details
pub fn is_same_signed_part(a: &CanonicalJsonObject, b: &CanonicalJsonObject) -> bool {
    signed_part(a).eq(signed_part(b))
}

fn signed_part(
    object: &CanonicalJsonObject,
) -> impl Iterator<Item = (&String, &CanonicalJsonValue)> {
    object
        .iter()
        .filter(|(key, _)| *key != "signatures" && *key != "unsigned")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same() {
        let cases = [
            (r#"{"a":1,"b":[2]}"#, r#"{ "b": [2], "a": 1 }"#, true),
            (r#"{"a":1}"#, r#"{"a":2}"#, false),
            (r#""key""#, r#""key""#, true),
            // Without a canonical form, the bytes are compared.
            (r#"{"a":1.5}"#, r#"{"a":1.5}"#, true),
            (r#"{"a":1.5}"#, r#"{"a": 1.5}"#, false),
        ];
        for (a, b, same) in cases {
            assert_eq!(is_same(a, b), same, "{a} {b}");
        }
    }

    #[test]
    fn signatures_are_not_part_of_what_is_signed() {
        let object = |json| canonical(json).expect("canonical");
        let key = object(r#"{"keys":{"a":"b"},"signatures":{"x":{}},"unsigned":{"n":1}}"#);
        assert!(is_same_signed_part(&key, &object(r#"{"keys":{"a":"b"}}"#)));
        assert!(!is_same_signed_part(&key, &object(r#"{"keys":{"a":"c"}}"#)));
        assert!(!is_same_signed_part(
            &key,
            &object(r#"{"keys":{"a":"b"},"more":1}"#)
        ));
    }

    #[test]
    fn identifiers() {
        let long = "x".repeat(256);
        let cases = [
            ("AAAAAQ", true),
            ("", false),
            ("a\0", false),
            (&long, false),
        ];
        for (id, fine) in cases {
            assert_eq!(check_identifier(id, "a key id").is_ok(), fine, "{id:?}");
        }
    }
}
