//! Profiles: names of fields and sizes. Pure. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#profiles

use schema::accounts::UserRow;
use serde_json::{Map, Value};

use super::no_nul;
use crate::runtime::lengths::NAME;
use crate::{Refusal, Result};

/// The largest profile, in bytes of JSON.
const PROFILE_BYTES: usize = 65_536;

/// The longest display name, in characters: Synapse's limit.
const NAME_CHARS: usize = 256;

/// The longest avatar URL, in characters: Synapse's limit.
const AVATAR_CHARS: usize = 1000;

/// A profile as it is stored: two columns, and a JSON object of the other fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Profile {
    /// `displayname`
    pub display_name: Option<String>,
    /// `avatar_url`
    pub avatar_url: Option<String>,
    /// Every other field.
    pub others: Map<String, Value>,
}

impl Profile {
    /// From the row of an account.
    ///
    /// # Errors
    /// When the stored text is not a JSON object.
    pub fn of(row: UserRow) -> Result<Profile> {
        Ok(Profile {
            display_name: row.display_name,
            avatar_url: row.avatar_url,
            others: serde_json::from_str(&row.profile)?,
        })
    }

    /// All fields as one object.
    pub fn fields(self) -> Map<String, Value> {
        let mut fields = self.others;
        if let Some(name) = self.display_name {
            fields.insert("displayname".to_owned(), name.into());
        }
        if let Some(avatar) = self.avatar_url {
            fields.insert("avatar_url".to_owned(), avatar.into());
        }
        fields
    }

    /// The profile with one field set, or removed if `value` is `None`. ([spec])
    ///
    /// An empty display name or avatar removes it, which is how clients clear them.
    ///
    /// # Errors
    /// [`Refusal::KeyTooLarge`], [`Refusal::ProfileTooLarge`], [`Refusal::InvalidParam`], [`Refusal::BadJson`]
    ///
    /// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3profileuseridkeyname
    pub fn with(mut self, field: &str, value: Option<Value>) -> Result<Profile, Refusal> {
        check_name(field)?;
        match field {
            "displayname" => self.display_name = text(value, NAME_CHARS)?,
            "avatar_url" => self.avatar_url = text(value, AVATAR_CHARS)?,
            _ => {
                match value {
                    Some(value) => self.others.insert(field.to_owned(), value),
                    None => self.others.remove(field),
                };
            }
        }
        let json = Value::Object(self.clone().fields()).to_string();
        if json.len() > PROFILE_BYTES {
            return Err(Refusal::ProfileTooLarge(
                "a profile has at most 64 KiB".into(),
            ));
        }
        Ok(self)
    }
}

/// Refuse a field name that is not a namespaced identifier. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/appendices/#common-namespaced-identifier-grammar
fn check_name(field: &str) -> Result<(), Refusal> {
    if field.len() > NAME {
        return Err(Refusal::KeyTooLarge(
            "the name of a field has at most 255 bytes".into(),
        ));
    }
    let begins = field.starts_with(|c: char| c.is_ascii_lowercase());
    let allowed =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_');
    if begins && field.bytes().all(allowed) {
        Ok(())
    } else {
        Err(Refusal::InvalidParam(
            "the name of a field begins with a-z and is made of a-z, 0-9 and - . _".into(),
        ))
    }
}

fn text(value: Option<Value>, chars: usize) -> Result<Option<String>, Refusal> {
    let text = match value {
        None => return Ok(None),
        Some(Value::String(text)) => text,
        Some(_) => return Err(Refusal::BadJson("this field is a string".into())),
    };
    if text.chars().count() > chars {
        return Err(Refusal::TooMany(
            format!("this field has at most {chars} characters").into(),
        ));
    }
    no_nul(&text)?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_checked_and_limited() {
        let long = "x".repeat(NAME + 1);
        let cases: &[(&str, Option<Value>, Result<Value, &str>)] = &[
            (
                "displayname",
                Some(json!("Alice")),
                Ok(json!({"displayname": "Alice", "m.tz": "UTC"})),
            ),
            ("displayname", Some(json!("")), Ok(json!({"m.tz": "UTC"}))),
            ("displayname", Some(json!(7)), Err("this field is a string")),
            (
                "displayname",
                Some(json!("x".repeat(257))),
                Err("this field has at most 256 characters"),
            ),
            (
                "displayname",
                Some(json!("a\0b")),
                Err("U+0000 is not allowed"),
            ),
            (
                "avatar_url",
                Some(json!("mxc://test/a")),
                Ok(json!({"avatar_url": "mxc://test/a", "m.tz": "UTC"})),
            ),
            ("m.tz", None, Ok(json!({}))),
            ("m.tz", Some(Value::Null), Ok(json!({"m.tz": null}))),
            (
                "org.example.lang",
                Some(json!(["de", "fr"])),
                Ok(json!({"m.tz": "UTC", "org.example.lang": ["de", "fr"]})),
            ),
            (
                "Bad Name",
                Some(json!(1)),
                Err("the name of a field begins with a-z and is made of a-z, 0-9 and - . _"),
            ),
            (
                &long,
                Some(json!(1)),
                Err("the name of a field has at most 255 bytes"),
            ),
            (
                "org.example.big",
                Some(json!("x".repeat(PROFILE_BYTES))),
                Err("a profile has at most 64 KiB"),
            ),
        ];
        let mut before = Profile::default();
        before.others.insert("m.tz".to_owned(), json!("UTC"));
        for (field, value, expected) in cases {
            let after = before
                .clone()
                .with(field, value.clone())
                .map(|p| Value::Object(p.fields()))
                .map_err(|e| e.to_string());
            let expected = expected.clone().map_err(str::to_owned);
            assert_eq!(after, expected, "{field} {value:?}");
        }
    }
}
