//! The base of every actor: addresses, time, identifiers, errors, the trace, and wake-ups.

pub(crate) mod once;
pub(crate) mod watchdog;

pub mod address;
pub mod bounded;
pub mod clock;
pub mod env;
pub mod error;
pub mod exchange;
pub mod faults;
pub mod history;
pub mod identity;
pub mod identity_cache;
pub mod ids;
pub mod lengths;
pub mod meter;
pub mod performance;
pub mod request_faults;
pub mod requests;
pub mod secret;
pub mod trace;
pub mod wake;
