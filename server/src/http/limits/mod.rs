//! The limits on a caller: requests, body bytes, guesses at passwords and tokens, queries to appservices, and claims of one-time
//! keys.

mod attempts;
mod bodies;
pub(super) mod buckets;
mod terms;

use actors::key_store::{Wanted, rules};
use actors::{Clock, Refusal, Result};
use ruma::{OwnedDeviceId, OwnedUserId};

use super::door::Door;
use buckets::{Buckets, CALLERS, exceeded};

pub(crate) use attempts::Attempts;
pub(crate) use bodies::{Bodies, Reserved, allowed};
pub use buckets::RateLimit;
pub use terms::{ANONYMOUS_BODY, BODY, Cost, LARGE_BODY, Terms};

/// The default limit on requests of a caller that change something.
pub const REQUESTS: RateLimit = RateLimit {
    per_second: 10.0,
    burst: 50.0,
};

/// The default limit on requests of a caller that only read.
pub const READS: RateLimit = RateLimit {
    per_second: 50.0,
    burst: 250.0,
};

/// The default limit on wrong passwords for an account.
pub const LOGINS: RateLimit = RateLimit {
    per_second: 0.1,
    burst: 10.0,
};

/// The default limit on queries to appservices on behalf of a caller. Starting a chat needs one query.
pub const QUESTIONS: RateLimit = RateLimit {
    per_second: 1.0,
    burst: 50.0,
};

/// The default limit on claims of a user for keys of one device. A sender needs one key when it starts a session with a device,
/// and one more when a session breaks.
pub const CLAIMS: RateLimit = RateLimit {
    per_second: 0.1,
    burst: 10.0,
};

/// The most pairs of a claiming user and a device that are remembered.
const PAIRS: usize = 20_000;

/// The limits of a server and their current use. A limit that the operator switched off is `None`.
///
/// The `limit_key` of a request is the key under which it is counted; a request without one is not limited.
#[derive(Default)]
pub struct Limits {
    reads: Option<Buckets<String>>,
    changes: Option<Buckets<String>>,
    claims: Option<ClaimLimits>,
    questions: Option<Buckets<String>>,
    anonymous_questions: bool,
    attempts: Option<Attempts>,
    bodies: Bodies,
}

impl Limits {
    /// Limits as the operator chose them.
    pub(crate) fn new(door: &Door, clock: &Clock) -> Limits {
        let buckets = |limit| Buckets::new(limit, clock.clone(), CALLERS);
        Limits {
            reads: door.read_limit.map(buckets),
            changes: door.rate_limit.map(buckets),
            claims: door
                .claim_limit
                .map(|limit| ClaimLimits::new(limit, clock.clone())),
            questions: door.question_limit.map(buckets),
            anonymous_questions: door.anonymous_questions,
            attempts: door.login_limit.map(|limit| Attempts::new(limit, clock)),
            bodies: Bodies::default(),
        }
    }

    /// Count a request against the rate limit of its caller. Clause: cs.api.rate-limit
    ///
    /// # Errors
    /// 429 with how long to wait.
    pub(crate) fn count(&self, limit_key: Option<String>, cost: Cost) -> Result<(), Refusal> {
        let buckets = match cost {
            Cost::Read => &self.reads,
            Cost::Change => &self.changes,
        };
        match (buckets, limit_key) {
            (Some(buckets), Some(limit_key)) => buckets.take(limit_key).map_err(exceeded),
            _ => Ok(()),
        }
    }

    /// How many of these queries may be sent to appservices now.
    ///
    /// # Errors
    /// 429 when the limit allows none.
    pub(crate) fn questions(
        &self,
        limit_key: Option<String>,
        is_anonymous: bool,
        questions: usize,
    ) -> Result<usize, Refusal> {
        if is_anonymous && !self.anonymous_questions {
            return Ok(0);
        }
        let (Some(limits), Some(limit_key)) = (&self.questions, limit_key) else {
            return Ok(questions);
        };
        for asked in 0..questions {
            match limits.take(limit_key.clone()) {
                Err(wait) if asked == 0 => return Err(exceeded(wait)),
                Err(_) => return Ok(asked),
                Ok(()) => {}
            }
        }
        Ok(questions)
    }

    /// The part of `wanted` that may be claimed now.
    ///
    /// # Errors
    /// As for [`ClaimLimits::allow`].
    pub(crate) fn claims(&self, limit_key: Option<String>, wanted: Wanted) -> Result<Wanted> {
        match (&self.claims, limit_key) {
            (Some(limits), Some(limit_key)) => limits.allow(&limit_key, wanted),
            _ => Ok(wanted),
        }
    }

    /// The limits on guessing passwords and tokens.
    pub(crate) fn attempts(&self) -> Option<&Attempts> {
        self.attempts.as_ref()
    }

    /// The budget for request bodies.
    pub(crate) fn bodies(&self) -> &Bodies {
        &self.bodies
    }

    /// Let every caller begin anew, as after a restart.
    pub(crate) fn forget(&self) {
        for buckets in [&self.reads, &self.changes, &self.questions] {
            buckets.iter().for_each(Buckets::fill);
        }
        self.claims.iter().for_each(|claims| claims.0.fill());
        self.attempts.iter().for_each(Attempts::forget);
    }

    /// How often each limit refused something.
    pub(crate) fn refused(&self) -> Vec<(&'static str, u64)> {
        let of = |buckets: &Option<Buckets<String>>| buckets.as_ref().map_or(0, Buckets::refused);
        let attempts = self.attempts.as_ref();
        let (passwords, tokens) = attempts.map(Attempts::refused).unwrap_or_default();
        vec![
            ("reads", of(&self.reads)),
            ("changes", of(&self.changes)),
            (
                "claims",
                self.claims.as_ref().map_or(0, |claims| claims.0.refused()),
            ),
            ("questions", of(&self.questions)),
            ("passwords", passwords),
            ("tokens", tokens),
            ("bodies", self.bodies.refused()),
        ]
    }

    #[doc(hidden)]
    #[must_use]
    pub fn bodies_under_way(&self) -> usize {
        self.bodies.bytes()
    }
}

/// Limits claims by claiming user and device.
struct ClaimLimits(Buckets<(String, OwnedUserId, OwnedDeviceId)>);

impl ClaimLimits {
    fn new(limit: RateLimit, clock: Clock) -> ClaimLimits {
        ClaimLimits(Buckets::new(limit, clock, PAIRS))
    }

    // ANCHOR: allow
    /// The part of `wanted` that may be claimed now. A device from which the claiming user has claimed too often is left out, as if
    /// it had no keys, so that one device does not hold up a message to all others. Clause: own.claims.limited
    ///
    /// # Errors 429 when no device is left, with the shortest time to wait.
    fn allow(&self, limit_key: &str, wanted: Wanted) -> Result<Wanted> {
        // Check the request first, so that an invalid one takes no tokens and no memory.
        rules::upload::check_claim(&wanted)?;
        let (mut allowed, mut shortest) = (Wanted::new(), None::<u64>);
        for (user, devices) in wanted {
            for (device, algorithm) in devices {
                match self
                    .0
                    .take((limit_key.to_owned(), user.clone(), device.clone()))
                {
                    Ok(()) => {
                        let of_user = allowed.entry(user.clone()).or_default();
                        of_user.insert(device, algorithm);
                    }
                    Err(wait) => shortest = Some(shortest.map_or(wait, |s| s.min(wait))),
                }
            }
        }
        match shortest {
            Some(wait) if allowed.is_empty() => Err(exceeded(wait).into()),
            _ => Ok(allowed),
        }
    }
    // ANCHOR_END: allow
}
