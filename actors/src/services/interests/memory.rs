//! A bounded cache of which appservices claim a user.
//!
//! An entry cannot be outdated: the patterns do not change while the cache exists, and a change of the registrations compiles
//! new interests with a new cache.

#[expect(
    clippy::disallowed_types,
    reason = "a cache; its order is never seen, and untrusted users choose the names, so the hash is keyed"
)]
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use crate::services::claim::NamespaceClaim;

/// The appservices that claim a user: indices in ascending order, each with how it claims the user.
pub(super) type FoundClaims = Arc<[(u32, NamespaceClaim)]>;

/// The most users in the cache.
const ENTRIES: usize = 32_768;

/// The most bytes of the cache.
const BYTES: usize = 4 << 20;

/// The number of shards. Each has its own lock, so that the writer, the readers and the requests seldom wait for each other. A
/// power of two.
const SHARDS: usize = 16;

/// The bytes that an entry takes besides its name and its answer: its slot in a half-full table, and two allocations.
const OVERHEAD: usize = 112;

// ANCHOR: memory
/// The cache, in shards. Each shard has two generations. Reading an entry moves it to the young generation; when that is full it
/// becomes the old one, and the entries of the former old generation are dropped, at most a thousand at once. There is no list
/// in order of use and no search at eviction, and the bound always holds.
pub(super) struct ClaimCache {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    /// The largest size of one generation of one shard.
    bound: Size,
}

#[derive(Default)]
struct Shard {
    young: ShardGeneration,
    old: ShardGeneration,
}

#[derive(Default)]
struct ShardGeneration {
    #[expect(clippy::disallowed_types, reason = "see above")]
    answers: HashMap<Box<str>, FoundClaims>,
    bytes: usize,
}
// ANCHOR_END: memory

/// A number of entries and of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

impl Default for ClaimCache {
    fn default() -> ClaimCache {
        ClaimCache::of(Size {
            entries: ENTRIES,
            bytes: BYTES,
        })
    }
}

impl ClaimCache {
    /// A cache that never holds more than this.
    pub(super) fn of(all: Size) -> ClaimCache {
        ClaimCache {
            hasher: RandomState::new(),
            shards: Default::default(),
            bound: Size {
                entries: all.entries / SHARDS / 2,
                bytes: all.bytes / SHARDS / 2,
            },
        }
    }

    /// The appservices that claim the user with this id, from the cache or computed now.
    pub(super) fn recall(&self, name: &str, find_out: impl FnOnce() -> FoundClaims) -> FoundClaims {
        let shard = &self.shards[self.shard(name)];
        let lock = || shard.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().recall(name, self.bound) {
            return known;
        }
        // Computed without the lock: two threads may compute the same answer at once.
        let answer = find_out();
        lock().keep(name.into(), Arc::clone(&answer), self.bound);
        answer
    }

    /// The shard of a name, from the upper bits of its hash; the table inside uses the lower ones.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only so many bits are left as there are shards"
    )]
    fn shard(&self, name: &str) -> usize {
        (self.hasher.hash_one(name) >> (u64::BITS - SHARDS.ilog2())) as usize
    }

    /// The current size of the cache.
    #[cfg(test)]
    pub(super) fn size(&self) -> Size {
        let (mut entries, mut bytes) = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock().expect("nobody panicked");
            entries += shard.young.answers.len() + shard.old.answers.len();
            bytes += shard.young.bytes + shard.old.bytes;
        }
        Size { entries, bytes }
    }
}

impl Shard {
    fn recall(&mut self, name: &str, bound: Size) -> Option<FoundClaims> {
        if let Some(known) = self.young.answers.get(name) {
            return Some(Arc::clone(known));
        }
        let (name, answer) = self.old.answers.remove_entry(name)?;
        self.old.bytes -= size_of_entry(&name, &answer);
        self.keep(name, Arc::clone(&answer), bound);
        Some(answer)
    }

    fn keep(&mut self, name: Box<str>, answer: FoundClaims, bound: Size) {
        let bytes = size_of_entry(&name, &answer);
        if bytes > bound.bytes || bound.entries == 0 {
            return;
        }
        if self.young.answers.len() >= bound.entries || self.young.bytes + bytes > bound.bytes {
            mem::swap(&mut self.young, &mut self.old);
            self.young.forget();
        }
        if self.young.answers.insert(name, answer).is_none() {
            self.young.bytes += bytes;
        }
    }
}

impl ShardGeneration {
    /// Remove all entries and keep the allocation, since the next generation needs the same size.
    fn forget(&mut self) {
        self.answers.clear();
        self.bytes = 0;
    }
}

fn size_of_entry(name: &str, answer: &FoundClaims) -> usize {
    OVERHEAD + name.len() + mem::size_of_val::<[_]>(answer)
}

impl std::fmt::Debug for ClaimCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}
