//! Sends requests to an appservice to see whether it answers as the specification asks. A correct appservice is not changed by
//! them.

use std::time::Duration;

use actix_web::web::Bytes;
use actors::services::Registration;
use actors::transport::{ServiceResponse, Transport};
use actors::{Error, Refusal};

use super::checks::{
    ANSWERS_ANYTHING, Check, Examination, NO_ANSWER, NO_CONNECTION, NO_PING, NOT_READ, PING_FAILED,
    TOKEN_REFUSED, TOKEN_UNCHECKED, TOKEN_UNCLEAR,
};

/// A request, and the judgement of its answer.
struct Probe {
    method: &'static str,
    path: &'static str,
    /// The token to send; `None` for the registration's `hs_token`.
    token: Option<&'static str>,
    body: &'static str,
    judge: fn(u16) -> Option<Check>,
    asked: &'static str,
}

// ANCHOR: probes
/// The requests, in order, until one is not answered. A correct appservice refuses all but the first before it acts on them, so
/// they change nothing. The transactions are empty and have ids that no server uses. There is no probe for users and aliases,
/// because appservices create them in response.
const PROBES: [Probe; 4] = [
    Probe {
        method: "POST",
        path: "/_matrix/app/v1/ping",
        token: None,
        body: r#"{"transaction_id":"understudy-doctor"}"#,
        judge: |status| match status {
            200..=299 => None,
            401 | 403 => Some(TOKEN_REFUSED),
            404 | 405 | 501 => Some(NO_PING),
            _ => Some(PING_FAILED),
        },
        asked: "a ping with its hs_token",
    },
    Probe {
        method: "PUT",
        path: "/_matrix/app/v1/transactions/understudy-doctor-wrong-token",
        token: Some("understudy-doctor-wrong-token"),
        body: r#"{"events":[]}"#,
        judge: |status| match status {
            200..=299 => Some(TOKEN_UNCHECKED),
            401 | 403 => None,
            _ => Some(TOKEN_UNCLEAR),
        },
        asked: "a transaction with a wrong token",
    },
    Probe {
        method: "PUT",
        path: "/_matrix/app/v1/transactions/understudy-doctor-no-json",
        token: None,
        body: "this is no JSON",
        judge: |status| (200..=299).contains(&status).then_some(NOT_READ),
        asked: "a transaction that is no JSON",
    },
    Probe {
        method: "GET",
        path: "/_matrix/app/v1/understudy-doctor",
        token: None,
        body: "",
        judge: |status| (200..=299).contains(&status).then_some(ANSWERS_ANYTHING),
        asked: "an unknown path",
    },
];
// ANCHOR_END: probes

/// How many characters of an answer's body are shown.
const EXCERPT: usize = 120;

/// Send the requests, waiting up to `timeout` for each answer.
pub(super) async fn ask(
    exam: &mut Examination<'_>,
    transport: &Transport,
    registration: &Registration,
    timeout: Duration,
) {
    let Some(url) = &registration.url else {
        return;
    };
    for probe in &PROBES {
        let token = probe.token.unwrap_or(&registration.hs_token);
        let body = Bytes::from_static(probe.body.as_bytes());
        let line = (probe.method, probe.path);
        match transport
            .probe(registration, token, line, body, timeout)
            .await
        {
            Ok(answer) => {
                if let Some(check) = (probe.judge)(answer.status) {
                    exam.found(check, unexpected(probe, &answer));
                }
            }
            Err(error) => {
                let (check, why) = no_answer(url, probe, &error);
                return exam.found(check, why);
            }
        }
    }
}

fn unexpected(probe: &Probe, answer: &ServiceResponse) -> String {
    let what = format!("the service answers {} to {}", answer.status, probe.asked);
    let body: String = answer.body.chars().take(EXCERPT).collect();
    if (200..=299).contains(&answer.status) || body.is_empty() {
        what
    } else {
        // Print the answer as an escaped string: it may contain control characters of a terminal.
        format!("{what}: {body:?}")
    }
}

fn no_answer(url: &str, probe: &Probe, error: &Error) -> (Check, String) {
    match error {
        Error::Refused(Refusal::ConnectionTimeout) => (
            NO_ANSWER,
            format!("{url} does not answer {} in time", probe.asked),
        ),
        Error::Refused(Refusal::ConnectionFailed(why)) => {
            (NO_CONNECTION, format!("{url} cannot be reached: {why}"))
        }
        error => (NO_CONNECTION, format!("{url} cannot be reached: {error}")),
    }
}
