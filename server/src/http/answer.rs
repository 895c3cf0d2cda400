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
    let text = error.to_string();
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

pub(super) fn json_response(text: String) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(text)
}
