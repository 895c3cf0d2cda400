//! What proposals change on the wire: a file each.

mod msc4350;
