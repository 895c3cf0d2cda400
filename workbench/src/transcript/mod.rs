//! The text of a transcript: how JSON is laid out, and short names for long identifiers.

pub mod layout;
pub mod names;
