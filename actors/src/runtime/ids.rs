//! Identifiers and random bytes, from the system or derived from a seed. No other file draws random numbers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// The source of identifiers.
#[derive(Clone)]
pub enum Ids {
    /// The system's random numbers.
    Random,
    /// Derived from a seed and a counter for each kind, so that a run can be repeated exactly.
    Counted(Arc<Counters>),
}

/// The source of identifiers in a seeded run: the seed, and the number of identifiers of each kind so far.
pub struct Counters {
    seed: u64,
    next: Mutex<BTreeMap<String, u64>>,
}

impl Ids {
    /// Identifiers that are the same in every run with this seed.
    pub fn counted(seed: u64) -> Ids {
        Ids::Counted(Arc::new(Counters {
            seed,
            next: Mutex::new(BTreeMap::new()),
        }))
    }

    /// A string that cannot be guessed (192 bits), or the next of its kind in a seeded run, such as `session1`. It holds
    /// letters, digits, `-` and `_` only.
    pub fn opaque(&self, kind: &str) -> String {
        match self {
            Ids::Random => URL_SAFE_NO_PAD.encode(self.bytes::<24>(kind)),
            Ids::Counted(counted) => format!("{kind}{}", counted.next(kind)),
        }
    }

    /// A device id: ten capital letters, or `DEVICE1` in a seeded run.
    pub fn device(&self) -> String {
        match self {
            Ids::Random => self
                .bytes::<10>("device")
                .iter()
                .map(|b| char::from(b'A' + b % 26))
                .collect(),
            Ids::Counted(counted) => format!("DEVICE{}", counted.next("device")),
        }
    }

    /// The localpart of a room id, for room versions that do not derive it: eighteen letters, or `room1` in a seeded run.
    pub fn room(&self) -> String {
        match self {
            Ids::Random => {
                let letter = |b: &u8| {
                    char::from(if b % 52 < 26 {
                        b'A' + b % 26
                    } else {
                        b'a' + b % 26
                    })
                };
                self.bytes::<18>("room").iter().map(letter).collect()
            }
            Ids::Counted(counted) => format!("room{}", counted.next("room")),
        }
    }

    /// Random bytes, or bytes derived from the seed, the kind and a counter.
    pub fn bytes<const N: usize>(&self, kind: &str) -> [u8; N] {
        let mut bytes = [0; N];
        match self {
            Ids::Random => fill(&mut bytes),
            Ids::Counted(counted) => {
                let n = counted.next(kind);
                for (i, part) in bytes.chunks_mut(32).enumerate() {
                    let hash = Sha256::digest(format!("{}/{kind}/{n}/{i}", counted.seed));
                    part.copy_from_slice(&hash[..part.len()]);
                }
            }
        }
        bytes
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that draws random numbers"
)]
fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system has randomness");
}

impl Counters {
    fn next(&self, kind: &str) -> u64 {
        let Ok(mut next) = self.next.lock() else {
            return 0;
        };
        let n = next.entry(kind.to_owned()).or_insert(0);
        *n += 1;
        *n
    }
}
