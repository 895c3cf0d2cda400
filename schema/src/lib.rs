//! The storage of understudy: SQL, rows, and the one writer that commits for all callers.
//!
//! This crate knows no HTTP and no actors, and makes no decisions: it contains no namespace, no proposal and no rule of the
//! specification. Each file is a group of tables: the row structs, then plain functions over a [`Conn`]. A [`Store`] runs them:
//! [`Store::write`] on the group-commit thread, [`Store::read`] on a few reader threads that never wait for the writer.

#[macro_use]
pub mod store;

mod cursors;
mod error;
mod service_id;
mod tables;

pub mod accounts;
pub mod aliases;
pub mod appservices;
pub mod back_fill;
pub mod backup;
pub mod client_transactions;
pub mod counts;
pub mod device_log;
pub mod events;
pub mod figures;
pub mod inbox;
pub mod keys;
pub mod memberships;
pub mod observed;
pub mod overview;
pub mod owed;
pub mod owed_keys;
pub mod queues;
pub mod receipts;
pub mod relations;
pub mod rooms;
pub mod scratch;
pub mod server_info;
pub mod service_rooms;
pub mod sessions;
pub mod set_aside;
pub mod signing_keys;
pub mod sync;
pub mod threads;
pub mod tracked;
pub mod transactions;
pub mod user_data;

pub use error::{Error, OpenError, Result, WriteError};
pub use service_id::ServiceId;
pub use store::{
    Companion, Conn, Image, OwedServices, Position, Report, Rows, Store, StoreOptions, Tx,
    covering, facts, faults,
};
