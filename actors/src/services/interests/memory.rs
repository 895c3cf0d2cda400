//! A bounded memory of answers: who claims the users that were asked about lately.
//!
//! It can be wrong about nothing: patterns do not change while it lives, and a change of the registrations compiles new
//! interests with a memory of their own.

#[expect(
    clippy::disallowed_types,
    reason = "a cache; its order is never seen, and names are chosen by strangers, so their hash is keyed"
)]
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use crate::services::claim::Claim;

/// Who claims a user: indices into the services, ascending, each with how.
pub(super) type Answer = Arc<[(u32, Claim)]>;

/// Users remembered at most.
const ENTRIES: usize = 32_768;

/// What they may take at most, in bytes.
const BYTES: usize = 4 << 20;

/// Parts with a lock each, so that the writer, the readers and the requests seldom meet. A power of two.
const PARTS: usize = 16;

/// What an entry takes besides its name and its answer: its place in a table that is half full, and two allocations.
const OVERHEAD: usize = 112;

// ANCHOR: memory
/// What was answered lately, in parts. Each part has two generations: what is asked for moves to the young one; when that is full
/// it becomes the old one, and what nobody asked for since the last time is forgotten, at most a thousand entries at once. Nothing
/// is kept in order of use and nothing is searched for what to evict; the bound holds by construction.
pub(super) struct Memory {
    hasher: RandomState,
    parts: [Mutex<Part>; PARTS],
    /// What one generation of one part may hold.
    bound: Size,
}

#[derive(Default)]
struct Part {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    #[expect(clippy::disallowed_types, reason = "see above")]
    answers: HashMap<Box<str>, Answer>,
    bytes: usize,
}
// ANCHOR_END: memory

/// How much a memory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) entries: usize,
    pub(super) bytes: usize,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::of(Size {
            entries: ENTRIES,
            bytes: BYTES,
        })
    }
}

impl Memory {
    /// A memory that never holds more than this.
    pub(super) fn of(all: Size) -> Memory {
        Memory {
            hasher: RandomState::new(),
            parts: Default::default(),
            bound: Size {
                entries: all.entries / PARTS / 2,
                bytes: all.bytes / PARTS / 2,
            },
        }
    }

    /// The answer for this name: remembered, or found out now and remembered.
    pub(super) fn recall(&self, name: &str, find_out: impl FnOnce() -> Answer) -> Answer {
        let part = &self.parts[self.part(name)];
        let lock = || part.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().recall(name, self.bound) {
            return known;
        }
        // Not under the lock: two threads may find the same out at once, and remember the same.
        let answer = find_out();
        lock().keep(name.into(), Arc::clone(&answer), self.bound);
        answer
    }

    /// Which part a name belongs to: the upper bits of the hash; the table inside uses the lower ones.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only so many bits are left as there are parts"
    )]
    fn part(&self, name: &str) -> usize {
        (self.hasher.hash_one(name) >> (u64::BITS - PARTS.ilog2())) as usize
    }

    /// What it holds now.
    #[cfg(test)]
    pub(super) fn size(&self) -> Size {
        let (mut entries, mut bytes) = (0, 0);
        for part in &self.parts {
            let part = part.lock().expect("nobody panicked");
            entries += part.young.answers.len() + part.old.answers.len();
            bytes += part.young.bytes + part.old.bytes;
        }
        Size { entries, bytes }
    }
}

impl Part {
    fn recall(&mut self, name: &str, bound: Size) -> Option<Answer> {
        if let Some(known) = self.young.answers.get(name) {
            return Some(Arc::clone(known));
        }
        let (name, answer) = self.old.answers.remove_entry(name)?;
        self.old.bytes -= size_of_entry(&name, &answer);
        self.keep(name, Arc::clone(&answer), bound);
        Some(answer)
    }

    fn keep(&mut self, name: Box<str>, answer: Answer, bound: Size) {
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

impl Generation {
    /// Forget everything, and keep the table: the next as many need it just so.
    fn forget(&mut self) {
        self.answers.clear();
        self.bytes = 0;
    }
}

fn size_of_entry(name: &str, answer: &Answer) -> usize {
    OVERHEAD + name.len() + mem::size_of_val::<[_]>(answer)
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}
