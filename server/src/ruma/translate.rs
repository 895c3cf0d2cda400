//! Between actix-web's requests and responses and ruma's: paths, queries, bodies, errors.

use std::borrow::Cow;

use ::ruma::api::error::{DeserializationError, FromHttpRequestError};
use ::ruma::api::{IncomingRequestExt, OutgoingResponse, OutgoingResponseExt};
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use percent_encoding::percent_decode_str;

use super::{Endpoint, Incoming};
use crate::error::{Error, Result};

/// Whether a JSON text has an escape for U+0000. PostgreSQL stores the character in no text, so a text that is decoded into a
/// column must not have it. Content is stored as JSON, with the escape.
pub(super) fn names_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(escape) = rest.iter().position(|byte| *byte == b'\\') {
        rest = &rest[escape + 1..];
        if rest.starts_with(b"u0000") {
            return true;
        }
        // Whatever is escaped is not an escape itself.
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// One percent-decoding of one segment, which must be UTF-8 without U+0000.
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

/// A path with a query whose empty values are left out: clients send `from=` and `filter=` where they have nothing to say.
fn without_empty(path: &str, query: &str) -> String {
    let says = |pair: &&str| {
        pair.split_once('=')
            .is_some_and(|(_, value)| !value.is_empty())
    };
    let pairs: Vec<&str> = query.split('&').filter(says).collect();
    if pairs.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", pairs.join("&"))
    }
}

pub(super) fn parse<R: Endpoint>(incoming: &Incoming) -> Result<R> {
    let uri = incoming.http.uri();
    let mut builder = http::Request::builder()
        .method(incoming.http.method().as_str())
        .uri(without_empty(uri.path(), uri.query().unwrap_or_default()));
    for (name, value) in incoming.http.headers() {
        builder = builder.header(name.as_str(), value.as_bytes());
    }
    // Clients leave out a body in which everything is optional; some of ruma's parsers do not know that.
    let absent =
        incoming.body.is_empty() && incoming.http.method() == actix_web::http::Method::POST;
    let body: &[u8] = if absent { b"{}" } else { &incoming.body };
    let request = builder
        .body(body)
        .map_err(|e| Error::Request(400, "M_UNKNOWN", e.to_string()))?;
    let path: Vec<&str> = incoming.path.iter().map(String::as_str).collect();
    R::try_from_http_request(request, &path).map_err(|e| request_error(&e))
}

fn request_error(error: &FromHttpRequestError) -> Error {
    match error {
        FromHttpRequestError::Deserialization(DeserializationError::Json(e)) => json_error(e),
        FromHttpRequestError::MethodMismatch { .. } => {
            Error::Request(405, "M_UNRECOGNIZED", error.to_string())
        }
        _ => Error::invalid_param(error.to_string()),
    }
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

pub(super) fn ruma_response<T: OutgoingResponse>(
    answer: T,
    status: Option<StatusCode>,
) -> Result<HttpResponse> {
    let answer = answer.try_into_http_response::<Vec<u8>>().map_err(|e| {
        tracing::error!(error = %e, "an answer could not be written");
        Error::Request(
            500,
            "M_UNKNOWN",
            "the server failed; its log says why".to_owned(),
        )
    })?;
    let code = status.unwrap_or_else(|| {
        StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::OK)
    });
    let mut response = HttpResponse::build(code);
    for (name, value) in answer.headers() {
        response.append_header((name.as_str(), value.as_bytes()));
    }
    Ok(response.body(answer.into_body()))
}

pub(super) fn json_response(text: String) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .body(text)
}

/// Web clients may ask from anywhere, errors included. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients
pub(super) fn cors(mut response: HttpResponse) -> HttpResponse {
    use actix_web::http::header::{HeaderName, HeaderValue};
    const CORS: [(&str, &str); 3] = [
        ("access-control-allow-origin", "*"),
        (
            "access-control-allow-methods",
            "GET, POST, PUT, DELETE, OPTIONS, HEAD",
        ),
        (
            "access-control-allow-headers",
            "X-Requested-With, Content-Type, Authorization",
        ),
    ];
    for (name, value) in CORS {
        response.headers_mut().insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_values_of_a_query_are_as_if_absent() {
        let cases = [
            ("", "/p"),
            ("from=&dir=b", "/p?dir=b"),
            ("from=&to", "/p"),
            ("a=1&b=&c=%20", "/p?a=1&c=%20"),
        ];
        for (query, expected) in cases {
            assert_eq!(without_empty("/p", query), expected);
        }
    }

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
