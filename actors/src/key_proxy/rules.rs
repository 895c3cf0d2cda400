//! Which appservices are asked for keys, and how their answers are merged with the stored keys. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ruma::{OwnedUserId, UserId};
use schema::ServiceId;
use serde_json::Value;
use serde_json::value::RawValue;

use super::hooks::Proxy;
use crate::Identity;
use crate::key_store::OneTimeKeys;
use crate::key_store::queries::{Queried, UserKeys};
use crate::key_store::rules::{canonical, is_same_signed_part};
use crate::services::{Interests, Service};

/// The appservices to ask, each with its users: those that claim a user exclusively and have opted in. The appservice that
/// sends the request is not asked: it knows the answer, and would wait for itself.
pub fn owners<'a>(
    interests: &Interests,
    by: &Identity,
    proxy: Proxy,
    users: impl IntoIterator<Item = &'a OwnedUserId>,
) -> BTreeMap<ServiceId, BTreeSet<OwnedUserId>> {
    let mut owners: BTreeMap<ServiceId, BTreeSet<OwnedUserId>> = BTreeMap::new();
    let answers = |service: &&Arc<Service>| {
        let opted_in = service.registration.other.get(proxy.opt_in) == Some(&Value::Bool(true));
        opted_in && service.is_reachable() && Some(&service.id) != by.appservice.as_ref()
    };
    if !interests.services().iter().any(|s| answers(&s)) {
        return owners;
    }
    for user in users {
        if let Some(owner) = interests.exclusive_owner(user.as_str()).filter(answers) {
            let of_owner = owners.entry(owner.id.clone()).or_default();
            of_owner.insert(user.clone());
        }
    }
    owners
}

/// Add keys to a set.
pub(super) fn add(keys: &mut OneTimeKeys, more: OneTimeKeys) {
    for (user, devices) in more {
        keys.entry(user).or_default().extend(devices);
    }
}

/// Merge an answer into the stored keys. Where both have the same key the stored one stays, since it has signatures by others
/// and the name of the device. Where they differ the answer replaces it. Clause: as.proxy.query-merged
pub(super) fn lay_over(
    keys: &mut UserKeys,
    queried: &Queried,
    reader: &UserId,
    user: &OwnedUserId,
    answer: &UserKeys,
) {
    let asked = queried.get(user).map(Vec::as_slice).unwrap_or_default();
    for (device, new) in answer.device_keys.get(user).into_iter().flatten() {
        if asked.is_empty() || asked.contains(device) {
            let of_user = keys.device_keys.entry(user.clone()).or_default();
            if !of_user.get(device).is_some_and(|old| is_same(old, new)) {
                of_user.insert(device.clone(), new.clone());
            }
        }
    }
    if let Some(new) = answer.master_keys.get(user)
        && !keys
            .master_keys
            .get(user)
            .is_some_and(|old| is_same(old, new))
    {
        keys.master_keys.insert(user.clone(), new.clone());
        // The old master key's signatures are not valid under the new one.
        keys.self_signing_keys.remove(user);
        keys.user_signing_keys.remove(user);
    }
    let put = |old: &mut BTreeMap<_, Box<RawValue>>, new: &BTreeMap<_, Box<RawValue>>| {
        if let Some(new) = new.get(user)
            && !old.get(user).is_some_and(|old| is_same(old, new))
        {
            old.insert(user.clone(), new.clone());
        }
    };
    put(&mut keys.self_signing_keys, &answer.self_signing_keys);
    if user == reader {
        put(&mut keys.user_signing_keys, &answer.user_signing_keys);
    }
}

fn is_same(a: &RawValue, b: &RawValue) -> bool {
    match (canonical(a.get()), canonical(b.get())) {
        (Ok(a), Ok(b)) => is_same_signed_part(&a, &b),
        _ => false,
    }
}
