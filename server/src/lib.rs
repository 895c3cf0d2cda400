//! understudy: a stand-in Matrix homeserver for encrypted application services.
//!
//! This crate translates: a request becomes one question to an actor, and its answer a response. It decides nothing, and remembers
//! nothing between requests but connections and limits.
//!
//! From the bottom up: `state.rs`, which every request can reach; `http/`; `routes/`, with what `mscs/`, `experiments/` and `dev/`
//! add; `serve.rs`, which binds all routes and starts HTTP; the commands.

pub mod cli;
pub mod config;
mod dev;
mod diagnose;
pub mod doctor;
pub mod experiments;
pub mod http;
pub mod mscs;
mod offline;
mod options;
mod people;
mod private;
pub mod routes;
mod run;
pub mod serve;
pub mod state;

pub use run::run;
