//! Who gets a message, and who gets a copy of it: decided when it arrives, from what is true then.

use schema::ServiceId;
use schema::accounts::Addressed;
use schema::owed;
use serde::{Serialize, Serializer};

use super::messages::{Messages, Target};
use crate::Refusal;
use crate::runtime::lengths;
use crate::services::{Authority, Claim, Interests, Service, authority, concerned};

/// The largest content of one message, in bytes: as large as a room event may be.
pub const CONTENT: usize = 65_536;

/// How many devices one request may address. Clients send to 20 to 250 at once; it bounds how long others wait for the writer.
pub const RECIPIENTS: usize = 5_000;

/// How many bytes a content may take besides its first row before it is stored apart, once. Below this the rows are cheaper.
const REPEATED: usize = 4_096;

/// Whether a content of so many bytes that is in so many rows is stored once for all of them.
#[must_use]
pub fn is_shared(rows: usize, bytes: usize) -> bool {
    rows.saturating_sub(1).saturating_mul(bytes) > REPEATED
}

/// A request addresses so many devices at most, whether it names them or says `*`.
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

/// How a service comes by a copy of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interest {
    /// The service decides over the device, by this rule: its acknowledgement is the device's.
    Explicit(Authority),
    /// The service observes the user, and this lets it: the inbox keeps the message.
    Implicit(Consent),
}

/// What lets a service see messages to a user whom it merely observes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Consent {
    /// The service registered the account and may act as it: it can see what it likes there.
    OwnAccount,
    /// The administrator's configuration names the service: `observe`.
    Granted,
}

impl Interest {
    /// `explicit` or `implicit`.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Interest::Explicit(_) => "explicit",
            Interest::Implicit(_) => "implicit",
        }
    }

    /// The rule's name, as it is stored with a copy and shown.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Interest::Explicit(authority) => authority.name(),
            Interest::Implicit(Consent::OwnAccount) => "own_account",
            Interest::Implicit(Consent::Granted) => "granted",
        }
    }

    /// The kind under which the service is owed the message.
    #[must_use]
    pub fn owed_as(self) -> &'static str {
        match self {
            Interest::Explicit(_) => owed::TO_DEVICE,
            Interest::Implicit(Consent::OwnAccount) => owed::OBSERVED,
            Interest::Implicit(Consent::Granted) => owed::GRANTED,
        }
    }
}

/// Why a service gets no copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// No namespace of it matches the user, and neither account nor device are its own.
    NotInterested,
    /// It would merely observe the user, and the configuration does not grant it that.
    NotGranted,
    /// Its registration has no URL: nothing is ever sent to it.
    NoUrl,
    /// Its registration asks for no to-device messages.
    NotAskedFor,
    /// The proposal that would carry the copy is switched off.
    ProposalOff,
}

impl Withheld {
    /// The reason's name, as it is shown.
    #[must_use]
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

/// One message for one device, and the services that get a copy.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The device.
    pub to: &'a Addressed,
    /// The content, byte for byte as it was sent.
    pub content: &'a str,
    /// Who gets a copy, in order of id.
    pub copies: Vec<(ServiceId, Interest)>,
}

/// A message goes into the inbox of each existing device that it names; `*` names all that exist now. ([spec])
///
/// `devices` are the devices of the users in `messages`, in order of user and device.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
pub fn fan_out<'a>(
    messages: &'a Messages,
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
/// How a service is interested in messages to this device, if it is. ([MSC4203])
///
/// Explicit by authority. Else implicit, where a namespace of the service matches the user, and either the account is one that
/// the service registered, or the administrator grants that it observes.
/// `claim` is how its namespaces claim the user.
///
/// [MSC4203]: https://github.com/matrix-org/matrix-spec-proposals/pull/4203
pub fn interest(
    claim: Option<Claim>,
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

/// A copy is made only for a service that would be sent it.
pub fn deliverable(service: &Service) -> Result<(), Withheld> {
    match &service.registration {
        _ if service.takes_to_device => Ok(()),
        registration if registration.url.is_none() => Err(Withheld::NoUrl),
        registration if !registration.wants_to_device() => Err(Withheld::NotAskedFor),
        _ => Err(Withheld::ProposalOff),
    }
}

/// The service whose acknowledgement of a message is the device's, of those that get it: the first by id that decides over the device.
/// Empty where none does.
#[must_use]
pub fn decided_by(copies: &[(ServiceId, Interest)]) -> String {
    let mut deciding = copies
        .iter()
        .filter(|(_, interest)| matches!(interest, Interest::Explicit(_)));
    deciding
        .next()
        .map_or_else(String::new, |(id, _)| id.to_string())
}

/// The services that get a copy of a message to this device, in order of id.
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

/// The type and the transaction id fit where they are stored.
///
/// # Errors
/// [`Refusal::TooLarge`] for the type, [`Refusal::InvalidParam`] for the transaction id.
pub fn check_names(event_type: &str, txn: &str) -> Result<(), Refusal> {
    lengths::check_variable("event_type", event_type)?;
    lengths::check_variable("txn_id", txn)
}

// ANCHOR: custom
/// What a message may say: any JSON object of at most 65,536 bytes, as they came; its type is any text. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3sendtodeviceeventtypetxnid
pub fn check_contents(messages: &Messages) -> Result<(), Refusal> {
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
