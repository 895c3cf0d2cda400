//! understudy: a stand-in Matrix homeserver for encrypted application services.
//!
//! This crate translates: HTTP in, one question to an actor, HTTP out. It decides nothing and remembers nothing.

pub mod app;
pub mod caller;
mod dev;
pub mod error;
pub mod limits;
pub mod mscs;
pub mod routes;
pub mod ruma;
