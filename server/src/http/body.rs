//! Reads request bodies after authentication, within the endpoint's size limit, the budget for all bodies, and a minimum pace.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::http::header;
use actix_web::web::{Bytes, BytesMut, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::{FutureExt, StreamExt};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::answer::json_error;
use super::error::{Error, Result};
use super::limits::{Reserved, allowed};
use crate::state::App;

/// The deepest nesting of a body; every parser in this workspace accepts this much.
const DEPTH: usize = 120;

/// Clause: cs.api.too-large
fn too_large(limit: usize) -> Error {
    let text = format!("the body of this request has at most {limit} bytes");
    Error::Request(413, "M_TOO_LARGE", text)
}

/// Read a body of at most `limit` bytes.
///
/// # Errors
/// 413 for a larger body, as soon as that is known; 408 for one that arrives too slowly; 503 when too many bytes are being
/// received; 400 when the connection ends before the body does.
pub(super) async fn read(
    app: &App,
    http: &HttpRequest,
    payload: &mut Payload,
    limit: usize,
    reserved: &mut Reserved,
) -> Result<Bytes> {
    let length = http.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    let pace = Pace::new(app);
    let mut body = BytesMut::new();
    loop {
        let next = match payload.next().now_or_never() {
            Some(next) => next,
            None => pace.wait(body.len(), payload.next()).await?,
        };
        let Some(part) = next else {
            return Ok(body.freeze());
        };
        let part = part.map_err(|e| Error::Request(400, "M_UNKNOWN", e.to_string()))?;
        if body.len() + part.len() > limit {
            return Err(too_large(limit));
        }
        if !reserved.grow(part.len()) {
            return Err(Error::Busy("too many bytes of requests are being received"));
        }
        body.extend_from_slice(&part);
    }
}

/// Close the connection after this answer unless the body was read to its end. actix-web closes it when it knows the length of
/// the rest, but once the reader is dropped it would read and discard a chunked body without end.
pub(super) fn close_unless_read(
    http: &HttpRequest,
    answer: HttpResponse,
    payload: Payload,
) -> HttpResponse {
    if !http.headers().contains_key(header::TRANSFER_ENCODING) {
        return answer;
    }
    answer.map_body(|_, body| {
        BoxBody::new(Holding {
            body,
            _payload: payload,
        })
    })
}

/// The body of an answer, which keeps the request's body alive until it is sent.
struct Holding {
    body: BoxBody,
    _payload: Payload,
}

impl MessageBody for Holding {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// The pace that a body must keep.
struct Pace<'a> {
    app: &'a App,
    begun: i64,
}

impl Pace<'_> {
    fn new(app: &App) -> Pace<'_> {
        let begun = app.actors.env.clock.monotonic();
        Pace { app, begun }
    }

    /// Wait for the next part, at most until the deadline for the bytes that have `arrived`.
    async fn wait<T>(&self, arrived: usize, next: impl Future<Output = T>) -> Result<T> {
        let clock = &self.app.actors.env.clock;
        let passed = u64::try_from(clock.monotonic() - self.begun).unwrap_or_default();
        let left = allowed(arrived).saturating_sub(Duration::from_millis(passed));
        let too_slow = "the body of the request came too slowly".to_owned();
        tokio::select! {
            biased;
            next = next => Ok(next),
            () = clock.sleep(left) => Err(Error::Request(408, "M_UNKNOWN", too_slow)),
        }
    }
}

/// Check that a body is exactly one JSON object. ([spec]) Clause: cs.api.not-json, cs.api.bad-json
///
/// # Errors
/// `M_NOT_JSON` when it is not JSON; `M_BAD_JSON` when it is not an object, repeats a key, or is nested too deeply.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#api-standards
pub(super) fn is_object(body: &[u8]) -> Result<()> {
    let not_json = |why: String| Error::Request(400, "M_NOT_JSON", why);
    let text = std::str::from_utf8(body).map_err(|_| not_json("the body is not UTF-8".into()))?;
    if is_deep(text) {
        let why = format!("the body is nested more than {DEPTH} levels deep");
        return Err(Error::Request(400, "M_BAD_JSON", why));
    }
    serde_json::from_str::<ObjectWithoutRepeats>(text)
        .map(|_| ())
        .map_err(|e| json_error(&e))
}

fn is_deep(text: &str) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH {
            return true;
        }
    }
    false
}

/// A JSON object without repeated keys. Its values are checked and discarded.
struct ObjectWithoutRepeats;

impl<'de> Deserialize<'de> for ObjectWithoutRepeats {
    fn deserialize<D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ObjectWithoutRepeats, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = ObjectWithoutRepeats;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<ObjectWithoutRepeats, A::Error> {
                let mut seen = std::collections::BTreeSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    if let Some(twice) = seen.replace(key) {
                        let why = format_args!("the key {twice:?} is there twice").to_string();
                        return Err(serde::de::Error::custom(why));
                    }
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(ObjectWithoutRepeats)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_object_and_nothing_else() {
        let deep = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n)).into_bytes();
        let (deepest, too_deep) = (deep(DEPTH - 1), deep(DEPTH));
        let cases: &[(&[u8], Option<&str>)] = &[
            (b"{}", None),
            (b" {\"a\": [1, {\"a\": \"}{\"}]}\n", None),
            (br#"{"a":"\\\"[[","b":null}"#, None),
            (&deepest, None),
            (&too_deep, Some("M_BAD_JSON")),
            (b"[]", Some("M_BAD_JSON")),
            (b"null", Some("M_BAD_JSON")),
            (b"\"a\"", Some("M_BAD_JSON")),
            (b"1", Some("M_BAD_JSON")),
            (br#"{"a":1,"\u0061":2}"#, Some("M_BAD_JSON")),
            (b"{", Some("M_NOT_JSON")),
            (b"{}{}", Some("M_NOT_JSON")),
            (b"{} x", Some("M_NOT_JSON")),
            (b"{\"a\":1,}", Some("M_NOT_JSON")),
            (b"{'a':1}", Some("M_NOT_JSON")),
            (b"a=b", Some("M_NOT_JSON")),
            (b" ", Some("M_NOT_JSON")),
            (b"{\"a\":\"\xff\"}", Some("M_NOT_JSON")),
            (b"\xef\xbb\xbf{}", Some("M_NOT_JSON")),
        ];
        for (body, expected) in cases {
            let code = match is_object(body) {
                Ok(()) => None,
                Err(Error::Request(400, code, _)) => Some(code),
                Err(other) => panic!("{other:?}"),
            };
            assert_eq!(code, *expected, "{}", String::from_utf8_lossy(body));
        }
    }
}
