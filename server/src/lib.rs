//! understudy: a stand-in Matrix homeserver for encrypted application services.
//!
//! This crate translates: HTTP in, one question to an actor, HTTP out. It decides nothing and remembers nothing.

pub mod address;
pub mod app;
pub mod caller;
pub mod cli;
pub mod config;
mod dev;
pub mod doctor;
pub mod error;
pub mod experiments;
mod key_proxy;
pub mod limits;
pub mod mscs;
mod offline;
mod people;
mod private;
mod questions;
pub mod routes;
pub mod ruma;
mod run;

pub use run::run;
