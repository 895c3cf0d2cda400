//! HTTP: from the bytes of a request to a typed request with a known caller, and from an answer or an error to a response.
//!
//! A request passes `router.rs`, `caller.rs`, `limits/`, `body.rs` and `ruma/`, in this order, before its route runs.

pub mod address;
mod allowed;
pub mod answer;
pub mod around;
mod body;
pub mod caller;
pub(crate) mod current;
pub mod door;
pub mod error;
pub mod incoming;
pub mod limits;
mod origin;
mod recording;
pub mod registry;
mod request_id;
pub mod router;
mod ruma;
