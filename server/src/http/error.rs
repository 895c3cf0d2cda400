//! The single table from errors to HTTP status and `errcode`. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/client-server-api/#standard-error-response

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actors::wire::{Name, Naming};
use actors::{Challenge, Refusal};
use serde_json::{Value, json};

/// The result of a route.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An actor refused the request, or the storage failed.
    #[error(transparent)]
    Actor(#[from] actors::Error),
    /// The server is overloaded, and the client may try again a little later. The text names the exhausted resource.
    #[error("{0}; try again later")]
    Busy(&'static str),
    /// The request is malformed: status, `errcode`, and an explanation.
    #[error("{2}")]
    Request(u16, &'static str, String),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Error::Actor(refusal.into())
    }
}

impl From<schema::Error> for Error {
    fn from(error: schema::Error) -> Self {
        Error::Actor(error.into())
    }
}

impl Error {
    /// The request has no token, and the endpoint requires one. Clause: cs.api.missing-token
    #[must_use]
    pub fn missing_token() -> Error {
        Error::Request(
            401,
            "M_MISSING_TOKEN",
            "an access token is needed".to_owned(),
        )
    }

    /// Whether this error reports an unknown token. Clause: cs.api.unknown-token
    #[must_use]
    pub fn is_unknown_token(&self) -> bool {
        matches!(
            self,
            Error::Actor(actors::Error::Refused(Refusal::UnknownToken))
        )
    }

    /// The HTTP status and the error code.
    #[must_use]
    pub fn code(&self) -> (u16, String) {
        let (status, body, _) = self.parts();
        let code = body["errcode"].as_str().unwrap_or_default();
        (status, code.to_owned())
    }

    /// The same error with another status and error code.
    #[must_use]
    pub fn with_code(self, status: u16, errcode: &'static str) -> Error {
        Error::Request(status, errcode, self.to_string())
    }

    /// One of the request's values is invalid.
    #[must_use]
    pub fn invalid_param(why: impl Into<String>) -> Error {
        Error::Request(400, "M_INVALID_PARAM", why.into())
    }

    fn parts(&self) -> (u16, Value, Option<u64>) {
        let plain = |status: u16, code: &str, text: String| {
            (status, json!({"errcode": code, "error": text}), None)
        };
        match self {
            Error::Request(status, code, text) => plain(*status, code, text.clone()),
            Error::Actor(actors::Error::Refused(refusal)) => refused(refusal),
            Error::Actor(actors::Error::Storage(error)) if error.is_temporary() => (
                503,
                json!({"errcode": "M_LIMIT_EXCEEDED", "error": error.to_string(), "retry_after_ms": 1000}),
                Some(1),
            ),
            Error::Busy(_) | Error::Actor(actors::Error::Slow(_)) => (
                503,
                json!({"errcode": "M_LIMIT_EXCEEDED", "error": self.to_string(), "retry_after_ms": 1000}),
                Some(1),
            ),
            Error::Actor(_) => plain(
                500,
                "M_UNKNOWN",
                "the server failed; its log says why".to_owned(),
            ),
        }
    }

    /// The response, with stable or unstable error codes as the request's dialect asks; `names` are the codes with an unstable form.
    /// Clause: cs.api.errors
    #[must_use]
    pub fn response(&self, dialect: Naming, names: &[Name]) -> HttpResponse {
        let (status, mut body, retry_after) = self.parts();
        if dialect == Naming::Unstable
            && let Some(name) = names.iter().find(|name| body["errcode"] == name.stable)
        {
            body["errcode"] = name.unstable.into();
        }
        let mut response = HttpResponse::build(
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        );
        if let Some(seconds) = retry_after {
            response.insert_header(("Retry-After", seconds.to_string()));
        }
        response
            .content_type("application/json")
            .body(body.to_string())
    }
}

/// A refusal as a JSON object, for answers that report an error for each item.
pub(crate) fn refusal_body(refusal: &Refusal) -> Value {
    refused(refusal).1
}

/// Clause: as.ping.bad-status, as.ping.connection
fn refused(refusal: &Refusal) -> (u16, Value, Option<u64>) {
    let (status, code) = match refusal {
        Refusal::Forbidden(_) => (403, "M_FORBIDDEN"),
        Refusal::NotFound(_) => (404, "M_NOT_FOUND"),
        Refusal::UnknownToken => (401, "M_UNKNOWN_TOKEN"),
        Refusal::UserDeactivated => (403, "M_USER_DEACTIVATED"),
        Refusal::UserInUse => (400, "M_USER_IN_USE"),
        Refusal::InvalidUsername(_) => (400, "M_INVALID_USERNAME"),
        Refusal::Exclusive(_) => (400, "M_EXCLUSIVE"),
        Refusal::WeakPassword(_) => (400, "M_WEAK_PASSWORD"),
        Refusal::UnknownDevice => (400, "M_UNKNOWN_DEVICE"),
        Refusal::NoDevice | Refusal::Unknown(_) => (400, "M_UNKNOWN"),
        Refusal::AppserviceLoginUnsupported(_) => (400, "M_APPSERVICE_LOGIN_UNSUPPORTED"),
        Refusal::BadJson(_) => (400, "M_BAD_JSON"),
        Refusal::ManagedByServer(_) => (405, "M_BAD_JSON"),
        Refusal::MissingParam(_) => (400, "M_MISSING_PARAM"),
        Refusal::InvalidParam(_) => (400, "M_INVALID_PARAM"),
        Refusal::InvalidSignature(_) => (400, "M_INVALID_SIGNATURE"),
        Refusal::TooLarge(_) => (413, "M_TOO_LARGE"),
        Refusal::TooMany(_) => (400, "M_TOO_LARGE"),
        Refusal::RoomInUse => (400, "M_ROOM_IN_USE"),
        Refusal::BadAlias(_) => (400, "M_BAD_ALIAS"),
        Refusal::AliasTaken => (409, "M_UNKNOWN"),
        Refusal::UnsupportedRoomVersion(_) => (400, "M_UNSUPPORTED_ROOM_VERSION"),
        Refusal::InvalidRoomState(_) => (400, "M_INVALID_ROOM_STATE"),
        Refusal::DuplicateAnnotation => (400, "M_DUPLICATE_ANNOTATION"),
        Refusal::WrongBackupVersion { .. } => (403, "M_WRONG_ROOM_KEYS_VERSION"),
        Refusal::KeyTooLarge(_) => (400, "M_KEY_TOO_LARGE"),
        Refusal::ProfileTooLarge(_) => (400, "M_PROFILE_TOO_LARGE"),
        Refusal::Unconfirmed(challenge) => return (401, challenged(challenge), None),
        Refusal::UrlNotSet => (400, "M_URL_NOT_SET"),
        Refusal::BadStatus { .. } => (502, "M_BAD_STATUS"),
        Refusal::ConnectionFailed(_) => (502, "M_CONNECTION_FAILED"),
        Refusal::ConnectionTimeout => (504, "M_CONNECTION_TIMEOUT"),
        Refusal::LimitExceeded { .. } => (429, "M_LIMIT_EXCEEDED"),
        Refusal::OfProposal {
            status, errcode, ..
        } => (*status, *errcode),
    };
    let mut body = json!({"errcode": code, "error": refusal.to_string()});
    let mut retry_after = None;
    match refusal {
        Refusal::UnknownToken => body["soft_logout"] = false.into(),
        Refusal::WrongBackupVersion { current } => {
            body["current_version"] = current.as_str().into()
        }
        Refusal::BadStatus { status, body: text } => {
            body["status"] = (*status).into();
            body["body"] = text.as_str().into();
        }
        Refusal::LimitExceeded { retry_after_ms } => {
            body["retry_after_ms"] = (*retry_after_ms).into();
            retry_after = Some(retry_after_ms.div_ceil(1000));
        }
        _ => {}
    }
    (status, body, retry_after)
}

/// The stages of user-interactive authentication that remain. ([spec]) Clause: cs.api.interactive
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#user-interactive-api-in-the-rest-api
fn challenged(challenge: &Challenge) -> Value {
    let flows: Vec<Value> = challenge
        .flows
        .iter()
        .map(|stages| json!({"stages": stages}))
        .collect();
    let mut body = json!({"session": challenge.session, "flows": flows, "params": {}});
    if let Some(completed) = &challenge.completed {
        body["completed"] = json!(completed);
    }
    if let Some(why) = challenge.failed {
        body["errcode"] = "M_FORBIDDEN".into();
        body["error"] = why.into();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_reads() {
        let cases: Vec<(Error, u16, &str)> = vec![
            (Refusal::UnknownDevice.into(), 400, "M_UNKNOWN_DEVICE"),
            (
                Refusal::LimitExceeded {
                    retry_after_ms: 1500,
                }
                .into(),
                429,
                "M_LIMIT_EXCEEDED",
            ),
            (schema::Error::Busy.into(), 503, "M_LIMIT_EXCEEDED"),
            (Error::Busy("too much"), 503, "M_LIMIT_EXCEEDED"),
            (schema::Error::Damaged("x".into()).into(), 500, "M_UNKNOWN"),
            (Error::missing_token(), 401, "M_MISSING_TOKEN"),
        ];
        for (error, status, code) in cases {
            let (got, body, _) = error.parts();
            assert_eq!(
                (got, body["errcode"].as_str()),
                (status, Some(code)),
                "{error:?}"
            );
        }
        let (_, body, retry_after) = Error::from(Refusal::LimitExceeded {
            retry_after_ms: 1500,
        })
        .parts();
        assert_eq!(
            (body["retry_after_ms"].as_u64(), retry_after),
            (Some(1500), Some(2))
        );
    }
}
