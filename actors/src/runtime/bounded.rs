//! A cache bounded in bytes.

use std::borrow::Borrow;
#[expect(
    clippy::disallowed_types,
    reason = "a cache: its order is never seen, and its hash is keyed because untrusted users choose the keys"
)]
use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

/// The bytes that a cache entry takes besides its key and value: its slot in a half-full table, and two allocations.
pub const ENTRY: usize = 112;

/// A cache in two generations. Reading an entry moves it to the young generation. When the young generation is full it becomes
/// the old one, and the entries of the former old generation, which were not read meanwhile, are dropped. There is no list in
/// order of use and no search at eviction, and the bound always holds.
pub struct Bounded<K, V> {
    young: Generation<K, V>,
    old: Generation<K, V>,
    /// The most bytes of one generation.
    most: usize,
    size: fn(&K, &V) -> usize,
}

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
    /// A cache of at most this many bytes. `size` returns what a key and its value take besides [`ENTRY`].
    pub fn new(bytes: usize, size: fn(&K, &V) -> usize) -> Bounded<K, V> {
        Bounded {
            young: Generation::default(),
            old: Generation::default(),
            most: bytes / 2,
            size,
        }
    }

    /// The cached value of a key.
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

    /// Cache a value. A value larger than a generation is not cached.
    pub fn put(&mut self, key: K, value: V) {
        self.forget(&key);
        let bytes = ENTRY + (self.size)(&key, &value);
        if bytes > self.most {
            return;
        }
        if self.young.bytes + bytes > self.most {
            // Reuse the allocation of the old table, since the next generation needs the same size.
            mem::swap(&mut self.young, &mut self.old);
            self.young.entries.clear();
            self.young.bytes = 0;
        }
        self.young.bytes += bytes;
        self.young.entries.insert(key, value);
    }

    /// Remove a key.
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

    /// Remove all entries.
    pub fn clear(&mut self) {
        self.young = Generation::default();
        self.old = Generation::default();
    }

    /// The number of bytes in use.
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
    fn the_cache_is_bounded_in_bytes_and_keeps_entries_that_are_read() {
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
    fn an_entry_that_is_replaced_or_removed_is_counted_once() {
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
