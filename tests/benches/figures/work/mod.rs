//! The workloads. Each makes its own world, and is over in about ten seconds.

pub(crate) mod keys;
pub(crate) mod load;
pub(crate) mod process;
pub(crate) mod rooms;
pub(crate) mod sync;
pub(crate) mod to_device;
