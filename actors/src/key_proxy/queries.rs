//! Whether an appservice is asked during a claim or a query. If none is, the key store alone answers.

use ruma::OwnedUserId;

use super::hooks::{Proxies, Proxy};
use super::rules::owners;
use crate::key_store::Wanted;
use crate::key_store::queries::Queried;
use crate::services::CarriesInterests;
use crate::{Env, Identity};

/// Whether an appservice may keep one-time keys of these devices.
pub fn concerns_claim(env: &Env, proxies: Proxies, by: &Identity, wanted: &Wanted) -> bool {
    let proxy = proxies.claim.map(|claim| claim.proxy);
    is_concerned(env, proxy, by, wanted.keys())
}

/// Whether an appservice may keep keys of these users.
pub fn concerns_query(env: &Env, proxies: Proxies, by: &Identity, queried: &Queried) -> bool {
    let proxy = proxies.query.map(|query| query.proxy);
    is_concerned(env, proxy, by, queried.keys())
}

fn is_concerned<'a>(
    env: &Env,
    proxy: Option<Proxy>,
    by: &Identity,
    users: impl Iterator<Item = &'a OwnedUserId>,
) -> bool {
    proxy.is_some_and(|proxy| !owners(&env.store.interests(), by, proxy, users).is_empty())
}
