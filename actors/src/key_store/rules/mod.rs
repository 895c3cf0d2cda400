//! What the specification demands of keys: pure functions, one file for each kind.

pub mod backup;
pub(super) mod present;
pub mod signing;
pub mod upload;

use std::borrow::Cow;

use ruma::{CanonicalJsonObject, CanonicalJsonValue};

use crate::runtime::lengths::NAME;
use crate::{Refusal, Result};

/// An identifier is not empty, no longer than 255 bytes, and holds no U+0000, which one of the databases cannot store.
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

/// A key object in the one form in which objects are compared and signed. ([spec])
///
/// # Errors
/// [`Refusal::BadJson`] when it is no object, or holds a number that the canonical form has not.
///
/// [spec]: https://spec.matrix.org/v1.19/appendices/#canonical-json
pub fn canonical(json: &str) -> Result<CanonicalJsonObject> {
    serde_json::from_str(json)
        .map_err(|e| Refusal::BadJson(format!("not a canonical JSON object: {e}").into()).into())
}

/// Whether two texts are the same JSON. Text that has no canonical form is the same only byte for byte.
#[must_use]
pub fn is_same(a: &str, b: &str) -> bool {
    let value = |json| serde_json::from_str::<CanonicalJsonValue>(json).ok();
    a == b || value(a).is_some_and(|a| value(b).is_some_and(|b| a == b))
}

/// Whether two objects are the same where a signature covers them: all but `signatures` and `unsigned`. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/appendices/#signing-details
#[must_use]
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
            // No canonical form: only the bytes can say.
            (r#"{"a":1.5}"#, r#"{"a":1.5}"#, true),
            (r#"{"a":1.5}"#, r#"{"a": 1.5}"#, false),
        ];
        for (a, b, same) in cases {
            assert_eq!(is_same(a, b), same, "{a} {b}");
        }
    }

    #[test]
    fn signatures_do_not_cover_themselves() {
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
