//! Buckets of tokens, filled by the Clock: one for each key, in bounded memory.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use actors::{Clock, Refusal};
use serde::Deserialize;

/// How often something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// So often a second, in the long run.
    pub per_second: f64,
    /// So often at once.
    pub burst: f64,
}

/// The most callers of which one kind of limit remembers a bucket.
pub(super) const CALLERS: usize = 10_000;

/// The answer to a caller whose bucket is empty.
pub(super) fn exceeded(retry_after_ms: u64) -> Refusal {
    Refusal::LimitExceeded { retry_after_ms }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    /// When they were counted.
    at: i64,
}

impl RateLimit {
    /// What is in a bucket now.
    fn filled(self, bucket: Bucket, now: i64) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds between two requests are far below 2^52"
        )]
        let seconds = (now - bucket.at).max(0) as f64 / 1000.0;
        (bucket.tokens + seconds * self.per_second).min(self.burst)
    }

    /// How many milliseconds it takes until there is a token again.
    fn wait(self, tokens: f64) -> u64 {
        let wait = ((1.0 - tokens) / self.per_second.max(0.001) * 1000.0).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a wait of at most minutes, never negative"
        )]
        let wait = wait.clamp(1.0, 600_000.0) as u64;
        wait
    }
}

/// The buckets, by key.
pub(super) struct Buckets<K> {
    limit: RateLimit,
    clock: Clock,
    most: usize,
    buckets: Mutex<BTreeMap<K, Bucket>>,
}

impl<K: Ord + Clone> Buckets<K> {
    /// At most so many are remembered.
    pub(super) fn new(limit: RateLimit, clock: Clock, most: usize) -> Buckets<K> {
        Buckets {
            limit,
            clock,
            most,
            buckets: Mutex::new(BTreeMap::new()),
        }
    }

    /// Take a token.
    ///
    /// # Errors
    /// Where there is none: after how many milliseconds there is one again. Nothing is taken.
    pub(super) fn take(&self, key: K) -> Result<(), u64> {
        let now = self.clock.monotonic();
        // Nothing is left half done by a panic: each change is one assignment.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= self.most && !buckets.contains_key(&key) {
            self.make_room(&mut buckets, now);
        }
        let full = Bucket {
            tokens: self.limit.burst,
            at: now,
        };
        let bucket = buckets.entry(key).or_insert(full);
        let tokens = self.limit.filled(*bucket, now);
        let (left, answer) = if tokens >= 1.0 {
            (tokens - 1.0, Ok(()))
        } else {
            (tokens, Err(self.limit.wait(tokens)))
        };
        *bucket = Bucket {
            tokens: left,
            at: now,
        };
        answer
    }

    /// Whether there is a token. Nothing is taken.
    ///
    /// # Errors
    /// Where there is none: after how many milliseconds there is one again.
    pub(super) fn look<Q>(&self, key: &Q) -> Result<(), u64>
    where
        K: std::borrow::Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let now = self.clock.monotonic();
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = buckets
            .get(key)
            .map(|bucket| self.limit.filled(*bucket, now));
        match tokens {
            Some(tokens) if tokens < 1.0 => Err(self.limit.wait(tokens)),
            _ => Ok(()),
        }
    }

    /// Put back a token that was taken for nothing.
    pub(super) fn give_back(&self, key: &K) {
        let now = self.clock.monotonic();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(key) {
            let tokens = (self.limit.filled(*bucket, now) + 1.0).min(self.limit.burst);
            *bucket = Bucket { tokens, at: now };
        }
    }

    /// Full buckets go: a new one is full too. If too many are left, the fuller half goes: a caller whose empty bucket is to be
    /// forgotten would have to empty as many others.
    fn make_room(&self, buckets: &mut BTreeMap<K, Bucket>, now: i64) {
        buckets.retain(|_, bucket| self.limit.filled(*bucket, now) < self.limit.burst);
        let too_many = buckets.len().saturating_sub(self.most / 2);
        if too_many == 0 {
            return;
        }
        let mut fullest: Vec<(f64, K)> = buckets
            .iter()
            .map(|(key, bucket)| (self.limit.filled(*bucket, now), key.clone()))
            .collect();
        fullest.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        for (_, key) in fullest.into_iter().take(too_many) {
            buckets.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMIT: RateLimit = RateLimit {
        per_second: 2.0,
        burst: 3.0,
    };

    #[test]
    fn a_bucket_empties_and_fills() {
        let clock = Clock::manual(0);
        let buckets = Buckets::new(LIMIT, clock.clone(), 10);
        let take = || buckets.take("@alice:test");
        assert_eq!(
            [take(), take(), take(), take()],
            [Ok(()), Ok(()), Ok(()), Err(500)]
        );
        assert!(
            buckets.take("@bob:test").is_ok(),
            "each has a bucket of its own"
        );
        clock.advance(Duration::from_millis(250));
        assert_eq!(take(), Err(250), "refused, and nothing was taken");
        clock.advance(Duration::from_millis(250));
        assert_eq!([take(), take()], [Ok(()), Err(500)]);
    }

    #[test]
    fn an_empty_bucket_is_not_forgotten_for_fuller_ones() {
        let clock = Clock::manual(0);
        let buckets = Buckets::new(LIMIT, clock.clone(), 100);
        while buckets.take(0).is_ok() {}
        for other in 1..10_000 {
            assert!(buckets.take(other).is_ok());
        }
        assert!(buckets.take(0).is_err(), "it is remembered");
        let remembered = || buckets.buckets.lock().expect("not poisoned").len();
        assert!(remembered() <= 100, "memory is bounded");
        clock.advance(Duration::from_secs(60));
        for other in 0..100 {
            assert!(buckets.take(other).is_ok(), "all are full again");
        }
        assert_eq!(remembered(), 100);
    }
}
