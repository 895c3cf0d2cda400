//! Reads: which appservices get copies of to-device messages to a device, by which rule, and which messages and copies wait now.

use ruma::{DeviceId, UserId};
use schema::owed::{self, Owed};
use schema::{accounts, inbox, queues};
use serde::Serialize;

use super::rules::{self, Interest, Withheld};
use crate::services::{CarriesInterests, Interests};
use crate::{Env, Error, Refusal, Result};

/// The most waiting messages, and the most copies owed to appservices, that an [`Explanation`] lists. Its counts include the
/// messages and copies that are not listed.
const SHOWN: i64 = 50;

/// An appservice that gets copies of messages to a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observer {
    /// Its id.
    pub service: String,
    /// The user id of its sender, which users can contact about it.
    pub sender: String,
    /// `explicit` or `implicit`.
    pub interest: &'static str,
    /// The rule's name.
    pub rule: &'static str,
}

/// A device and the appservices that get copies of messages to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Observed {
    /// The device.
    pub device_id: String,
    /// The appservices, in order of id.
    pub observers: Vec<Observer>,
}

/// Which appservices get copies of messages to each device of a user, as of now.
pub async fn observers(env: &Env, user: &UserId) -> Result<Vec<Observed>> {
    let (interests, user) = (env.store.interests(), user.to_string());
    let devices = env
        .store
        .read(move |db| accounts::devices_of(db, &[&user]))
        .await?;
    let observed = |to: accounts::Addressed| Observed {
        observers: rules::copies(&to, &interests)
            .into_iter()
            .filter_map(|(id, interest)| observer(&interests, &id, interest))
            .collect(),
        device_id: to.device.device_id,
    };
    Ok(devices.into_iter().map(observed).collect())
}

fn observer(interests: &Interests, id: &schema::ServiceId, interest: Interest) -> Option<Observer> {
    Some(Observer {
        service: id.to_string(),
        sender: interests.service(id)?.sender.clone(),
        interest: interest.kind(),
        rule: interest.rule(),
    })
}

/// What happens to a message to a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The owner of the device.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// Every registered appservice, in order of id, with what it would get of a message that arrived now.
    pub services: Vec<CopyDecision>,
    /// The messages that wait in the device's inbox.
    pub inbox: Waiting<InboxMessage>,
    /// The copies of messages to the device that appservices are owed.
    pub copies: Waiting<Copy>,
}

/// Whether an appservice would get a copy of a message to a device, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CopyDecision {
    /// Its id.
    pub service: String,
    /// Whether it would get a copy.
    pub copy: bool,
    /// `explicit` or `implicit`, if it is interested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interest: Option<&'static str>,
    /// The rule that makes it interested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'static str>,
    /// Why it gets no copy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<Withheld>,
}

/// The number of waiting items, and the oldest of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting<T> {
    /// The number of all waiting items, also those that are not listed.
    pub count: i64,
    /// The oldest items.
    pub oldest: Vec<T>,
}

/// A message that waits in an inbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InboxMessage {
    /// Its position.
    pub position: i64,
    /// The event type.
    pub r#type: String,
    /// The sender's user id.
    pub sender: String,
}

/// A copy of a message to the device that an appservice is owed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Copy {
    /// The position of the message.
    pub position: i64,
    /// The appservice.
    pub service: String,
    /// `explicit` or `implicit`, as decided when the message arrived.
    pub interest: &'static str,
    /// The rule by which it was decided.
    pub rule: String,
    /// The id of the frozen transaction that contains it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transaction: Option<i64>,
}

/// Explain what happens to a message to a device, and what waits for the device now.
///
/// # Errors
/// [`Refusal::NotFound`] when there is no such device.
pub async fn explain(env: &Env, user: &UserId, device: &DeviceId) -> Result<Explanation> {
    let (user, device) = (user.to_string(), device.to_string());
    let interests = env.store.interests();
    env.store
        .read(move |db| {
            let to = accounts::device(db, &user, &device)?
                .ok_or_else(|| Refusal::NotFound("there is no such device".into()))?;
            let services = interests.services().iter();
            let services = services.map(|service| copy_decision(&interests, service, &to));
            let (waiting, oldest) = queues::waiting_for(db, &user, &device, SHOWN)?;
            let (copies, oldest_copies) = queues::owed_of(db, &user, &device, SHOWN)?;
            Ok::<_, Error>(Explanation {
                services: services.collect(),
                user_id: user,
                device_id: device,
                inbox: Waiting {
                    count: waiting,
                    oldest: oldest.into_iter().map(message).collect(),
                },
                copies: Waiting {
                    count: copies,
                    oldest: oldest_copies.into_iter().map(copy).collect(),
                },
            })
        })
        .await
}

fn copy_decision(
    interests: &Interests,
    service: &crate::services::Service,
    to: &accounts::Addressed,
) -> CopyDecision {
    let claim = interests.claim(&service.id, &to.device.user_id);
    let interest = rules::interest(claim, service, to);
    let withheld = interest.err().or(rules::deliverable(service).err());
    CopyDecision {
        service: service.id.to_string(),
        copy: withheld.is_none(),
        interest: interest.ok().map(Interest::kind),
        rule: interest.ok().map(Interest::rule),
        why_not: withheld,
    }
}

fn message(row: inbox::InboxRow) -> InboxMessage {
    InboxMessage {
        position: row.position,
        r#type: row.kind,
        sender: row.sender,
    }
}

fn copy(row: Owed) -> Copy {
    let explicit = row.kind == owed::TO_DEVICE;
    Copy {
        position: row.position,
        service: row.appservice_id,
        interest: if explicit { "explicit" } else { "implicit" },
        rule: row.why,
        transaction: row.txn,
    }
}
