//! Identifiers and chance: drawn from the system, or counted from a seed. Nothing else draws a random number.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

/// Where identifiers come from.
#[derive(Clone)]
pub enum Ids {
    /// The system's randomness.
    Random,
    /// Counted per kind from a seed: the same run gives the same identifiers.
    Counted(Arc<Counted>),
}

/// The counters of a seeded run.
pub struct Counted {
    seed: u64,
    next: Mutex<BTreeMap<String, u64>>,
}

impl Ids {
    /// Identifiers that repeat with the seed.
    #[must_use]
    pub fn counted(seed: u64) -> Ids {
        Ids::Counted(Arc::new(Counted {
            seed,
            next: Mutex::new(BTreeMap::new()),
        }))
    }

    /// A text that cannot be guessed (192 bits), or the next of its kind, such as `session1`.
    /// Letters, digits, `-` and `_` only.
    #[must_use]
    pub fn opaque(&self, kind: &str) -> String {
        match self {
            Ids::Random => URL_SAFE_NO_PAD.encode(self.bytes::<24>(kind)),
            Ids::Counted(counted) => format!("{kind}{}", counted.next(kind)),
        }
    }

    /// A device id: ten capital letters, or `DEVICE1`.
    #[must_use]
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

    /// The localpart of a room id of a version that does not derive it: eighteen letters, or `room1`.
    #[must_use]
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

    /// Random bytes, or the next of this kind derived from the seed.
    #[must_use]
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

impl Counted {
    fn next(&self, kind: &str) -> u64 {
        let Ok(mut next) = self.next.lock() else {
            return 0;
        };
        let n = next.entry(kind.to_owned()).or_insert(0);
        *n += 1;
        *n
    }
}
