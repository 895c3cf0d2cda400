//! Answers that a route serialises itself, and errors in JSON from clients.

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use futures_util::stream::LocalBoxStream;

use super::error::{Error, Result};

/// An answer that is serialised already.
#[derive(Debug, Clone)]
pub struct Json(pub String);

impl Json {
    /// Serialise an answer.
    pub fn write<T: serde::Serialize>(answer: &T) -> Result<Json> {
        let text = serde_json::to_string(answer).map_err(actors::Error::from)?;
        Ok(Json(text))
    }
}

/// An answer that is serialised already, whole or as a stream of pieces.
pub enum Pieces {
    /// The whole answer.
    Whole(String),
    /// A stream of pieces. An error closes the connection, so that the client notices the truncated answer.
    Stream(LocalBoxStream<'static, std::result::Result<Bytes, actors::Error>>),
}

/// Tell apart text that is not JSON, a missing key and a wrong shape. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#common-error-codes
pub(super) fn json_error(error: &serde_json::Error) -> Error {
    let text = without_type_names(&error.to_string());
    let code = if error.is_data() {
        if text.starts_with("missing field") {
            "M_MISSING_PARAM"
        } else {
            "M_BAD_JSON"
        }
    } else {
        "M_NOT_JSON"
    };
    Error::Request(400, code, text)
}

/// The text of an error of `serde_json` with "an object" in the place of the name of a Rust type, which says nothing to a client.
fn without_type_names(text: &str) -> String {
    let Some((before, named)) = text.split_once("expected struct ") else {
        return text.to_owned();
    };
    let rest = named.find(" at line").map_or("", |at| &named[at..]);
    format!("{before}expected an object{rest}")
}

pub(super) fn json_response(text: String) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    struct Inner {
        #[expect(dead_code, reason = "only deserialised")]
        count: u64,
    }

    #[test]
    fn an_error_of_a_body_names_no_type_of_the_program() {
        for (text, expected) in [
            (
                "[]",
                "invalid length 0, expected an object at line 1 column 2",
            ),
            (
                "7",
                "invalid type: integer `7`, expected an object at line 1 column 1",
            ),
            (
                r#"{"count": "x"}"#,
                "invalid type: string \"x\", expected u64 at line 1 column 13",
            ),
        ] {
            let error = serde_json::from_str::<Inner>(text).expect_err(text);
            let Error::Request(400, "M_BAD_JSON", got) = json_error(&error) else {
                panic!("{text}");
            };
            assert_eq!(got, expected);
        }
    }
}
