//! A request as its route receives it: path, query and body, decoded.

use std::borrow::Cow;

use actix_web::HttpRequest;
use actix_web::web::Bytes;
use percent_encoding::percent_decode_str;

use super::answer::json_error;
use super::error::{Error, Result};

/// A variable of the path, counted from 0, exactly as the client wrote it. Event types are read with this function: where ruma
/// knows two names for a type, it substitutes the one it prefers, and `m.beacon` would be stored under its unstable name.
#[must_use]
pub fn variable(path: Vec<String>, index: usize) -> String {
    path.into_iter().nth(index).unwrap_or_default()
}

/// A request to an endpoint that ruma does not have.
#[derive(Debug)]
pub struct Raw {
    /// The values of the path's variables, decoded, in order.
    pub path: Vec<String>,
    /// The query's pairs, decoded, in order.
    pub query: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl Raw {
    /// Parse the body as JSON; an empty body is `{}`.
    ///
    /// # Errors
    /// `M_NOT_JSON`, or `M_BAD_JSON` for another shape.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        let text: &[u8] = if self.body.is_empty() {
            b"{}"
        } else {
            &self.body
        };
        serde_json::from_slice(text).map_err(|e| json_error(&e))
    }

    /// A value of the query; an empty value counts as absent.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(n, value)| n == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }
}

/// A request that matched a route.
pub(super) struct Incoming {
    pub(super) http: HttpRequest,
    pub(super) body: Bytes,
    /// The values of the path's variables, decoded, in order.
    pub(super) path: Vec<String>,
    /// The query's pairs, decoded, in order.
    pub(super) query: Vec<(String, String)>,
    /// The query as a proposal has changed it.
    pub(super) changed_query: Option<String>,
    /// Set when a variable of the path is too long; reported only after the caller is authenticated.
    pub(super) refused: Option<Error>,
}

/// Whether a JSON text escapes U+0000. PostgreSQL cannot store that character in text, so no text decoded into a column may
/// contain it. Event content is stored as JSON text, where only the escape appears.
pub(super) fn names_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(escape) = rest.iter().position(|byte| *byte == b'\\') {
        rest = &rest[escape + 1..];
        if rest.starts_with(b"u0000") {
            return true;
        }
        // The character after a backslash does not start an escape of its own.
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// Percent-decode one segment, once. The result must be UTF-8 without U+0000.
pub(super) fn decode(segment: &str) -> Result<String> {
    let text = percent_decode_str(segment)
        .decode_utf8()
        .map(Cow::into_owned);
    match text {
        Ok(text) if !text.contains('\0') => Ok(text),
        _ => Err(Error::invalid_param(
            "the path must be UTF-8 without U+0000",
        )),
    }
}

pub(super) fn query(text: &str) -> Result<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    for pair in text.split('&').filter(|p| !p.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let text = |part: &str| {
            decode(&part.replace('+', " "))
                .map_err(|_| Error::invalid_param("the query must be UTF-8 without U+0000"))
        };
        pairs.push((text(name)?, text(value)?));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_for_nul_is_found_and_nothing_else_is() {
        let cases: [(&[u8], bool); 6] = [
            (br#"{"a\u0000":1}"#, true),
            (br#"{"a":"\\u0000"}"#, false),
            (br#"{"a":"\\\u0000"}"#, true),
            (br#"{"a":"u0000 \u0001"}"#, false),
            (b"\\", false),
            (b"", false),
        ];
        for (json, expected) in cases {
            assert_eq!(
                names_nul(json),
                expected,
                "{}",
                String::from_utf8_lossy(json)
            );
        }
    }
}
