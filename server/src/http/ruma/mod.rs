//! The one adapter between actix-web, which speaks version 0.2 of `http`, and ruma, which speaks version 1.

pub(super) mod endpoint;
pub(super) mod translate;
