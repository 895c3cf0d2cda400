//! The actors that decide what the server does, the typed messages between actors, and the pure rules that the actors apply.
//!
//! `services` finds the appservices that an event, a message or a change of keys concerns. Every other folder but `runtime` is an
//! actor: `mod.rs` holds the actor and its state, `messages.rs` its messages, one file for each verb its handler and its write,
//! `rules` the pure decisions, and `queries` the reads that do not wait for the mailbox. All of them build on `runtime`. This crate
//! contains no HTTP server.

mod health;
mod host;
mod legacy_paths;

pub mod accounts;
pub mod appservice_queries;
pub mod appservice_sender;
pub mod appservices;
pub mod device_lists;
pub mod dialects;
pub mod hooks;
pub mod inspection;
pub mod key_proxy;
pub mod key_store;
pub mod proposals;
pub mod rooms;
pub mod runtime;
pub mod services;
pub mod start;
pub mod sync;
pub mod to_device_inbox;
pub mod transport;
pub mod wire;

pub use runtime::address::{Address, ask, ask_as, guarded, tell};
pub use runtime::clock::Clock;
pub use runtime::env::{Env, Settings, Stopping};
pub use runtime::error::{Challenge, Error, Refusal, Result};
pub use runtime::identity::Identity;
pub use runtime::ids::Ids;
pub use runtime::secret::Secret;
pub use start::{Actors, start};
