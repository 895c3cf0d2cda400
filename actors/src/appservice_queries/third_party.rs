//! Third-party networks: combines what appservices answer about protocols, users and rooms outside Matrix. ([spec])
//!
//! [spec]: https://spec.matrix.org/v1.19/application-service-api/#third-party-networks
//! Clause: as.network.fields

use std::collections::BTreeMap;
use std::sync::Arc;

use ruma::{RoomAliasId, UserId};
use schema::ServiceId;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::messages::{Answer, Question, ThirdPartyKind};
use super::{AppserviceQueries, answers_in_time, put, rules};
use crate::services::CarriesInterests;
use crate::{Address, Env, Refusal, Result};

/// The protocols that appservices offer, with their descriptions. An appservice that does not answer is left out. ([spec])
///
/// # Errors
/// The actor is gone.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocols
pub async fn protocols(
    env: &Env,
    queries: &Address<AppserviceQueries>,
) -> Result<BTreeMap<String, Map<String, Value>>> {
    let offers = rules::offers(&env.store.interests());
    described(env, queries, offers).await
}

/// The description of one protocol. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`] if no appservice offers the protocol, or none that does describes it.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocolprotocol
pub async fn protocol(
    env: &Env,
    queries: &Address<AppserviceQueries>,
    protocol: &str,
) -> Result<Map<String, Value>> {
    let offers = rules::offers(&env.store.interests());
    let this = offers.into_iter().filter(|(name, _)| name == protocol);
    let mut found = described(env, queries, this.collect()).await?;
    found.remove(protocol).ok_or_else(|| no_protocol().into())
}

async fn described(
    env: &Env,
    queries: &Address<AppserviceQueries>,
    offers: BTreeMap<String, Vec<ServiceId>>,
) -> Result<BTreeMap<String, Map<String, Value>>> {
    let mut asked = Vec::new();
    for (protocol, services) in offers {
        let question = Question::protocol(&protocol);
        asked.extend(
            services
                .into_iter()
                .map(|service| (protocol.clone(), service, question.clone())),
        );
    }
    let mut found = BTreeMap::new();
    for (protocol, description) in ask_all(env, queries, asked).await? {
        if let Some(description) = rules::description(&description) {
            rules::add_description(found.entry(protocol).or_default(), description);
        }
    }
    Ok(found)
}

/// The users or locations of a protocol that have these fields; an empty list if there are none. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`] if no appservice offers the protocol.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyuserprotocol
pub async fn look_up(
    env: &Env,
    queries: &Address<AppserviceQueries>,
    kind: ThirdPartyKind,
    protocol: &str,
    fields: &BTreeMap<String, String>,
) -> Result<Vec<Box<RawValue>>> {
    let services = rules::offers(&env.store.interests())
        .remove(protocol)
        .ok_or_else(no_protocol)?;
    let fields = fields.iter().map(|(name, value)| (&**name, &**value));
    let question = Question::look_up(kind.endpoint(), protocol, fields);
    entries(env, queries, kind, services, question).await
}

/// The third-party users behind a user of this server, from the appservices that claim the user and offer a protocol. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`] if there are none.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyuser
pub async fn behind_user(
    env: &Env,
    queries: &Address<AppserviceQueries>,
    user: &UserId,
) -> Result<Vec<Box<RawValue>>> {
    let services = rules::behind_user(&env.store.interests(), user);
    let query = [("userid", user.as_str())];
    let question = Question::look_up(ThirdPartyKind::User.reverse(), "", query);
    let found = entries(env, queries, ThirdPartyKind::User, services, question).await?;
    some(found, "this user has no third-party identity")
}

/// The third-party locations behind an alias. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`] if there are none.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartylocation
pub async fn behind_alias(
    env: &Env,
    queries: &Address<AppserviceQueries>,
    alias: &RoomAliasId,
) -> Result<Vec<Box<RawValue>>> {
    let services = rules::behind_alias(&env.store.interests(), alias);
    let query = [("alias", alias.as_str())];
    let question = Question::look_up(ThirdPartyKind::Location.reverse(), "", query);
    let found = entries(env, queries, ThirdPartyKind::Location, services, question).await?;
    some(found, "this alias has no third-party location")
}

fn no_protocol() -> Refusal {
    Refusal::NotFound("no service offers this protocol".into())
}

fn some(found: Vec<Box<RawValue>>, why: &'static str) -> Result<Vec<Box<RawValue>>> {
    if found.is_empty() {
        return Err(Refusal::NotFound(why.into()).into());
    }
    Ok(found)
}

/// The results of a look-up at these appservices, one list after the other.
async fn entries(
    env: &Env,
    queries: &Address<AppserviceQueries>,
    kind: ThirdPartyKind,
    services: Vec<ServiceId>,
    question: Question,
) -> Result<Vec<Box<RawValue>>> {
    let asked = services
        .into_iter()
        .map(|service| ((), service, question.clone()))
        .collect();
    let answers = ask_all(env, queries, asked).await?;
    let lists = answers
        .iter()
        .filter_map(|((), list)| rules::entries(kind, list));
    Ok(lists.flatten().collect())
}

/// Send many questions, several at once. Returns the bodies of those answered with a 2xx in time, in the order of the
/// questions.
async fn ask_all<T>(
    env: &Env,
    queries: &Address<AppserviceQueries>,
    asked: Vec<(T, ServiceId, Question)>,
) -> Result<Vec<(T, Arc<str>)>> {
    let (about, asked): (Vec<T>, Vec<_>) = asked.into_iter().map(|(t, s, q)| (t, (s, q))).unzip();
    let asked = asked.into_iter().enumerate();
    let waits = asked.map(|(i, (service, question))| {
        let to = service.clone();
        (service, async move {
            Ok((i, put(queries, &to, question).await?))
        })
    });
    let mut bodies = BTreeMap::new();
    answers_in_time(env, waits, |(i, answer)| {
        if let Answer::Yes(body) = answer {
            bodies.insert(i, body);
        }
    })
    .await?;
    let about = about.into_iter().enumerate();
    Ok(about
        .filter_map(|(i, about)| Some((about, bodies.remove(&i)?)))
        .collect())
}
