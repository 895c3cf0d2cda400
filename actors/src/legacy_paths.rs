//! The paths that the application service API had before it was versioned. ([spec])
//!
//! An appservice that does not know an endpoint at its present path is tried at the older one. The path that worked is
//! remembered for each appservice and endpoint; after a while the present path is tried first again.
//!
//! [spec]: https://spec.matrix.org/v1.19/application-service-api/#legacy-routes

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use schema::ServiceId;
use serde::Deserialize;

/// Each endpoint with its present and its older path. A ping has no older path.
const ENDPOINTS: [(&str, &str); 4] = [
    ("/_matrix/app/v1/transactions/", "/transactions/"),
    ("/_matrix/app/v1/users/", "/users/"),
    ("/_matrix/app/v1/rooms/", "/rooms/"),
    (
        "/_matrix/app/v1/thirdparty/",
        "/_matrix/app/unstable/thirdparty/",
    ),
];

/// How long the older path is tried first. After that the present path is tried again, because the appservice may have been
/// updated.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// The endpoint of a path, and the same path in its older form.
pub(crate) fn older(path: &str) -> Option<(&'static str, String)> {
    ENDPOINTS.iter().find_map(|(now, before)| {
        let rest = path.strip_prefix(now)?;
        Some((*now, format!("{before}{rest}")))
    })
}

/// The same path with the access token in its query: an appservice that only knows the older paths may not read the header.
/// ([spec]) Clause: as.legacy.token
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#legacy-authorization
pub(crate) fn with_token(path: &str, token: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    let token = utf8_percent_encode(token, NON_ALPHANUMERIC);
    format!("{path}{separator}access_token={token}")
}

// ANCHOR: is_unknown
/// Whether an answer means that the appservice does not know the path: 405, 404 `M_UNRECOGNIZED`, or a 404 that is no Matrix
/// error. Any other error, such as `M_NOT_FOUND`, is the answer to the request. ([spec]) Clause: as.legacy.unknown
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#unknown-routes
pub(crate) fn is_unknown(status: u16, body: &str) -> bool {
    #[derive(Deserialize)]
    struct MatrixError {
        errcode: String,
    }
    let error: Result<MatrixError, _> = serde_json::from_str(body);
    status == 405 || status == 404 && error.map_or(true, |e| e.errcode == "M_UNRECOGNIZED")
}
// ANCHOR_END: is_unknown

/// Which appservices use the older path of which endpoints, each with the time until which that is remembered.
#[derive(Default)]
pub(crate) struct LegacyPaths(Mutex<BTreeMap<(ServiceId, &'static str), i64>>);

impl LegacyPaths {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(ServiceId, &'static str), i64>> {
        // Each change is one assignment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the older path is the one to try first. `now` is [`Clock::monotonic`](crate::Clock::monotonic).
    pub(crate) fn is_first(&self, service: &ServiceId, endpoint: &'static str, now: i64) -> bool {
        let until = self.lock().get(&(service.clone(), endpoint)).copied();
        until.is_some_and(|until| now < until)
    }

    /// Remember that the appservice knows the older path.
    pub(crate) fn remember(&self, service: &ServiceId, endpoint: &'static str, now: i64) {
        let time = i64::try_from(REMEMBERED.as_millis()).unwrap_or(i64::MAX);
        let key = (service.clone(), endpoint);
        self.lock().insert(key, now.saturating_add(time));
    }

    /// Try the present path first again.
    pub(crate) fn forget(&self, service: &ServiceId, endpoint: &'static str) {
        self.lock().remove(&(service.clone(), endpoint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_but_ping_has_an_older_path() {
        let cases = [
            ("/_matrix/app/v1/transactions/17", Some("/transactions/17")),
            (
                "/_matrix/app/v1/users/@irc_a:test",
                Some("/users/@irc_a:test"),
            ),
            (
                "/_matrix/app/v1/rooms/%23irc:test",
                Some("/rooms/%23irc:test"),
            ),
            (
                "/_matrix/app/v1/thirdparty/user/irc?nick=a",
                Some("/_matrix/app/unstable/thirdparty/user/irc?nick=a"),
            ),
            ("/_matrix/app/v1/ping", None),
            ("/_matrix/app/unstable/org.matrix.msc3983/keys/claim", None),
        ];
        for (path, before) in cases {
            assert_eq!(older(path).map(|(_, p)| p).as_deref(), before, "{path}");
        }
        assert_eq!(
            with_token("/users/a", "t/k n"),
            "/users/a?access_token=t%2Fk%20n"
        );
        assert_eq!(with_token("/a?b=c", "t"), "/a?b=c&access_token=t");
    }

    #[test]
    fn only_an_unknown_path_is_tried_again() {
        let cases = [
            (404, "<h1>not found</h1>", true),
            (404, "", true),
            (404, "{}", true),
            (404, r#"{"errcode":"M_UNRECOGNIZED"}"#, true),
            (405, "", true),
            (404, r#"{"errcode":"M_NOT_FOUND"}"#, false),
            (404, r#"{"errcode":"COM.EXAMPLE.UNKNOWN"}"#, false),
            (200, "", false),
            (403, r#"{"errcode":"M_FORBIDDEN"}"#, false),
            (500, "", false),
        ];
        for (status, body, unknown) in cases {
            assert_eq!(is_unknown(status, body), unknown, "{status} {body}");
        }
    }
}
