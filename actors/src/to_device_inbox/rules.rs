//! Who gets a message, and who gets a copy of it: decided when it arrives, from what is true then.

use schema::accounts::Addressed;
use schema::appservices::has_authority;
use schema::interests::Interests;
use schema::registration::ServiceId;

use super::{Messages, Target};

/// How a service comes by a copy of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interest {
    /// The service decides over the device: its acknowledgement is the device's.
    Explicit,
    /// The service observes the user, with the administrator's consent: the inbox keeps the message.
    Implicit,
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

/// The services that get a copy of a message to this device: those that decide over it, and those that observe its user
/// with the administrator's consent; of both only the ones that would be sent it. ([MSC4203])
///
/// [MSC4203]: https://github.com/matrix-org/matrix-spec-proposals/pull/4203
pub fn copies(to: &Addressed, interests: &Interests) -> Vec<(ServiceId, Interest)> {
    let claimed = interests.in_user(&to.device.user_id);
    let by_row = [to.account_of.as_deref(), to.device.appservice_id.as_deref()];
    let by_row = by_row
        .into_iter()
        .flatten()
        .filter_map(|id| interests.service(&ServiceId::from(id)));
    let mut candidates: Vec<_> = claimed
        .into_iter()
        .map(|(service, _)| service)
        .chain(by_row)
        .collect();
    candidates.sort_by(|a, b| a.id.cmp(&b.id));
    candidates.dedup_by(|a, b| a.id == b.id);
    let interest = |service: &schema::interests::Service| {
        if has_authority(interests, &service.id, to) {
            Some(Interest::Explicit)
        } else {
            (service.observes && interests.claim(&service.id, &to.device.user_id).is_some())
                .then_some(Interest::Implicit)
        }
    };
    candidates
        .into_iter()
        .filter(|service| service.takes_to_device)
        .filter_map(|service| interest(service).map(|interest| (service.id.clone(), interest)))
        .collect()
}

#[cfg(test)]
mod tests {
    use schema::accounts::DeviceRow;
    use schema::interests::Proposals;
    use serde_json::json;

    use super::*;

    fn interests() -> Interests {
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
        ];
        Interests::compile(
            "test",
            all,
            Proposals {
                to_device: true,
                device_lists: true,
                ..Proposals::default()
            },
        )
        .expect("patterns compile")
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
        use Interest::{Explicit, Implicit};
        let cases: &[Case] = &[
            (
                "an exclusive user",
                device("@irc_bob:test", "A", None, None, true),
                &[("irc", Explicit), ("mirror", Implicit)],
            ),
            (
                "the sender",
                device("@ircbot:test", "A", None, Some("irc"), false),
                &[("irc", Explicit), ("mirror", Implicit)],
            ),
            (
                "a person, observed with consent only",
                device("@alice:test", "A", None, None, true),
                &[("mirror", Implicit)],
            ),
            (
                "a device the service created for a person",
                device("@alice:test", "B", Some("mirror"), None, false),
                &[("mirror", Explicit)],
            ),
            (
                "a created device without any namespace",
                device("@alice:test", "C", Some("irc"), None, false),
                &[("irc", Explicit), ("mirror", Implicit)],
            ),
            (
                "an account the service registered",
                device("@carol:test", "A", None, Some("nosy"), false),
                &[("mirror", Implicit), ("nosy", Explicit)],
            ),
            (
                "a person's own login on such an account",
                device("@carol:test", "B", None, Some("nosy"), true),
                &[("mirror", Implicit)],
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
