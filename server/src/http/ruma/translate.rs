//! Translates requests into ruma's types, and ruma's answers into responses.

use ::ruma::api::error::{DeserializationError, FromHttpRequestError};
use ::ruma::api::path_builder::PathBuilder;
use ::ruma::api::{IncomingRequestExt, OutgoingResponse, OutgoingResponseExt};
use actix_web::HttpResponse;
use actix_web::http::StatusCode;

use super::endpoint::Endpoint;
use crate::http::answer::json_error;
use crate::http::error::{Error, Result};
use crate::http::incoming::Incoming;

/// The path and query without empty values: some clients send `from=` and `filter=`.
fn without_empty(path: &str, query: &str) -> String {
    let has_value = |pair: &&str| {
        pair.split_once('=')
            .is_some_and(|(_, value)| !value.is_empty())
    };
    let pairs: Vec<&str> = query.split('&').filter(has_value).collect();
    if pairs.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", pairs.join("&"))
    }
}

pub(in crate::http) fn parse<R: Endpoint>(incoming: &Incoming) -> Result<R> {
    let uri = incoming.http.uri();
    let query = incoming.changed_query.as_deref().or(uri.query());
    let mut builder = http::Request::builder()
        .method(incoming.http.method().as_str())
        .uri(without_empty(uri.path(), query.unwrap_or_default()));
    for (name, value) in incoming.http.headers() {
        builder = builder.header(name.as_str(), value.as_bytes());
    }
    // Clients omit a body in which everything is optional, which some of ruma's parsers reject.
    let absent =
        incoming.body.is_empty() && incoming.http.method() == actix_web::http::Method::POST;
    let body: &[u8] = if absent { b"{}" } else { &incoming.body };
    let request = builder
        .body(body)
        .map_err(|e| Error::Request(400, "M_UNKNOWN", e.to_string()))?;
    let path: Vec<&str> = incoming.path.iter().map(String::as_str).collect();
    R::try_from_http_request(request, &path).map_err(|e| match unknown_event::<R>(&path) {
        Some(event) => {
            actors::Refusal::NotFound(format!("there is no event {event}").into()).into()
        }
        None => request_error(&e),
    })
}

/// The event id of a path, if it is one that ruma rejects. Event ids are opaque apart from `$` and their length ([spec]), so such an
/// id is one of no event here.
///
/// [spec]: https://spec.matrix.org/v1.19/appendices/#event-ids
fn unknown_event<'a, R: Endpoint>(path: &[&'a str]) -> Option<&'a str> {
    let template = R::PATH_BUILDER.all_paths().next()?;
    let mut variables = template.split('/').filter(|part| part.starts_with('{'));
    let event = *path.get(variables.position(|name| name == "{event_id}")?)?;
    let is_event = event.starts_with('$') && event.len() <= 255;
    (is_event && ::ruma::EventId::parse(event).is_err()).then_some(event)
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

pub(in crate::http) fn ruma_response<T: OutgoingResponse>(
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
}
