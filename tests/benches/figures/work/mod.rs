//! The workloads. Each creates its own world and takes about ten seconds; those in the book take longer, as set by their
//! constants or by `UNDERSTUDY_BENCH_SECONDS`.

pub(crate) mod busy_bot;
pub(crate) mod counts;
pub(crate) mod interests;
pub(crate) mod keys;
pub(crate) mod load;
pub(crate) mod process;
pub(crate) mod rooms;
pub(crate) mod sync;
pub(crate) mod sync_or_transactions;
pub(crate) mod to_device;
