//! The effects of proposals on the wire, one file per proposal.

mod msc3983;
mod msc3984;
mod msc4350;
