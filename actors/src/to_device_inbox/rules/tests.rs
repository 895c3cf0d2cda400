//! Tests of the rules.

use schema::accounts::DeviceRow;
use serde_json::json;

use crate::services::Proposals;

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
    Interests::compile("test", all, &proposals).expect("patterns compile")
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

/// A description, the device, and the appservices that get a copy.
type Case = (&'static str, Addressed, &'static [(&'static str, Interest)]);

/// Clause: as.to-device.created-device
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

/// Clause: as.to-device.opt-in
#[test]
fn a_service_without_a_copy_has_a_reason() {
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
fn a_large_content_with_several_recipients_is_stored_once() {
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

/// Clause: cs.to-device.devices
#[test]
fn a_wildcard_addresses_every_device_except_those_addressed_by_name() {
    let devices = [
        device("@alice:test", "A", None, None, true),
        device("@alice:test", "B", None, None, true),
        device("@bob:test", "A", None, None, true),
    ];
    let raw = |text: &str| serde_json::value::RawValue::from_string(text.to_owned()).expect("JSON");
    let messages: ToDeviceMessages = [
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
