//! A memory of what can be found out again, bounded in bytes.

use std::borrow::Borrow;
#[expect(
    clippy::disallowed_types,
    reason = "a cache: its order is never seen, and its hash is keyed because strangers choose the keys"
)]
use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

/// What an entry takes besides its key and value: its place in a table that is half full, and two allocations.
pub const ENTRY: usize = 112;

// ANCHOR: bounded
/// A cache in two generations. An entry that is read moves to the young generation. When that is full it becomes the old one, and
/// the entries that were not read since the last time are dropped. No order of use is kept and nothing is searched for eviction;
/// the bound holds by construction.
pub struct Bounded<K, V> {
    young: Generation<K, V>,
    old: Generation<K, V>,
    /// The most bytes of one generation.
    most: usize,
    size: fn(&K, &V) -> usize,
}
// ANCHOR_END: bounded

struct Generation<K, V> {
    #[expect(clippy::disallowed_types, reason = "see above")]
    entries: HashMap<K, V>,
    bytes: usize,
}

impl<K, V> Default for Generation<K, V> {
    fn default() -> Self {
        Generation {
            entries: Default::default(),
            bytes: 0,
        }
    }
}

impl<K: Eq + Hash, V: Clone> Bounded<K, V> {
    /// At most so many bytes, where `size` is what a key and its value take besides [`ENTRY`].
    #[must_use]
    pub fn new(bytes: usize, size: fn(&K, &V) -> usize) -> Bounded<K, V> {
        Bounded {
            young: Generation::default(),
            old: Generation::default(),
            most: bytes / 2,
            size,
        }
    }

    /// The value of a key, if it is remembered.
    pub fn get<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(value) = self.young.entries.get(key) {
            return Some(value.clone());
        }
        let (key, value) = self.old.entries.remove_entry(key)?;
        self.old.bytes -= ENTRY + (self.size)(&key, &value);
        self.put(key, value.clone());
        Some(value)
    }

    /// Remember a value. One that is larger than a generation is not remembered.
    pub fn put(&mut self, key: K, value: V) {
        self.forget(&key);
        let bytes = ENTRY + (self.size)(&key, &value);
        if bytes > self.most {
            return;
        }
        if self.young.bytes + bytes > self.most {
            // The old table is emptied and used again: the next entries need one of its size.
            mem::swap(&mut self.young, &mut self.old);
            self.young.entries.clear();
            self.young.bytes = 0;
        }
        self.young.bytes += bytes;
        self.young.entries.insert(key, value);
    }

    /// Forget a key.
    pub fn forget<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        for generation in [&mut self.young, &mut self.old] {
            if let Some((key, value)) = generation.entries.remove_entry(key) {
                generation.bytes -= ENTRY + (self.size)(&key, &value);
            }
        }
    }

    /// Forget everything.
    pub fn clear(&mut self) {
        self.young = Generation::default();
        self.old = Generation::default();
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.young.bytes + self.old.bytes
    }
}

impl<K, V> std::fmt::Debug for Bounded<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bounded").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 100 * (ENTRY + 10);

    fn memory() -> Bounded<String, usize> {
        Bounded::new(MOST, |key, _| key.len())
    }

    #[test]
    fn it_is_bounded_in_bytes_and_keeps_what_is_read() {
        let mut memory = memory();
        memory.put("read often".to_owned(), 1);
        for n in 0..1_000 {
            memory.put(format!("{n:10}"), n);
            assert_eq!(memory.get("read often"), Some(1), "{n}");
            assert!(memory.bytes() <= MOST, "{n}");
        }
        assert_eq!(memory.get(format!("{:10}", 0).as_str()), None);
        memory.put("x".repeat(MOST), 1);
        assert_eq!(memory.get("read often"), Some(1), "too large to be kept");
    }

    #[test]
    fn what_is_put_again_or_forgotten_is_counted_once() {
        let mut memory = memory();
        for n in 0..1_000 {
            memory.put("a".to_owned(), n);
            assert_eq!(memory.get("a"), Some(n));
        }
        assert_eq!(memory.bytes(), ENTRY + 1);
        memory.forget("a");
        assert_eq!((memory.get("a"), memory.bytes()), (None, 0));
    }
}
