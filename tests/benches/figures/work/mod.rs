//! The workloads. Each makes its own world, and is over in about ten seconds; those of the book take
//! longer, as their constants or `UNDERSTUDY_BENCH_SECONDS` say.

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
