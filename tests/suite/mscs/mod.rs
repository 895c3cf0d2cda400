//! What proposals change on the wire: a file each.

mod msc3983;
mod msc3984;
mod msc4350;
