//! Answers that a route has written as JSON itself, and the errors of JSON that a client has sent.

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use futures_util::stream::LocalBoxStream;

use super::error::{Error, Result};

/// An answer that is JSON already.
#[derive(Debug, Clone)]
pub struct Json(pub String);

impl Json {
    /// Write an answer.
    ///
    /// # Errors
    /// When a value in it cannot be JSON.
    pub fn write<T: serde::Serialize>(answer: &T) -> Result<Json> {
        let text = serde_json::to_string(answer).map_err(actors::Error::from)?;
        Ok(Json(text))
    }
}

/// An answer that is JSON already, in one piece or in several that are made while it is sent.
pub enum Pieces {
    /// The whole answer.
    Whole(String),
    /// Its pieces. An error ends the connection, so that the caller sees that the answer is not whole.
    Stream(LocalBoxStream<'static, std::result::Result<Bytes, actors::Error>>),
}

/// Which of three errors a body has: no JSON, something missing, or the wrong shape. ([spec])
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
