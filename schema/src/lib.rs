//! What understudy remembers: SQL, rows, and the one writer that commits for everybody.
//!
//! This crate knows no HTTP and no actor. A file is a table group: row structs on top, then plain
//! functions over a [`Conn`] that read like sentences. [`Store`] runs them: [`Store::write`] on the
//! group-commit thread, [`Store::read`] on a few reader threads that never wait for the writer.

#[macro_use]
pub mod store;

mod error;
mod service_id;
mod tables;

pub mod accounts;
pub mod aliases;
pub mod appservices;
pub mod authority;
pub mod back_fill;
pub mod backup;
pub mod counts;
pub mod device_lists;
pub mod events;
pub mod inbox;
pub mod interests;
pub mod keys;
pub mod memberships;
pub mod owed;
pub mod receipts;
pub mod registration;
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
pub mod transactions;
pub mod user_data;

pub use error::{Error, OpenError, Result, WriteError};
pub use service_id::ServiceId;
pub use store::{Conn, Options, Position, Store, Tx, faults};
