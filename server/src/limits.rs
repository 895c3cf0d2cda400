//! How often a caller may ask: a bucket of tokens for each user, filled by the Clock.

use std::collections::BTreeMap;
use std::sync::Mutex;

use actors::{Clock, Refusal};
use serde::Deserialize;

use crate::caller::Caller;
use crate::error::Result;

/// How often each caller may change something.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests a second, in the long run.
    pub per_second: f64,
    /// Requests at once.
    pub burst: f64,
}

impl Default for RateLimit {
    fn default() -> Self {
        RateLimit {
            per_second: 10.0,
            burst: 50.0,
        }
    }
}

/// The most callers that are remembered; beyond it, full buckets are forgotten.
const CALLERS: usize = 10_000;

/// The buckets: who → (tokens, when they were counted).
pub(crate) struct Limits {
    limit: RateLimit,
    clock: Clock,
    buckets: Mutex<BTreeMap<String, (f64, i64)>>,
}

impl Limits {
    pub(crate) fn new(limit: RateLimit, clock: Clock) -> Limits {
        Limits {
            limit,
            clock,
            buckets: Mutex::new(BTreeMap::new()),
        }
    }

    /// Reading is free; everything else takes a token. Free of limits: a service's sender, and the users of a service that says so. ([spec])
    ///
    /// [spec]: https://spec.matrix.org/v1.19/application-service-api/#registration
    pub(crate) fn check(&self, caller: &Caller, method: &str, path: &str) -> Result<()> {
        let reading = method == "GET" || method == "HEAD" || path.ends_with("/keys/query");
        if reading {
            return Ok(());
        }
        let who = match (caller.appservice(), caller.identity()) {
            (Some(service), Ok(identity))
                if service.registration.rate_limited == Some(false)
                    || identity.user.as_str() == service.sender =>
            {
                return Ok(());
            }
            (_, Ok(identity)) => identity.user.to_string(),
            (_, Err(_)) => caller.ip().unwrap_or("unknown").to_owned(),
        };
        self.take(who)
    }

    fn take(&self, who: String) -> Result<()> {
        let now = self.clock.now();
        let Ok(mut buckets) = self.buckets.lock() else {
            return Ok(());
        };
        if buckets.len() > CALLERS {
            let limit = self.limit;
            buckets.retain(|_, (tokens, at)| filled(limit, *tokens, *at, now) < limit.burst);
        }
        let (tokens, at) = buckets
            .get(&who)
            .copied()
            .unwrap_or((self.limit.burst, now));
        let tokens = filled(self.limit, tokens, at, now);
        let (left, answer) = if tokens >= 1.0 {
            (tokens - 1.0, Ok(()))
        } else {
            let wait = ((1.0 - tokens) / self.limit.per_second.max(0.001) * 1000.0).ceil();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a wait of at most minutes, never negative"
            )]
            let retry_after_ms = wait.clamp(1.0, 600_000.0) as u64;
            (
                tokens,
                Err(Refusal::LimitExceeded { retry_after_ms }.into()),
            )
        };
        buckets.insert(who, (left, now));
        answer
    }
}

fn filled(limit: RateLimit, tokens: f64, at: i64, now: i64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds between two requests are far below 2^52"
    )]
    let seconds = (now - at).max(0) as f64 / 1000.0;
    (tokens + seconds * limit.per_second).min(limit.burst)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_empties_and_fills() {
        let clock = Clock::manual(0);
        let limits = Limits::new(
            RateLimit {
                per_second: 2.0,
                burst: 3.0,
            },
            clock.clone(),
        );
        let take = || limits.take("@alice:test".to_owned()).is_ok();
        assert_eq!([take(), take(), take(), take()], [true, true, true, false]);
        assert!(
            limits.take("@bob:test".to_owned()).is_ok(),
            "each has a bucket of its own"
        );
        clock.advance(Duration::from_millis(500));
        assert_eq!([take(), take()], [true, false]);
    }
}
