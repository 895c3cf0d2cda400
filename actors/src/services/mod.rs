//! Which appservices an event, a message or a change of keys concerns: their registrations, what their namespaces claim, which of
//! their features are in force, and which of them decides over a device.
//!
//! Pure, except for [`interested_in_room`], which reads. The storage carries the compiled [`Interests`], so that they change in
//! the same commit as the registrations.

mod authority;
mod carried;
mod claim;
mod interests;
mod registration;
mod room;
mod service;
mod stored;

pub use authority::{Authority, authorities, authority, concerned, receivers_of_counts};
pub use carried::{CarriesInterests, swap_interests};
pub use claim::NamespaceClaim;
pub use interests::{Claims, ClaimsIter, Interests, anchored, check_pattern};
pub use registration::{
    CountsPolicy, MSC3202, MSC4190, Namespace, Namespaces, PUSH_EPHEMERAL, RECEIVE_EPHEMERAL,
    Registration,
};
pub use room::{interested_in_room, owed_event};
pub use service::{AccountDataKind, FeaturesInForce, OwedKind, Proposals, Service};
pub use stored::{LastInForce, last_in_force, registration_of};
