//! Keys that services keep themselves: asked for in the middle of a claim or a query, where a proposal says how and a service's
//! registration that it answers.
//!
//! What a service is asked, and what of its answer is believed, are the proposals' business. Here stands in which order things
//! happen: an owner never waits for a service, so the route asks the key store, then the services, then the key store.

mod given;
mod memory;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use actors::appservice_queries::{Answer, Question, Sharing, put};
use actors::key_store::queries::{Queried, UserKeys, query_keys};
use actors::key_store::rules::{canonical, is_same_signed_part};
use actors::key_store::{Claim, ClaimFallback, Claimed, OneTimeKeys, Wanted};
use actors::{Identity, ask};
use futures_util::future::join_all;
use ruma::{OwnedUserId, UserId};
use schema::ServiceId;
use schema::interests::Service;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::mscs;
use crate::state::App;

pub(crate) use given::GivenKeys;
pub(crate) use memory::KeyAnswers;

/// How services are asked for something about keys.
#[derive(Debug, Clone, Copy)]
pub struct Proxy {
    /// The key of a registration with which a service says, by `true`, that it answers.
    pub opt_in: &'static str,
    /// Where it is asked.
    pub endpoint: &'static str,
}

/// What could be used of an answer, and what could not, and why.
#[derive(Debug, Default)]
pub struct Read<T> {
    /// What can be used.
    pub said: T,
    /// What was dropped: a line each.
    pub dropped: Vec<String>,
}

/// How services are asked for one-time keys.
#[derive(Debug, Clone, Copy)]
pub struct ClaimProxy {
    /// Who, where.
    pub proxy: Proxy,
    /// The question.
    pub ask: fn(&Wanted) -> String,
    /// What of the answer can be used: by what was asked, and the devices' keys that are known.
    pub read: fn(&Wanted, &UserKeys, &str) -> Read<OneTimeKeys>,
}

/// How services are asked for the keys of users.
#[derive(Debug, Clone, Copy)]
pub struct QueryProxy {
    /// Who, where.
    pub proxy: Proxy,
    /// The question about all devices of these users.
    pub ask: fn(&BTreeSet<OwnedUserId>) -> String,
    /// What of the answer can be used.
    pub read: fn(&BTreeSet<OwnedUserId>, &str) -> Read<UserKeys>,
}

/// The services that are asked, each with which of these users: those that alone may be them and that have opted in. Who asks
/// is not asked: it knows, and it would wait for itself.
fn owners<'a>(
    app: &App,
    caller: &Caller,
    proxy: Proxy,
    users: impl IntoIterator<Item = &'a OwnedUserId>,
) -> BTreeMap<ServiceId, BTreeSet<OwnedUserId>> {
    let mut owners: BTreeMap<ServiceId, BTreeSet<OwnedUserId>> = BTreeMap::new();
    let interests = app.actors.env.store.interests();
    let asker = caller.appservice().map(|service| &service.id);
    let answers = |service: &&Arc<Service>| {
        let opted_in = service.registration.other.get(proxy.opt_in) == Some(&Value::Bool(true));
        opted_in && service.is_reachable() && Some(&service.id) != asker
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

/// Put each question to its service, at the same time and outside the door. Each comes back with its answer, or with none,
/// for whatever reason.
async fn put_all<T>(
    app: &App,
    questions: Vec<(ServiceId, T, Question)>,
) -> Result<Vec<(ServiceId, T, Option<Arc<str>>)>> {
    if questions.is_empty() {
        return Ok(Vec::new());
    }
    let to = &app.actors.appservice_queries;
    let put = |(service, about, question)| async move {
        let text = match put(to, &service, question).await? {
            Answer::Yes(text) => Some(text),
            Answer::No | Answer::Unsupported | Answer::Failed(_) => None,
        };
        Ok((service, about, text))
    };
    let answers = app.outside(join_all(questions.into_iter().map(put))).await;
    answers.into_iter().collect()
}

fn complain(service: &ServiceId, endpoint: &str, dropped: &[String]) {
    for why in dropped {
        tracing::warn!(%service, endpoint, why, "a part of an answer was dropped");
    }
}

// ANCHOR: claim
/// Take a key from each of these devices: a stored one-time key; else what the service says that owns the user; else the stored
/// fallback key.
pub(crate) async fn claim(app: &App, caller: &Caller, wanted: Wanted) -> Result<OneTimeKeys> {
    let key_store = &app.actors.key_store;
    let mut enabled = mscs::among(app.proposals());
    let proxy = enabled.find_map(|m| m.claim_proxy);
    let proxy = proxy.filter(|p| !owners(app, caller, p.proxy, wanted.keys()).is_empty());
    let claim = Claim {
        wanted,
        or_fallback: proxy.is_none(),
    };
    let mut claimed = ask(key_store, claim).await?;
    if let Some(proxy) = proxy {
        ask_services(app, caller, proxy, &mut claimed).await?;
        let wanted = std::mem::take(&mut claimed.missing);
        if !wanted.is_empty() {
            let last = ask(key_store, ClaimFallback { wanted }).await?;
            add(&mut claimed.one_time_keys, last.one_time_keys);
        }
    }
    Ok(claimed.one_time_keys)
}
// ANCHOR_END: claim

/// Ask for what is missing, each service for its own. Nobody shares an answer: a key that two were given would be no
/// one-time key.
async fn ask_services(
    app: &App,
    caller: &Caller,
    proxy: ClaimProxy,
    claimed: &mut Claimed,
) -> Result<()> {
    let endpoint = proxy.proxy.endpoint;
    let owners = owners(app, caller, proxy.proxy, claimed.missing.keys());
    let question = |(service, users): (ServiceId, BTreeSet<OwnedUserId>)| {
        let missing = users.into_iter().map(|user| {
            let devices = claimed.missing.get(&user).cloned().unwrap_or_default();
            (user, devices)
        });
        let asked: Wanted = missing.collect();
        let question = Question::post(endpoint, (proxy.ask)(&asked), Sharing::Alone);
        (service, asked, question)
    };
    let answers = put_all(app, owners.into_iter().map(question).collect()).await?;
    for (service, asked, text) in answers {
        let Some(text) = text else { continue };
        let known = known_keys(app, caller, &asked).await?;
        let mut read = (proxy.read)(&asked, &known, &text);
        read.dropped
            .extend(app.given_keys().first_time(&mut read.said));
        complain(&service, endpoint, &read.dropped);
        for (user, devices) in &read.said {
            if let Some(missing) = claimed.missing.get_mut(user) {
                missing.retain(|device, _| !devices.contains_key(device));
            }
        }
        add(&mut claimed.one_time_keys, read.said);
    }
    claimed.missing.retain(|_, devices| !devices.is_empty());
    Ok(())
}

/// The stored keys of these devices, to verify what is said in their name.
async fn known_keys(app: &App, caller: &Caller, asked: &Wanted) -> Result<UserKeys> {
    let queried = asked
        .iter()
        .map(|(user, devices)| (user.clone(), devices.keys().cloned().collect()));
    let reader = caller.identity()?;
    Ok(query_keys(&app.actors.env, reader, queried.collect()).await?)
}

fn add(keys: &mut OneTimeKeys, more: OneTimeKeys) {
    for (user, devices) in more {
        keys.entry(user).or_default().extend(devices);
    }
}

// ANCHOR: query
/// The keys of these users: what is stored, and over it what the services say that own them. Where one does not answer, what is
/// stored.
pub(crate) async fn query(
    app: &App,
    caller: &Caller,
    reader: &Identity,
    queried: Queried,
) -> Result<UserKeys> {
    let mut keys = query_keys(&app.actors.env, reader, queried.clone()).await?;
    let mut enabled = mscs::among(app.proposals());
    let Some(proxy) = enabled.find_map(|m| m.query_proxy) else {
        return Ok(keys);
    };
    for (user, said) in said_by_owners(app, caller, proxy, &queried).await? {
        lay_over(&mut keys, &queried, &reader.user, &user, &said);
    }
    Ok(keys)
}
// ANCHOR_END: query

/// What the services that own these users say of them: remembered for a moment, so that a user is asked about so often and no
/// more, whoever queries.
async fn said_by_owners(
    app: &App,
    caller: &Caller,
    proxy: QueryProxy,
    queried: &Queried,
) -> Result<BTreeMap<OwnedUserId, Arc<UserKeys>>> {
    let (endpoint, clock) = (proxy.proxy.endpoint, &app.actors.env.clock);
    let (mut said, mut questions) = (BTreeMap::new(), Vec::new());
    for (service, users) in owners(app, caller, proxy.proxy, queried.keys()) {
        let (known, unknown) = app.key_answers().known(&service, users, clock.monotonic());
        said.extend(known);
        if !unknown.is_empty() {
            // The same query of many at the same time is one question.
            let question = Question::post(endpoint, (proxy.ask)(&unknown), Sharing::Joined);
            questions.push((service, unknown, question));
        }
    }
    for (service, users, text) in put_all(app, questions).await? {
        let read = text.map_or_else(Read::default, |text| (proxy.read)(&users, &text));
        complain(&service, endpoint, &read.dropped);
        let answers = app.key_answers();
        said.extend(answers.learn(&service, users, read.said, clock.monotonic()));
    }
    Ok(said)
}

/// Where the service and the server know a key alike, what is stored stays: it has the signatures of others, and its name.
/// Where they differ the service is right.
fn lay_over(
    keys: &mut UserKeys,
    queried: &Queried,
    reader: &UserId,
    user: &OwnedUserId,
    said: &UserKeys,
) {
    let asked = queried.get(user).map(Vec::as_slice).unwrap_or_default();
    for (device, new) in said.device_keys.get(user).into_iter().flatten() {
        if asked.is_empty() || asked.contains(device) {
            let of_user = keys.device_keys.entry(user.clone()).or_default();
            if !of_user.get(device).is_some_and(|old| is_same(old, new)) {
                of_user.insert(device.clone(), new.clone());
            }
        }
    }
    if let Some(new) = said.master_keys.get(user)
        && !keys
            .master_keys
            .get(user)
            .is_some_and(|old| is_same(old, new))
    {
        keys.master_keys.insert(user.clone(), new.clone());
        // What the old master key signed says nothing under the new one.
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
    put(&mut keys.self_signing_keys, &said.self_signing_keys);
    if user == reader {
        put(&mut keys.user_signing_keys, &said.user_signing_keys);
    }
}

fn is_same(a: &RawValue, b: &RawValue) -> bool {
    match (canonical(a.get()), canonical(b.get())) {
        (Ok(a), Ok(b)) => is_same_signed_part(&a, &b),
        _ => false,
    }
}
