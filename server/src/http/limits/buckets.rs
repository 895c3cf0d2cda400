//! Token buckets, one for each key, refilled by the server's clock and bounded in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use actors::{Clock, Refusal};
use serde::Deserialize;

/// A rate limit: the parameters of a token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Tokens added per second: the long-term rate.
    pub per_second: f64,
    /// The capacity of the bucket: how many requests are allowed in a burst.
    pub burst: f64,
}

/// The most buckets that one kind of limit keeps.
pub(super) const CALLERS: usize = 10_000;

/// The refusal (429) for an empty bucket.
pub(super) fn exceeded(retry_after_ms: u64) -> Refusal {
    Refusal::LimitExceeded { retry_after_ms }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    /// The time at which the tokens were counted.
    at: i64,
}

impl RateLimit {
    /// The tokens in a bucket at the time `now`.
    fn filled(self, bucket: Bucket, now: i64) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds between two requests are far below 2^52"
        )]
        let seconds = (now - bucket.at).max(0) as f64 / 1000.0;
        (bucket.tokens + seconds * self.per_second).min(self.burst)
    }

    /// How many milliseconds it takes until there is a whole token again.
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
    refused: AtomicU64,
    buckets: Mutex<BTreeMap<K, Bucket>>,
}

impl<K: Ord + Clone> Buckets<K> {
    /// Keeps at most `most` buckets.
    pub(super) fn new(limit: RateLimit, clock: Clock, most: usize) -> Buckets<K> {
        Buckets {
            limit,
            clock,
            most,
            refused: AtomicU64::new(0),
            buckets: Mutex::new(BTreeMap::new()),
        }
    }

    /// Take a token from the bucket of this key.
    ///
    /// # Errors
    /// If the bucket is empty, takes nothing and returns the number of milliseconds until its next token.
    pub(super) fn take(&self, key: K) -> Result<(), u64> {
        let now = self.clock.monotonic();
        // A poisoned lock is consistent: each change is one assignment.
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
        if answer.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// Check that there is a token, without taking it.
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
            Some(tokens) if tokens < 1.0 => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Err(self.limit.wait(tokens))
            }
            _ => Ok(()),
        }
    }

    /// Make every bucket full.
    pub(super) fn fill(&self) {
        self.buckets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// How often there was no token.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Return a token that turned out not to be needed.
    pub(super) fn give_back(&self, key: &K) {
        let now = self.clock.monotonic();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(key) {
            let tokens = (self.limit.filled(*bucket, now) + 1.0).min(self.limit.burst);
            *bucket = Bucket { tokens, at: now };
        }
    }

    /// Drop full buckets, since a new bucket is full too. If too many remain, drop the fuller half: to have its own empty bucket
    /// dropped, a caller would have to empty as many others.
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
