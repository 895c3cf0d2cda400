//! The workbench: scenarios as text, and what plays them.
//!
//! A scenario names people and bridges, says step by step what they do, and what must come of it. It is played over HTTP against
//! any Matrix homeserver: this crate knows no other crate of the workspace.
//!
//! From the bottom up: `expect.rs`, `names.rs`, `sentence.rs`, `format.rs`, `checks.rs` and `scenario.rs` are the language;
//! `log.rs`, `secrets.rs` and `transcript/` the record; `client.rs`, `listener.rs` and `crypto.rs` what people and bridges are
//! made of; `homeserver.rs`, `remote.rs` and `shell.rs` what they meet; `world.rs`, `requests.rs`, `encryption.rs`,
//! `cross_signing.rs`, `olm.rs`, `deeds.rs`, `expectations.rs`, `delivered.rs` and `run.rs` play; `shared.rs` keeps scenarios on
//! the same homeserver apart. `specification.rs` lists the clauses that scenarios name, `clauses.rs` counts what passed,
//! `compare.rs` compares two homeservers, and `evidence.rs` writes the page about a scenario.

mod checks;
pub mod clauses;
pub mod client;
pub mod compare;
mod cross_signing;
pub mod crypto;
mod deeds;
mod delivered;
mod encryption;
pub mod evidence;
pub mod expect;
mod expectations;
mod fold;
pub mod format;
pub mod homeserver;
pub mod listener;
pub mod log;
pub mod names;
mod olm;
pub mod registrations;
pub mod remote;
mod requests;
pub mod run;
pub mod scenario;
pub mod schema;
mod secrets;
mod sections;
pub mod sentence;
pub mod sequence;
mod shared;
mod shell;
pub mod side_by_side;
pub mod specification;
pub mod transcript;
pub mod world;

pub use run::{After, Outcome, Verdict, run, run_and, run_file};
pub use scenario::Scenario;
pub use world::PASSWORD;
