//! Stored keys as a reader sees them: with the separately stored signatures and display name, and otherwise with their original
//! bytes.

use std::collections::BTreeMap;

use schema::signing_keys::SignatureRow;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::Result;

type Object<'a> = BTreeMap<String, &'a RawValue>;

/// A cross-signing key, with further signatures added.
pub(crate) fn signing_key(json: String, more: &[SignatureRow]) -> Result<Box<RawValue>> {
    if more.is_empty() {
        return Ok(RawValue::from_string(json)?);
    }
    let mut object: Object<'_> = serde_json::from_str(&json)?;
    let signatures = signatures(&object, more)?;
    object.insert("signatures".to_owned(), &signatures);
    Ok(to_raw_value(&object)?)
}

/// The identity keys of a device, with further signatures, and with the device's display name in `unsigned`. It replaces a name
/// that the client uploaded there. ([spec]) Clause: cs.keys.bytes, cs.keys.display-name
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery
pub(crate) fn device_keys(
    json: String,
    display_name: Option<&str>,
    more: &[SignatureRow],
) -> Result<Box<RawValue>> {
    let mut object: Object<'_> = serde_json::from_str(&json)?;
    let has_unsigned = object.contains_key("unsigned");
    if more.is_empty() && display_name.is_none() && !has_unsigned {
        return Ok(RawValue::from_string(json)?);
    }
    let signatures = signatures(&object, more)?;
    object.insert("signatures".to_owned(), &signatures);
    let unsigned = unsigned(&object, display_name)?;
    object.insert("unsigned".to_owned(), &unsigned);
    Ok(to_raw_value(&object)?)
}

fn signatures(object: &Object<'_>, more: &[SignatureRow]) -> Result<Box<RawValue>> {
    let own = object.get("signatures");
    let mut all: BTreeMap<String, BTreeMap<String, Value>> = match own {
        Some(own) if !more.is_empty() => serde_json::from_str(own.get())?,
        Some(own) => return Ok((*own).to_owned()),
        None => BTreeMap::new(),
    };
    for signature in more {
        all.entry(signature.signer_user.clone())
            .or_default()
            .insert(
                signature.signer_key.clone(),
                signature.signature.clone().into(),
            );
    }
    Ok(to_raw_value(&all)?)
}

fn unsigned(object: &Object<'_>, display_name: Option<&str>) -> Result<Box<RawValue>> {
    let mut fields: BTreeMap<String, Value> = object
        .get("unsigned")
        .and_then(|own| serde_json::from_str(own.get()).ok())
        .unwrap_or_default();
    match display_name {
        Some(name) => fields.insert("device_display_name".to_owned(), name.into()),
        None => fields.remove("device_display_name"),
    };
    Ok(to_raw_value(&fields)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature(user: &str, key: &str) -> SignatureRow {
        SignatureRow {
            target_user: "@alice:test".to_owned(),
            signer_user: user.to_owned(),
            target_key: "LAPTOP".to_owned(),
            signer_key: key.to_owned(),
            signature: "s".to_owned(),
        }
    }

    #[test]
    fn additions_leave_the_other_bytes_unchanged() {
        let more = signature("@alice:test", "ed25519:K");
        let cases: &[(&str, Option<&str>, &[SignatureRow], &str)] = &[
            // Nothing to add: the bytes stay.
            (
                r#"{ "b": 1.50, "a": {"x" : "é"} }"#,
                None,
                &[],
                r#"{ "b": 1.50, "a": {"x" : "é"} }"#,
            ),
            // Unknown fields keep their bytes and their order.
            (
                r#"{"signatures":{},"org.example": 1.50}"#,
                Some("my \"laptop\""),
                &[],
                r#"{"org.example":1.50,"signatures":{},"unsigned":{"device_display_name":"my \"laptop\""}}"#,
            ),
            (
                r#"{"signatures":{"@alice:test":{"ed25519:LAPTOP":"own"}},"unsigned":{"device_display_name":"made up","more":1}}"#,
                None,
                std::slice::from_ref(&more),
                r#"{"signatures":{"@alice:test":{"ed25519:K":"s","ed25519:LAPTOP":"own"}},"unsigned":{"more":1}}"#,
            ),
        ];
        for (json, name, more, expected) in cases {
            let shown = device_keys((*json).to_owned(), *name, more).expect("device keys");
            assert_eq!(shown.get(), *expected);
        }
        let bare =
            signing_key(r#"{"keys":{}}"#.to_owned(), std::slice::from_ref(&more)).expect("a key");
        assert_eq!(
            bare.get(),
            r#"{"keys":{},"signatures":{"@alice:test":{"ed25519:K":"s"}}}"#
        );
    }
}
