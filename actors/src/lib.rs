//! What understudy decides: one actor for each question, typed messages between them, pure rules inside.
//!
//! A folder is an actor: `messages.rs` says what may be said to it, `rules.rs` what the specification demands,
//! `queries.rs` what may be looked up without queueing, `mod.rs` how it lives. This crate knows no HTTP server.

mod address;
mod env;
mod error;
mod identity;
mod legacy_paths;
mod life;

pub mod accounts;
pub mod appservice_queries;
pub mod appservice_sender;
pub mod appservices;
pub mod clock;
pub mod device_lists;
pub mod dialects;
pub mod doctor;
pub mod faults;
pub mod ids;
pub mod key_store;
pub mod lengths;
pub mod rooms;
pub mod secret;
pub mod start;
pub mod sync;
pub mod to_device_inbox;
pub mod trace;
pub mod transport;
pub mod wake;
pub mod wire;

pub use address::{Address, ask, ask_as, guarded, tell};
pub use clock::Clock;
pub use env::{Env, Settings, Stopping};
pub use error::{Challenge, Error, Refusal, Result};
pub use identity::Identity;
pub use ids::Ids;
pub use secret::Secret;
pub use start::{Actors, start};
