//! The doctor.
pub mod search;
