//! Access to the database: connections to both engines, the writer, the readers, and the counter of positions.
//!
//! [`Store::write`] queues a closure for the thread that commits for all callers; [`Store::read`] runs one on a thread that
//! never waits for the writer.

#[macro_use]
pub(crate) mod conn;
pub(crate) mod deferred;
pub mod facts;
pub mod faults;
mod handle;
mod job;
pub(crate) mod kept;
mod memory;
mod open;
mod pool;
mod position;
mod readers;
mod shared;
mod tx;
mod writer;

pub use conn::Conn;
pub use facts::Rows;
pub use handle::{QUEUE, Store};
pub use job::Report;
pub use memory::Image;
pub use open::StoreOptions;
pub use position::Position;
pub use tx::{Companion, OwedServices, Tx, covering};
