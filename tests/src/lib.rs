//! The test kit: it plays users and bridges and records their requests. A [`Stage`] is an understudy in the test's process,
//! with real HTTP over a loopback socket, manual time and counted identifiers.

pub mod bridge;
pub mod chart;
pub mod crypto;
pub mod deeds;
pub mod person;
pub mod postgres;
pub mod process;
pub mod signing;
pub mod stage;
pub mod statements;
pub mod stored;
pub mod transcript;

pub use bridge::{Bridge, Question, Received, TO_DEVICE, until};
pub use crypto::{CryptoBot, CryptoPerson};
pub use deeds::numbers;
pub use person::{Answer, Person};
pub use stage::Stage;
pub use stored::Stored;
