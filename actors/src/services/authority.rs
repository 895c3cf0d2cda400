//! Which service decides over a device, and by which rule: its acknowledgement of a message is then the device's.

use std::collections::{BTreeMap, BTreeSet};

use schema::ServiceId;
use schema::accounts::Addressed;

use super::claim::Claim;
use super::interests::Interests;

/// The rule by which a service decides over a device. Where several rules hold, the first of them is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Authority {
    /// The user is the service's own sender.
    Sender,
    /// The first of the service's patterns that matches the user is exclusive.
    ExclusiveNamespace,
    /// The service registered the account, and the device was not made by a person's own login.
    RegisteredAccount,
    /// The service created the device, on any account.
    CreatedDevice,
}

impl Authority {
    /// The rule's name, as it is stored and shown.
    #[must_use]
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
/// Whether a service decides over a device, and by which rule: so that its acknowledgement is the device's. ([design])
///
/// Every device of its sender and of users in its exclusive namespaces; on other accounts that it registered, every
/// device that no person's own login made; else only a device that it created. `claim` is how its namespaces claim the user.
///
/// [design]: https://github.com/matrix-org/matrix-spec-proposals/pull/4203
#[must_use]
pub fn authority(claim: Option<Claim>, service: &ServiceId, to: &Addressed) -> Option<Authority> {
    let is_it = |id: &Option<String>| id.as_deref() == Some(service.as_str());
    match claim {
        Some(Claim::Sender) => Some(Authority::Sender),
        Some(Claim::Exclusive) => Some(Authority::ExclusiveNamespace),
        Some(Claim::Shared) | None => {
            if is_it(&to.account_of) && !to.device.own_login {
                Some(Authority::RegisteredAccount)
            } else {
                is_it(&to.device.appservice_id).then_some(Authority::CreatedDevice)
            }
        }
    }
}
// ANCHOR_END: authority

/// Every present service that may have something to do with this device, by its namespaces, by the account or by the device;
/// each with how its namespaces claim the user, if they do. One match for all of them.
#[must_use]
pub fn concerned(interests: &Interests, to: &Addressed) -> BTreeMap<ServiceId, Option<Claim>> {
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

/// Every present service that decides over this device.
#[must_use]
pub fn authorities(interests: &Interests, to: &Addressed) -> BTreeSet<ServiceId> {
    concerned(interests, to)
        .into_iter()
        .filter(|(id, claim)| authority(*claim, id, to).is_some())
        .map(|(id, _)| id)
        .collect()
}

/// Every present service that is told the key counts of this device.
#[must_use]
pub fn told_counts(interests: &Interests, to: &Addressed) -> BTreeSet<ServiceId> {
    let mut services = authorities(interests, to);
    services.retain(|id| interests.service(id).is_some_and(|s| s.takes_device_lists));
    services
}
