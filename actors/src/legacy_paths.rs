//! The paths of the application service API before it had versions. ([spec])
//!
//! A service that does not know an endpoint under its present path is asked under the one before. What is there is remembered for
//! each service and endpoint, and the present path is tried again now and then.
//!
//! [spec]: https://spec.matrix.org/v1.19/application-service-api/#legacy-routes

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use schema::ServiceId;
use serde::Deserialize;

/// Each endpoint, and where it was before. A ping has no older path.
const ENDPOINTS: [(&str, &str); 4] = [
    ("/_matrix/app/v1/transactions/", "/transactions/"),
    ("/_matrix/app/v1/users/", "/users/"),
    ("/_matrix/app/v1/rooms/", "/rooms/"),
    (
        "/_matrix/app/v1/thirdparty/",
        "/_matrix/app/unstable/thirdparty/",
    ),
];

/// How long a service is asked under the older path before the present one is tried again: it learns one with its next version.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// The endpoint of a path, and the older path.
pub(crate) fn older(path: &str) -> Option<(&'static str, String)> {
    ENDPOINTS.iter().find_map(|(now, before)| {
        let rest = path.strip_prefix(now)?;
        Some((*now, format!("{before}{rest}")))
    })
}

/// The same path with the token in its query: what read the older paths may read no header. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#legacy-authorization
pub(crate) fn with_token(path: &str, token: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    let token = utf8_percent_encode(token, NON_ALPHANUMERIC);
    format!("{path}{separator}access_token={token}")
}

// ANCHOR: is_unknown
/// Whether an answer says that the service does not know the path: 405, 404 `M_UNRECOGNIZED`, or a 404 that is no Matrix error.
/// Any other error, `M_NOT_FOUND` above all, is the answer. ([spec])
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

/// Which services are asked under which older paths. One entry for each service and endpoint.
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

    /// The older path is the one that the service knows.
    pub(crate) fn remember(&self, service: &ServiceId, endpoint: &'static str, now: i64) {
        let time = i64::try_from(REMEMBERED.as_millis()).unwrap_or(i64::MAX);
        let key = (service.clone(), endpoint);
        self.lock().insert(key, now.saturating_add(time));
    }

    /// It is not.
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
    fn only_an_unknown_path_is_asked_again() {
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
