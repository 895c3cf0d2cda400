//! The engine room: connections of both engines, the writer, the readers, the one counter.
//!
//! [`Store::write`] queues a closure for the thread that commits for all; [`Store::read`] runs one on a thread that never waits for it.

#[macro_use]
pub(crate) mod conn;
pub(crate) mod deferred;
pub mod faults;
mod handle;
mod job;
mod open;
mod pool;
mod position;
mod readers;
mod shared;
mod tx;
mod writer;

pub use conn::{Conn, Rows};
pub use handle::{QUEUE, Store};
pub use job::Report;
pub use open::Options;
pub use position::Position;
pub use tx::{Companion, OwedServices, Tx, covering};
