//! What a caller may take: how often it may ask, how many bytes it may send, how often it may guess, have services asked, and
//! claim a key of a device.

mod attempts;
mod bodies;
mod buckets;
mod terms;

use actors::key_store::{Wanted, rules};
use actors::{Clock, Refusal};
use ruma::{OwnedDeviceId, OwnedUserId};

use crate::caller::Caller;
use crate::error::Result;
use buckets::Buckets;

pub(crate) use attempts::Attempts;
pub(crate) use bodies::{Bodies, Reserved, allowed};
pub use buckets::RateLimit;
pub use terms::{ANONYMOUS_BODY, BODY, Cost, LARGE_BODY, Terms};

/// How often each caller may change something, unless the operator says otherwise.
pub const REQUESTS: RateLimit = RateLimit {
    per_second: 10.0,
    burst: 50.0,
};

/// How often each caller may read, unless the operator says otherwise.
pub const READS: RateLimit = RateLimit {
    per_second: 50.0,
    burst: 250.0,
};

/// How often each account may be logged in to with a wrong password, unless the operator says otherwise.
pub const LOGINS: RateLimit = RateLimit {
    per_second: 0.1,
    burst: 10.0,
};

/// How often services are asked for each caller, unless the operator says otherwise. A person who starts a chat needs one
/// question.
pub const QUESTIONS: RateLimit = RateLimit {
    per_second: 1.0,
    burst: 50.0,
};

/// How often each user may claim a key of each device, unless the operator says otherwise. Whoever begins to write to a device
/// needs one key, and one more when a session breaks.
pub const CLAIMS: RateLimit = RateLimit {
    per_second: 0.1,
    burst: 10.0,
};

/// The most callers that are remembered.
const CALLERS: usize = 10_000;

/// The most pairs of a claimer and a device that are remembered.
const PAIRS: usize = 20_000;

/// Who pays for a request: a user, or the address of who has not said. Free of limits: a service's sender, and the users of a
/// service that says so. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/application-service-api/#registration
fn payer(caller: &Caller) -> Option<String> {
    match (caller.appservice(), caller.identity()) {
        (Some(service), Ok(identity))
            if service.registration.rate_limited == Some(false)
                || identity.user.as_str() == service.sender =>
        {
            None
        }
        (_, Ok(identity)) => Some(identity.user.to_string()),
        (_, Err(_)) => Some(caller.address().to_owned()),
    }
}

/// How often each caller may ask: a limit for reading, one for everything else.
pub(crate) struct Limits {
    reads: Option<Buckets<String>>,
    changes: Option<Buckets<String>>,
}

impl Limits {
    pub(crate) fn new(
        reads: Option<RateLimit>,
        changes: Option<RateLimit>,
        clock: &Clock,
    ) -> Limits {
        let buckets = |limit| Buckets::new(limit, clock.clone(), CALLERS);
        Limits {
            reads: reads.map(buckets),
            changes: changes.map(buckets),
        }
    }

    /// Count a request.
    ///
    /// # Errors
    /// 429 with how long to wait.
    pub(crate) fn check(&self, caller: &Caller, cost: Cost) -> Result<()> {
        let buckets = match cost {
            Cost::Read => &self.reads,
            Cost::Change => &self.changes,
        };
        match (buckets, payer(caller)) {
            (Some(buckets), Some(payer)) => Ok(buckets.take(payer).map_err(exceeded)?),
            _ => Ok(()),
        }
    }
}

/// How often services are asked for each caller.
pub(crate) struct QuestionLimits(Buckets<String>);

impl QuestionLimits {
    pub(crate) fn new(limit: RateLimit, clock: Clock) -> QuestionLimits {
        QuestionLimits(Buckets::new(limit, clock, CALLERS))
    }

    /// How many of so many questions may be asked for this caller.
    ///
    /// # Errors
    /// 429 where it is none of them.
    pub(crate) fn allow(&self, caller: &Caller, questions: usize) -> Result<usize> {
        let Some(payer) = payer(caller) else {
            return Ok(questions);
        };
        for asked in 0..questions {
            match self.0.take(payer.clone()) {
                Err(wait) if asked == 0 => return Err(exceeded(wait).into()),
                Err(_) => return Ok(asked),
                Ok(()) => {}
            }
        }
        Ok(questions)
    }
}

fn exceeded(retry_after_ms: u64) -> Refusal {
    Refusal::LimitExceeded { retry_after_ms }
}

/// How often each user may claim a key of each device.
pub(crate) struct ClaimLimits(Buckets<(String, OwnedUserId, OwnedDeviceId)>);

impl ClaimLimits {
    pub(crate) fn new(limit: RateLimit, clock: Clock) -> ClaimLimits {
        ClaimLimits(Buckets::new(limit, clock, PAIRS))
    }

    // ANCHOR: allow
    /// The part of what is wanted that the caller may claim now. Nothing is taken from a device that it has claimed from too
    /// often: like a device without keys it is left out of the answer, so that one does not keep a message from all others.
    ///
    /// # Errors
    /// 429 when no device at all is left, with the shortest wait.
    pub(crate) fn allow(&self, caller: &Caller, wanted: Wanted) -> Result<Wanted> {
        let Some(who) = payer(caller) else {
            return Ok(wanted);
        };
        // What is refused anyway costs nothing, neither tokens nor memory.
        rules::upload::check_claim(&wanted)?;
        let (mut allowed, mut shortest) = (Wanted::new(), None::<u64>);
        for (user, devices) in wanted {
            for (device, algorithm) in devices {
                match self.0.take((who.clone(), user.clone(), device.clone())) {
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
