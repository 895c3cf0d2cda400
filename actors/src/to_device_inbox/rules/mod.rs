//! Which devices get a message, and which appservices get a copy. Decided when the message arrives, from the state at that
//! time.
//!
//! Next on the way of a to-device message: `actors/src/services/authority.rs`.

use schema::ServiceId;
use schema::accounts::Addressed;
use schema::owed;
use serde::{Serialize, Serializer};

use super::messages::{Target, ToDeviceMessages};
use crate::Refusal;
use crate::runtime::lengths;
use crate::services::{Authority, Interests, NamespaceClaim, Service, authority, concerned};

/// The largest content of one message, in bytes: the limit of a room event.
pub const CONTENT: usize = 65_536;

/// The most devices that one request may address. Clients send to 20 to 250 at once; the limit bounds how long other writes
/// wait.
pub const RECIPIENTS: usize = 5_000;

/// The bytes that the copies of a content may take before it is stored once in a shared row. Below this, separate rows are
/// cheaper.
const REPEATED: usize = 4_096;

/// Whether a content of `bytes` bytes in `rows` rows is stored once for all of them.
pub fn is_shared(rows: usize, bytes: usize) -> bool {
    rows.saturating_sub(1).saturating_mul(bytes) > REPEATED
}

/// Check that a request addresses at most [`RECIPIENTS`] devices, named or by `*`.
///
/// # Errors
/// [`Refusal::TooLarge`]
pub fn check_recipients(devices: usize) -> Result<(), Refusal> {
    if devices > RECIPIENTS {
        return Err(Refusal::TooLarge(
            "a request may send to 5,000 devices; send the rest in another".into(),
        ));
    }
    Ok(())
}

/// Why an appservice gets a copy of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interest {
    /// The appservice decides over the device, by this rule: its acknowledgement counts as the device's.
    Explicit(Authority),
    /// The appservice observes the user, as permitted by this: the message stays in the inbox.
    Implicit(Consent),
}

/// What permits an appservice to receive messages to a user whom it merely observes. Clause: own.inbox.consent
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consent {
    /// The appservice registered the account and may act as it.
    OwnAccount,
    /// The configuration names the appservice in `observe`.
    Granted,
}

impl Interest {
    /// `explicit` or `implicit`.
    pub fn kind(self) -> &'static str {
        match self {
            Interest::Explicit(_) => "explicit",
            Interest::Implicit(_) => "implicit",
        }
    }

    /// The name of the rule, as it is stored with a copy and shown.
    pub fn rule(self) -> &'static str {
        match self {
            Interest::Explicit(authority) => authority.name(),
            Interest::Implicit(Consent::OwnAccount) => "own_account",
            Interest::Implicit(Consent::Granted) => "granted",
        }
    }

    /// The kind under which the copy is owed.
    pub fn owed_as(self) -> &'static str {
        match self {
            Interest::Explicit(_) => owed::TO_DEVICE,
            Interest::Implicit(Consent::OwnAccount) => owed::OBSERVED,
            Interest::Implicit(Consent::Granted) => owed::GRANTED,
        }
    }
}

/// Why an appservice gets no copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// None of its namespaces matches the user, and it created neither the account nor the device.
    NotInterested,
    /// It would merely observe the user, and the configuration does not permit that.
    NotGranted,
    /// Its registration has no URL: nothing is ever sent to it.
    NoUrl,
    /// Its registration does not opt in to to-device messages.
    NotAskedFor,
    /// The proposal that carries to-device messages is not enabled.
    ProposalOff,
}

impl Withheld {
    /// The name of the reason, as it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Withheld::NotInterested => "not_interested",
            Withheld::NotGranted => "not_granted",
            Withheld::NoUrl => "no_url",
            Withheld::NotAskedFor => "not_asked_for",
            Withheld::ProposalOff => "proposal_off",
        }
    }
}

impl Serialize for Withheld {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// One message for one device, and the appservices that get a copy.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The device.
    pub to: &'a Addressed,
    /// The content, byte for byte as it was sent.
    pub content: &'a str,
    /// The appservices that get a copy, in order of id.
    pub copies: Vec<(ServiceId, Interest)>,
}

/// A message goes into the inbox of each existing device that it names; `*` names all that exist now. A content for a named device
/// goes before the one for `*`. ([spec]) Clause: as.to-device.wildcard, cs.to-device.devices, cs.to-device.wildcard
///
/// `devices` are the devices of the users in `messages`, in order of user and device.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
pub fn fan_out<'a>(
    messages: &'a ToDeviceMessages,
    devices: &'a [Addressed],
    interests: &Interests,
) -> Vec<Delivery<'a>> {
    let mut deliveries = Vec::with_capacity(devices.len());
    for (user, targets) in messages {
        let from = devices.partition_point(|d| d.device.user_id.as_str() < user.as_str());
        let theirs = devices[from..]
            .iter()
            .take_while(|d| d.device.user_id == user.as_str());
        for to in theirs {
            let named = targets.iter().find(|(target, _)| match target {
                Target::Device(id) => id.as_str() == to.device.device_id,
                Target::All => false,
            });
            let content =
                named.or_else(|| targets.iter().find(|(target, _)| **target == Target::All));
            if let Some((_, content)) = content {
                deliveries.push(Delivery {
                    to,
                    content: content.get(),
                    copies: copies(to, interests),
                });
            }
        }
    }
    deliveries
}

// ANCHOR: interest
/// Why an appservice is interested in messages to this device, if it is. ([MSC4203]) Clause: as.to-device.shared
///
/// The interest is explicit if the appservice decides over the device. Otherwise it is implicit if a namespace of the appservice
/// matches the user, and the appservice registered the account or the configuration permits it to observe. `claim` says how its
/// namespaces claim the user (`services/claim.rs`: as its sender, exclusively, or shared).
///
/// [MSC4203]: https://github.com/matrix-org/matrix-spec-proposals/pull/4203
pub fn interest(
    claim: Option<NamespaceClaim>,
    service: &Service,
    to: &Addressed,
) -> Result<Interest, Withheld> {
    if let Some(authority) = authority(claim, &service.id, to) {
        return Ok(Interest::Explicit(authority));
    }
    let own_account = to.account_of.as_deref() == Some(service.id.as_str());
    match claim {
        None => Err(Withheld::NotInterested),
        Some(_) if own_account => Ok(Interest::Implicit(Consent::OwnAccount)),
        Some(_) if service.observes => Ok(Interest::Implicit(Consent::Granted)),
        Some(_) => Err(Withheld::NotGranted),
    }
}

/// A copy is made only for an appservice to which it would be sent.
pub fn deliverable(service: &Service) -> Result<(), Withheld> {
    match &service.registration {
        _ if service.takes_to_device => Ok(()),
        registration if registration.url.is_none() => Err(Withheld::NoUrl),
        registration if !registration.wants_to_device() => Err(Withheld::NotAskedFor),
        _ => Err(Withheld::ProposalOff),
    }
}

/// The appservice whose acknowledgement counts as the device's: several can decide over the device, and the first by id is stored.
/// Empty if none decides. Clause: own.inbox.decided-on-arrival
pub fn decided_by(copies: &[(ServiceId, Interest)]) -> String {
    let mut deciding = copies
        .iter()
        .filter(|(_, interest)| matches!(interest, Interest::Explicit(_)));
    deciding
        .next()
        .map_or_else(String::new, |(id, _)| id.to_string())
}

/// The appservices that get a copy of a message to this device, in order of id. Clause: as.to-device.sent
pub fn copies(to: &Addressed, interests: &Interests) -> Vec<(ServiceId, Interest)> {
    concerned(interests, to)
        .into_iter()
        .filter_map(|(id, claim)| {
            let service = interests.service(&id)?;
            let interest = interest(claim, service, to).ok()?;
            deliverable(service).ok().map(|()| (id, interest))
        })
        .collect()
}
// ANCHOR_END: interest

/// Check the length of the event type and the transaction id.
///
/// # Errors
/// [`Refusal::TooLarge`] for the type, [`Refusal::InvalidParam`] for the transaction id.
pub fn check_names(event_type: &str, txn: &str) -> Result<(), Refusal> {
    lengths::check_variable("event_type", event_type)?;
    lengths::check_variable("txn_id", txn)
}

// ANCHOR: custom
/// Check that each content is a JSON object of at most 65,536 bytes. ([spec]) Clause: cs.to-device.content
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid
pub fn check_contents(messages: &ToDeviceMessages) -> Result<(), Refusal> {
    for content in messages.values().flat_map(|targets| targets.values()) {
        let content = content.get();
        if !content.trim_start().starts_with('{') {
            return Err(Refusal::BadJson(
                "the content of a to-device message must be an object".into(),
            ));
        }
        if content.len() > CONTENT {
            return Err(Refusal::TooLarge(
                "the content of a to-device message is larger than 65,536 bytes".into(),
            ));
        }
    }
    Ok(())
}
// ANCHOR_END: custom

#[cfg(test)]
mod tests;
