//! What a caller may take: how often it may ask, how many bytes it may send, how often it may guess a password or a token, have
//! services asked, and claim a key of a device.

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

/// How often services are asked for each caller, unless the operator says otherwise. Starting a chat needs one question.
pub const QUESTIONS: RateLimit = RateLimit {
    per_second: 1.0,
    burst: 50.0,
};

/// How often each user may claim a key of each device, unless the operator says otherwise. A sender needs
/// one key for each device that it begins to write to, and one more when a session breaks.
pub const CLAIMS: RateLimit = RateLimit {
    per_second: 0.1,
    burst: 10.0,
};

/// The most pairs of a claimer and a device that are remembered.
const PAIRS: usize = 20_000;

/// The limits of a server, and what was used of them. Where an operator chose no limit there is `None`.
///
/// The payer of a request is the key under which it is counted; a request without one is not limited.
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
    /// The limits that an operator chose.
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

    /// Count a request.
    ///
    /// # Errors
    /// 429 with how long to wait.
    pub(crate) fn count(&self, payer: Option<String>, cost: Cost) -> Result<(), Refusal> {
        let buckets = match cost {
            Cost::Read => &self.reads,
            Cost::Change => &self.changes,
        };
        match (buckets, payer) {
            (Some(buckets), Some(payer)) => buckets.take(payer).map_err(exceeded),
            _ => Ok(()),
        }
    }

    /// How many of so many questions services may be asked now.
    ///
    /// # Errors
    /// 429 where it is none of them.
    pub(crate) fn questions(
        &self,
        payer: Option<String>,
        is_anonymous: bool,
        questions: usize,
    ) -> Result<usize, Refusal> {
        if is_anonymous && !self.anonymous_questions {
            return Ok(0);
        }
        let (Some(limits), Some(payer)) = (&self.questions, payer) else {
            return Ok(questions);
        };
        for asked in 0..questions {
            match limits.take(payer.clone()) {
                Err(wait) if asked == 0 => return Err(exceeded(wait)),
                Err(_) => return Ok(asked),
                Ok(()) => {}
            }
        }
        Ok(questions)
    }

    /// The part of what is wanted that may be claimed now.
    ///
    /// # Errors
    /// As for [`ClaimLimits::allow`].
    pub(crate) fn claims(&self, payer: Option<String>, wanted: Wanted) -> Result<Wanted> {
        match (&self.claims, payer) {
            (Some(limits), Some(payer)) => limits.allow(&payer, wanted),
            _ => Ok(wanted),
        }
    }

    /// The limits of guessing.
    pub(crate) fn attempts(&self) -> Option<&Attempts> {
        self.attempts.as_ref()
    }

    /// The bytes of bodies that are under way.
    pub(crate) fn bodies(&self) -> &Bodies {
        &self.bodies
    }

    #[doc(hidden)]
    #[must_use]
    pub fn bodies_under_way(&self) -> usize {
        self.bodies.bytes()
    }
}

/// How often each user may claim a key of each device.
struct ClaimLimits(Buckets<(String, OwnedUserId, OwnedDeviceId)>);

impl ClaimLimits {
    fn new(limit: RateLimit, clock: Clock) -> ClaimLimits {
        ClaimLimits(Buckets::new(limit, clock, PAIRS))
    }

    // ANCHOR: allow
    /// The part of what is wanted that the payer may claim now. A device that it has claimed from too often is left out, like a
    /// device without keys, so that one device does not keep a message from all others.
    ///
    /// # Errors
    /// 429 when no device at all is left, with the shortest wait.
    fn allow(&self, payer: &str, wanted: Wanted) -> Result<Wanted> {
        // What is refused anyway costs nothing, neither tokens nor memory.
        rules::upload::check_claim(&wanted)?;
        let (mut allowed, mut shortest) = (Wanted::new(), None::<u64>);
        for (user, devices) in wanted {
            for (device, algorithm) in devices {
                match self
                    .0
                    .take((payer.to_owned(), user.clone(), device.clone()))
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
