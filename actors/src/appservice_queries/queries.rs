//! Finds users and aliases in a request that do not exist and that an appservice might create.

use std::collections::BTreeMap;

use ruma::{OwnedUserId, RoomAliasId, UserId};
use schema::ServiceId;
use schema::{accounts, aliases};

use super::messages::Question;
use super::rules;
use crate::services::CarriesInterests;
use crate::{Env, Error, Result};

/// A user or alias that does not exist, and the appservices that might create it, in the order in which to ask them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unknown {
    /// The question to send.
    pub question: Question,
    /// The appservices to ask.
    pub services: Vec<ServiceId>,
}

// ANCHOR: unknown_users
/// Which of these users do not exist, although an appservice might create them. Clause: own.query.everywhere
///
/// Costs a look at the cache for each user, a match against the namespaces for each that is not cached, and one read for all
/// that match. A deactivated user exists, since it cannot be created again.
pub async fn unknown_users<'a>(
    env: &Env,
    requester: Option<&ServiceId>,
    users: impl IntoIterator<Item = &'a UserId>,
) -> Result<Vec<Unknown>> {
    let interests = env.store.interests();
    if interests.services().is_empty() {
        return Ok(Vec::new());
    }
    let mut open: BTreeMap<OwnedUserId, Vec<ServiceId>> = BTreeMap::new();
    for user in users
        .into_iter()
        .filter(|user| !env.identities.has_user(user))
    {
        let services = rules::to_ask_about_user(&interests, requester, user);
        if !services.is_empty() {
            open.insert(user.to_owned(), services);
        }
    }
    if open.is_empty() {
        return Ok(Vec::new());
    }
    let before = env.identities.before();
    let names: Vec<String> = open.keys().map(ToString::to_string).collect();
    let known = env
        .store
        .read(move |db| Ok::<_, Error>(accounts::existing(db, &names)?))
        .await?;
    open.retain(|user, _| {
        let deactivated = known.get(user.as_str());
        if deactivated == Some(&false) {
            env.identities.learn_user(before, user);
        }
        deactivated.is_none()
    });
    let open = open.into_iter().take(rules::NAMES);
    let unknown = open.map(|(user, services)| Unknown {
        question: Question::user(&user),
        services,
    });
    Ok(unknown.collect())
}
// ANCHOR_END: unknown_users

/// Returns the alias if it does not exist, although an appservice might create it.
pub async fn unknown_alias(
    env: &Env,
    requester: Option<&ServiceId>,
    alias: &RoomAliasId,
) -> Result<Option<Unknown>> {
    if alias.server_name() != env.settings.server_name {
        return Ok(None);
    }
    let services = rules::to_ask_about_alias(&env.store.interests(), requester, alias);
    if services.is_empty() {
        return Ok(None);
    }
    let name = alias.to_string();
    let known = env
        .store
        .read(move |db| Ok::<_, Error>(aliases::get(db, &name)?))
        .await?;
    Ok(known.is_none().then(|| Unknown {
        question: Question::alias(alias),
        services,
    }))
}
