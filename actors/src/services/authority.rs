//! Whether an appservice decides over a device: if it does, its acknowledgement of a message counts as the device's.
//!
//! Next on the way of a to-device message: `schema/src/inbox.rs`.

use std::collections::{BTreeMap, BTreeSet};

use schema::ServiceId;
use schema::accounts::Addressed;

use super::claim::NamespaceClaim;
use super::interests::Interests;

/// The rule by which an appservice decides over a device. If several rules apply, the first of these is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Authority {
    /// The user is the appservice's own sender.
    Sender,
    /// The first of the appservice's patterns that matches the user is exclusive.
    ExclusiveNamespace,
    /// The appservice registered the account, and the device was not created by a user's own login.
    RegisteredAccount,
    /// The appservice created the device, on any account.
    CreatedDevice,
}

impl Authority {
    /// The name of the rule, as it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Authority::Sender => "sender",
            Authority::ExclusiveNamespace => "exclusive_namespace",
            Authority::RegisteredAccount => "registered_account",
            Authority::CreatedDevice => "created_device",
        }
    }
}

// ANCHOR: authority
/// Whether an appservice decides over a device, and by which rule: its acknowledgement then counts as the device's. ([design])
///
/// It decides over every device of its sender and of the users in its exclusive namespaces; on other accounts that it
/// registered, over every device that no user's own login created; elsewhere only over devices that it created. `claim` says
/// how its namespaces claim the user (`services/claim.rs`: as its sender, exclusively, or shared). Clause: as.to-device.created-device
///
/// [design]: https://github.com/matrix-org/matrix-spec-proposals/pull/4203
pub fn authority(
    claim: Option<NamespaceClaim>,
    service: &ServiceId,
    to: &Addressed,
) -> Option<Authority> {
    let is_it = |id: &Option<String>| id.as_deref() == Some(service.as_str());
    match claim {
        Some(NamespaceClaim::Sender) => Some(Authority::Sender),
        Some(NamespaceClaim::Exclusive) => Some(Authority::ExclusiveNamespace),
        Some(NamespaceClaim::Shared) | None => {
            if is_it(&to.account_of) && !to.device.own_login {
                Some(Authority::RegisteredAccount)
            } else {
                is_it(&to.device.appservice_id).then_some(Authority::CreatedDevice)
            }
        }
    }
}
// ANCHOR_END: authority

/// Every present appservice that a device may concern, through its namespaces, the account or the device, each with how its
/// namespaces claim the user. The patterns are matched once for all appservices.
pub fn concerned(
    interests: &Interests,
    to: &Addressed,
) -> BTreeMap<ServiceId, Option<NamespaceClaim>> {
    let by_row = [to.account_of.as_deref(), to.device.appservice_id.as_deref()];
    let by_row = by_row
        .into_iter()
        .flatten()
        .map(ServiceId::from)
        .filter(|id| interests.service(id).is_some());
    let mut services: BTreeMap<_, _> = by_row.map(|id| (id, None)).collect();
    let by_namespace = interests.in_user(&to.device.user_id).into_iter();
    services.extend(by_namespace.map(|(service, claim)| (service.id.clone(), Some(claim))));
    services
}

/// Every present appservice that decides over this device.
pub fn authorities(interests: &Interests, to: &Addressed) -> BTreeSet<ServiceId> {
    concerned(interests, to)
        .into_iter()
        .filter(|(id, claim)| authority(*claim, id, to).is_some())
        .map(|(id, _)| id)
        .collect()
}

/// Every present appservice that receives the key counts of this device. Clause: as.counts.opt-in
pub fn receivers_of_counts(interests: &Interests, to: &Addressed) -> BTreeSet<ServiceId> {
    let mut services = authorities(interests, to);
    services.retain(|id| interests.service(id).is_some_and(|s| s.takes_device_lists));
    services
}
