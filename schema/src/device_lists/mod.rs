//! Who must track whose devices: the log of what can change it, who shares a room with whom, and what each service has still to be
//! told.

mod log;
mod prune;
mod sharing;
mod told;

pub use log::*;
pub use prune::*;
pub use sharing::*;
pub use told::*;
