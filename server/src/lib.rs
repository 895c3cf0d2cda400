//! understudy: a stand-in Matrix homeserver for encrypted application services.
//!
//! This crate translates: a request becomes a message to an actor, and the actor's reply a response. It makes no decisions, and
//! keeps nothing between requests except connections and limits.
//!
//! From the bottom up: `state.rs`, which every request can reach; `http/`; `routes/`, with the routes of `mscs/`, `experiments/`
//! and `dev/`; `start.rs` and `restore.rs`, which start the actors; `serve.rs`, which binds all routes and starts HTTP; the commands.

mod announce;
pub mod built_in;
pub mod cli;
pub mod compare;
pub mod config;
pub mod conformance;
pub mod control;
mod dev;
mod develop;
mod diagnose;
pub mod doctor;
pub mod embedded;
mod evidence;
pub mod experiments;
pub mod figures;
pub mod http;
mod logs;
pub mod mscs;
mod offline;
mod operators;
mod options;
mod people;
mod private;
mod propose;
mod restore;
pub mod routes;
mod run;
mod say;
pub mod scenario;
pub mod serve;
mod start;
pub mod state;
mod temporary;

pub use run::run;
