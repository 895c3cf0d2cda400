//! Who gets a message, and who gets a copy of it: decided when it arrives, from what is true then.

use schema::ServiceId;
use schema::accounts::Addressed;
use schema::authority::{Authority, authority, concerned};
use schema::interests::{Claim, Interests, Service};
use schema::owed;
use serde::{Serialize, Serializer};

use super::{Messages, Target};
use crate::Refusal;
use crate::runtime::lengths;

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
mod tests {
    use schema::accounts::DeviceRow;
    use schema::interests::Proposals;
    use serde_json::json;

    use super::*;

    fn interests() -> Interests {
        compiled(Proposals {
            to_device: true,
            device_lists: true,
            ..Proposals::default()
        })
    }

    fn compiled(proposals: Proposals) -> Interests {
        let service = |id: &str, users: serde_json::Value, url: Option<&str>, observes: bool| {
            let registration = json!({"id": id, "url": url, "as_token": id, "hs_token": id, "sender_localpart": format!("{id}bot"),
                "namespaces": {"users": users}, "receive_ephemeral": true});
            (
                serde_json::from_value(registration).expect("a registration"),
                observes,
            )
        };
        let all = vec![
            service(
                "irc",
                json!([{"exclusive": true, "regex": "@irc_.*"}]),
                Some("http://localhost:1"),
                false,
            ),
            service(
                "mirror",
                json!([{"exclusive": false, "regex": "@.*"}]),
                Some("http://localhost:2"),
                true,
            ),
            service(
                "nosy",
                json!([{"exclusive": false, "regex": "@.*"}]),
                Some("http://localhost:3"),
                false,
            ),
            service(
                "mute",
                json!([{"exclusive": true, "regex": "@irc_.*"}]),
                None,
                false,
            ),
            (
                serde_json::from_value(json!({"id": "deaf", "url": "http://localhost:4", "as_token": "deaf", "hs_token": "deaf",
                    "sender_localpart": "deafbot",
                    "namespaces": {"users": [{"exclusive": true, "regex": "@irc_.*"}]}}))
                .expect("a registration"),
                false,
            ),
        ];
        Interests::compile("test", all, proposals).expect("patterns compile")
    }

    fn device(
        user: &str,
        id: &str,
        created_by: Option<&str>,
        account_of: Option<&str>,
        own_login: bool,
    ) -> Addressed {
        Addressed {
            device: DeviceRow {
                user_id: user.to_owned(),
                device_id: id.to_owned(),
                display_name: None,
                appservice_id: created_by.map(ToOwned::to_owned),
                own_login,
                born: 1,
                last_seen_ts: None,
                last_seen_ip: None,
            },
            account_of: account_of.map(ToOwned::to_owned),
        }
    }

    /// What it is about, the device, and who gets a copy.
    type Case = (&'static str, Addressed, &'static [(&'static str, Interest)]);

    #[test]
    fn authority_is_per_device() {
        const BY_SENDER: Interest = Interest::Explicit(Authority::Sender);
        const BY_NAMESPACE: Interest = Interest::Explicit(Authority::ExclusiveNamespace);
        const BY_ACCOUNT: Interest = Interest::Explicit(Authority::RegisteredAccount);
        const BY_DEVICE: Interest = Interest::Explicit(Authority::CreatedDevice);
        const GRANTED: Interest = Interest::Implicit(Consent::Granted);
        const OWN_ACCOUNT: Interest = Interest::Implicit(Consent::OwnAccount);
        let cases: &[Case] = &[
            (
                "an exclusive user",
                device("@irc_bob:test", "A", None, None, true),
                &[("irc", BY_NAMESPACE), ("mirror", GRANTED)],
            ),
            (
                "the sender",
                device("@ircbot:test", "A", None, Some("irc"), false),
                &[("irc", BY_SENDER), ("mirror", GRANTED)],
            ),
            (
                "a person, observed with consent only",
                device("@alice:test", "A", None, None, true),
                &[("mirror", GRANTED)],
            ),
            (
                "a device the service created for a person",
                device("@alice:test", "B", Some("mirror"), None, false),
                &[("mirror", BY_DEVICE)],
            ),
            (
                "a created device without any namespace",
                device("@alice:test", "C", Some("irc"), None, false),
                &[("irc", BY_DEVICE), ("mirror", GRANTED)],
            ),
            (
                "an account the service registered",
                device("@carol:test", "A", None, Some("nosy"), false),
                &[("mirror", GRANTED), ("nosy", BY_ACCOUNT)],
            ),
            (
                "a person's own login on such an account: seen without a grant, not decided over",
                device("@carol:test", "B", None, Some("nosy"), true),
                &[("mirror", GRANTED), ("nosy", OWN_ACCOUNT)],
            ),
            (
                "the same where no namespace of the service matches any more",
                device("@carol:test", "B", None, Some("irc"), true),
                &[("mirror", GRANTED)],
            ),
            (
                "an account of one service, a device of another",
                device("@carol:test", "C", Some("irc"), Some("nosy"), false),
                &[
                    ("irc", BY_DEVICE),
                    ("mirror", GRANTED),
                    ("nosy", BY_ACCOUNT),
                ],
            ),
        ];
        let interests = interests();
        for (what, to, expected) in cases {
            let expected: Vec<_> = expected
                .iter()
                .map(|(id, interest)| (ServiceId::from(*id), *interest))
                .collect();
            assert_eq!(copies(to, &interests), expected, "{what}");
        }
    }

    #[test]
    fn who_gets_no_copy_is_told_why() {
        let interests = interests();
        let why = |id: &str, to: &Addressed| {
            let service = interests.service(&id.into()).expect("a service");
            (
                interest(
                    interests.claim(&service.id, &to.device.user_id),
                    service,
                    to,
                )
                .err(),
                deliverable(service).err(),
            )
        };
        let (alice, ghost) = (
            device("@alice:test", "A", None, None, true),
            device("@irc_bob:test", "A", None, None, false),
        );
        assert_eq!(why("irc", &alice), (Some(Withheld::NotInterested), None));
        assert_eq!(why("nosy", &alice), (Some(Withheld::NotGranted), None));
        assert_eq!(why("mirror", &alice), (None, None));
        assert_eq!(why("mute", &ghost), (None, Some(Withheld::NoUrl)));
        assert_eq!(why("deaf", &ghost), (None, Some(Withheld::NotAskedFor)));
        let off = compiled(Proposals::default());
        let irc = off.service(&"irc".into()).expect("a service");
        assert_eq!(deliverable(irc), Err(Withheld::ProposalOff));
        assert!(copies(&ghost, &off).is_empty());
    }

    #[test]
    fn a_content_is_an_object_of_at_most_65_536_bytes() {
        let check = |content: &str| {
            let raw = serde_json::value::RawValue::from_string(content.to_owned()).expect("JSON");
            let targets = [(Target::All, raw)].into();
            let bob = ruma::user_id!("@bob:test").to_owned();
            check_contents(&[(bob, targets)].into())
        };
        let sized = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
        assert_eq!(sized(CONTENT).len(), CONTENT);
        assert_eq!(check(&sized(CONTENT)), Ok(()));
        assert!(matches!(
            check(&sized(CONTENT + 1)),
            Err(Refusal::TooLarge(_))
        ));
        for bad in ["[]", "\"{}\"", "1", "null", "true"] {
            assert!(matches!(check(bad), Err(Refusal::BadJson(_))), "{bad}");
        }
    }

    #[test]
    fn a_content_that_would_be_repeated_is_stored_once() {
        let cases = [
            (1, 65_536, false),
            (2, 600, false),
            (2, 4_096, false),
            (2, 4_097, true),
            (1_000, 60, true),
        ];
        for (rows, bytes, shared) in cases {
            assert_eq!(is_shared(rows, bytes), shared, "{rows} of {bytes}");
        }
        assert!(check_recipients(RECIPIENTS).is_ok());
        assert!(matches!(
            check_recipients(RECIPIENTS + 1),
            Err(Refusal::TooLarge(_))
        ));
    }

    #[test]
    fn a_wildcard_is_every_device_and_a_name_beats_it() {
        let devices = [
            device("@alice:test", "A", None, None, true),
            device("@alice:test", "B", None, None, true),
            device("@bob:test", "A", None, None, true),
        ];
        let raw =
            |text: &str| serde_json::value::RawValue::from_string(text.to_owned()).expect("JSON");
        let messages: Messages = [
            (
                ruma::user_id!("@alice:test").to_owned(),
                [
                    (Target::All, raw("1")),
                    (Target::Device("B".into()), raw("2")),
                ]
                .into(),
            ),
            (
                ruma::user_id!("@bob:test").to_owned(),
                [(Target::Device("GONE".into()), raw("3"))].into(),
            ),
            (
                ruma::user_id!("@nobody:test").to_owned(),
                [(Target::All, raw("4"))].into(),
            ),
        ]
        .into();
        let none = Interests::default();
        let got: Vec<_> = fan_out(&messages, &devices, &none)
            .iter()
            .map(|d| (d.to.device.device_id.clone(), d.content.to_owned()))
            .collect();
        assert_eq!(
            got,
            [
                ("A".to_owned(), "1".to_owned()),
                ("B".to_owned(), "2".to_owned())
            ]
        );
    }
}
