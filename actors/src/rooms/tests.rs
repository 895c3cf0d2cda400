//! The actor on a real store.

use std::collections::BTreeSet;
use std::sync::Arc;

use ruma::state_res::Event as _;
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use schema::events::EventRow;
use schema::interests::{Interests, Proposals};
use schema::{
    Options, Position, Store, accounts, aliases, appservices, events, memberships, rooms,
};
use serde_json::{Value, json};

use super::*;
use crate::start::{Parts, start};
use crate::trace::Trace;
use crate::wire::Hooks;
use crate::{Actors, Clock, Identity, Ids, Refusal, Settings, ask};

struct House {
    actors: Actors,
    _folder: tempfile::TempDir,
}

fn user(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:test")).expect("a user id")
}

fn by(name: &str) -> Identity {
    Identity {
        user: user(name),
        device: Some("DEV".into()),
        appservice: None,
    }
}

fn raw(value: &Value) -> Box<serde_json::value::RawValue> {
    serde_json::value::to_raw_value(value).expect("JSON")
}

fn refusal<T>(result: Result<T>) -> Refusal {
    match result {
        Err(Error::Refused(refusal)) => refusal,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("was not refused"),
    }
}

impl House {
    async fn new() -> House {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("db").display());
        let actors = start(Parts {
            store: Store::open(&url, &Options::default()).expect("a store"),
            clock: Clock::manual(1_000),
            ids: Ids::counted(7),
            trace: Trace::new(0),
            settings: Settings {
                server_name: "test".try_into().expect("a name"),
                observe: None,
                proposals: Proposals::default(),
                password_cost: (8, 1),
                default_room_version: "11".to_owned(),
                open_registration: true,
            },
            hooks: Hooks::default(),
            appservices: None,
            fatal: Arc::new(|why| panic!("{why}")),
        })
        .await
        .expect("actors");
        House {
            actors,
            _folder: folder,
        }
    }

    /// Services by id and the users they claim.
    async fn services(&self, all: &'static [(&'static str, &'static str)]) {
        let registrations = all
            .iter()
            .map(|(id, users)| {
                let value = json!({"id": id, "url": "http://localhost:9", "as_token": id, "hs_token": id,
                    "sender_localpart": format!("{id}bot"),
                    "namespaces": {"users": [{"exclusive": true, "regex": users}],
                                   "aliases": [{"exclusive": true, "regex": format!("#{id}_.*")}]}});
                (serde_json::from_value(value).expect("a registration"), false)
            })
            .collect();
        let interests =
            Interests::compile("test", registrations, Proposals::default()).expect("patterns");
        self.actors
            .env
            .store
            .write_alone(|tx| {
                tx.swap_interests(interests);
                Ok::<_, Error>(())
            })
            .await
            .expect("swapped");
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut schema::Conn) -> schema::Result<T> + Send + 'static,
    ) -> T {
        self.actors.env.store.read(read).await.expect("a read")
    }

    async fn create(&self, wishes: CreateRoom) -> Result<OwnedRoomId> {
        ask(&self.actors.rooms, wishes).await
    }

    async fn room(&self, creator: &str, preset: Preset) -> OwnedRoomId {
        let wishes = CreateRoom {
            preset: Some(preset),
            ..CreateRoom::new(by(creator))
        };
        self.create(wishes).await.expect("a room")
    }

    async fn say(&self, name: &str, room: &RoomId, text: &str) -> Result<OwnedEventId> {
        let message = SendEvent {
            by: by(name),
            room: room.to_owned(),
            kind: "m.room.message".to_owned(),
            txn: text.into(),
            content: raw(&json!({"msgtype": "m.text", "body": text})),
            at: None,
        };
        ask(&self.actors.rooms, message).await
    }

    async fn set(
        &self,
        name: &str,
        room: &RoomId,
        kind: &str,
        content: Value,
    ) -> Result<OwnedEventId> {
        let message = SetState {
            by: by(name),
            room: room.to_owned(),
            kind: kind.to_owned(),
            state_key: String::new(),
            content: raw(&content),
            at: None,
        };
        ask(&self.actors.rooms, message).await
    }

    async fn join(&self, name: &str, room: &RoomId) -> Result<OwnedRoomId> {
        let message = Enter {
            by: by(name),
            room: room.to_owned().into(),
            how: Entrance::Join,
            reason: None,
        };
        ask(&self.actors.rooms, message).await
    }

    async fn act(&self, name: &str, action: Action, target: &str, room: &RoomId) -> Result<()> {
        let message = ChangeMembership {
            by: by(name),
            room: room.to_owned(),
            user: user(target),
            action,
            reason: None,
        };
        ask(&self.actors.rooms, message).await
    }

    async fn event(&self, id: &EventId) -> EventRow {
        let id = id.to_string();
        self.read(move |db| events::by_id(db, &id))
            .await
            .expect("an event")
    }

    async fn membership(&self, room: &RoomId, name: &str) -> String {
        let (room, user) = (room.to_string(), user(name).to_string());
        self.read(move |db| memberships::get(db, &room, &user))
            .await
            .map(|m| m.membership)
            .unwrap_or_default()
    }

    /// The events that a service is owed, by type and body or membership.
    async fn owed(&self, service: &'static str) -> Vec<EventRow> {
        self.read(move |db| {
            let owed = appservices::owed_events(db, &service.into(), Position(i64::MAX), 1000)?;
            events::at(db, &owed)
        })
        .await
    }
}

#[actix_rt::test]
async fn both_versions_make_true_events_in_a_line() {
    let house = House::new().await;
    for version in ["11", "12"] {
        let wishes = CreateRoom {
            version: Some(version.to_owned()),
            name: Some("Tea".to_owned()),
            invite: vec![user("bob")],
            is_direct: true,
            ..CreateRoom::new(by("ann"))
        };
        let room = house.create(wishes).await.expect("a room");
        house.say("ann", &room, version).await.expect("sent");
        let id = room.to_string();
        let all = house
            .read(move |db| events::oldest_first(db, &id, Position::START, Position(i64::MAX), 100))
            .await;
        let kinds: Vec<&str> = all.iter().map(|e| e.kind.as_str()).collect();
        assert_eq!(
            kinds,
            [
                "m.room.create",
                "m.room.member",
                "m.room.power_levels",
                "m.room.join_rules",
                "m.room.history_visibility",
                "m.room.guest_access",
                "m.room.name",
                "m.room.member",
                "m.room.message"
            ]
        );
        let rules = pdu::rules_of(version).expect("rules");
        let env = &house.actors.env;
        let keys = [(
            "test".to_owned(),
            [(
                "ed25519:1".to_owned(),
                ruma::serde::Base64::new(env.signing_key.public_key().to_vec()),
            )]
            .into(),
        )]
        .into();
        let mut previous: Option<String> = None;
        for (depth, event) in all.iter().enumerate() {
            let object = serde_json::from_str(&event.pdu).expect("canonical JSON");
            ruma::signatures::verify_event(&keys, &object, &rules).expect("signed and hashed");
            ruma::state_res::check_pdu_format(&object, &rules.event_format).expect("well formed");
            let hash = ruma::signatures::reference_hash(&object, &rules).expect("a hash");
            assert_eq!(event.event_id, format!("${hash}"));
            let pdu: Value = serde_json::from_str(&event.pdu).expect("JSON");
            assert_eq!(pdu["depth"], json!(depth + 1));
            let expected: Vec<&String> = previous.iter().collect();
            assert_eq!(pdu["prev_events"], json!(expected));
            let names_create = pdu["auth_events"]
                .as_array()
                .expect("a list")
                .contains(&json!(all[0].event_id));
            assert_eq!(names_create, version == "11" && depth > 0);
            previous = Some(event.event_id.clone());
        }
        assert_eq!(all[7].state_key.as_deref(), Some("@bob:test"));
        assert!(all[7].pdu.contains(r#""is_direct":true"#));
        assert_eq!(version == "12", room.server_name().is_none());
        let id = room.to_string();
        let row = house
            .read(move |db| rooms::room(db, &id))
            .await
            .expect("a row");
        assert_eq!((row.joined, row.invited, row.depth), (1, 1, 9));
        assert_eq!(Some(row.tip), previous);
    }
}

#[actix_rt::test]
async fn a_room_is_made_whole_or_not_at_all() {
    let house = House::new().await;
    let head = house.actors.env.store.head();
    let state = |kind: &str, content: Value| InitialState {
        kind: kind.to_owned(),
        state_key: String::new(),
        content: raw(&content),
    };
    let ann = || CreateRoom::new(by("ann"));
    let refused = [
        (
            CreateRoom {
                version: Some("10".to_owned()),
                ..ann()
            },
            Refusal::UnsupportedRoomVersion("10".to_owned()),
        ),
        (
            CreateRoom {
                initial_state: vec![state("m.room.create", json!({}))],
                ..ann()
            },
            Refusal::InvalidRoomState("`m.room.create` event cannot have previous events".into()),
        ),
        (
            CreateRoom {
                invite: vec![user("bob"), "@eve:elsewhere".try_into().expect("an id")],
                ..ann()
            },
            Refusal::Forbidden("this server does not federate".into()),
        ),
    ];
    for (wishes, expected) in refused {
        assert_eq!(refusal(house.create(wishes).await), expected);
    }
    let creators_named = CreateRoom {
        version: Some("12".to_owned()),
        power_levels: Some(raw(&json!({"users": {"@ann:test": 100}}))),
        ..ann()
    };
    assert!(matches!(
        refusal(house.create(creators_named).await),
        Refusal::InvalidRoomState(_)
    ));
    let floats = CreateRoom {
        initial_state: vec![state("x", json!({"a": 1.5}))],
        ..ann()
    };
    assert!(matches!(
        refusal(house.create(floats).await),
        Refusal::BadJson(_)
    ));
    let kept = house
        .read(move |db| {
            events::at(
                db,
                &(1..100).map(|n| Position(head.0 + n)).collect::<Vec<_>>(),
            )
        })
        .await;
    assert!(kept.is_empty(), "{kept:?}");
    assert!(
        house
            .read(|db| memberships::of_user(db, "@ann:test", "join", "", 10))
            .await
            .is_empty()
    );
}

#[actix_rt::test]
async fn who_may_not_is_told_the_rule() {
    let house = House::new().await;
    let room = house.room("ann", Preset::Private).await;
    house
        .act("ann", Action::Invite, "bob", &room)
        .await
        .expect("invited");
    assert_eq!(
        forbidden(house.say("bob", &room, "hi").await),
        "sender's membership is not `join`"
    );
    assert_eq!(
        forbidden(house.join("eve", &room).await),
        "cannot join a room that is not `public`"
    );
    house.join("bob", &room).await.expect("joined");
    house.join("bob", &room).await.expect("joined already");
    assert_eq!(
        forbidden(
            house
                .set("bob", &room, "m.room.name", json!({"name": "x"}))
                .await
        ),
        "sender does not have enough power to send event of type `m.room.name`"
    );
    let nowhere = RoomId::parse("!none:test").expect("an id");
    assert!(matches!(
        refusal(house.say("bob", &nowhere, "hi").await),
        Refusal::Forbidden(_)
    ));
    assert!(matches!(
        refusal(house.join("bob", &nowhere).await),
        Refusal::NotFound(_)
    ));
    let knock = Enter {
        by: by("eve"),
        room: room.clone().into(),
        how: Entrance::Knock,
        reason: None,
    };
    assert!(matches!(
        refusal(ask(&house.actors.rooms, knock).await),
        Refusal::Forbidden(_)
    ));
}

fn forbidden<T>(result: Result<T>) -> String {
    match refusal(result) {
        Refusal::Forbidden(rule) => rule.into_owned(),
        other => panic!("{other:?}"),
    }
}

/// Each row: who acts, how, what bob is before, and what he is afterwards or that it is refused. Bob's levels are none, ann's all.
#[actix_rt::test]
async fn kick_ban_unban() {
    use Action::{Ban, Invite, Kick, Leave, Unban};
    let house = House::new().await;
    let cases = [
        ("ann", Kick, "join", Some("leave")),
        ("ann", Kick, "invite", Some("leave")),
        ("ann", Kick, "leave", None),
        ("ann", Kick, "ban", None),
        ("ann", Kick, "", None),
        ("ann", Ban, "", Some("ban")),
        ("ann", Ban, "join", Some("ban")),
        ("ann", Ban, "ban", Some("ban")),
        ("ann", Unban, "ban", Some("leave")),
        ("ann", Unban, "leave", None),
        ("ann", Unban, "join", None),
        ("ann", Invite, "ban", None),
        ("ann", Invite, "join", None),
        ("ann", Invite, "leave", Some("invite")),
        ("bob", Leave, "join", Some("leave")),
        ("bob", Leave, "invite", Some("leave")),
        ("bob", Leave, "", None),
        ("bob", Leave, "leave", None),
        ("bob", Leave, "ban", None),
        ("eve", Kick, "join", None),
        ("eve", Ban, "join", None),
        ("eve", Unban, "ban", None),
    ];
    for (actor, action, before, after) in cases {
        let room = house.room("ann", Preset::Private).await;
        house
            .act("ann", Invite, "eve", &room)
            .await
            .expect("invited");
        house.join("eve", &room).await.expect("joined");
        if before == "ban" {
            house.act("ann", Ban, "bob", &room).await.expect("banned");
        } else if !before.is_empty() {
            house
                .act("ann", Invite, "bob", &room)
                .await
                .expect("invited");
            if before != "invite" {
                house.join("bob", &room).await.expect("joined");
            }
            if before == "leave" {
                house.act("bob", Leave, "bob", &room).await.expect("left");
            }
        }
        let done = house.act(actor, action, "bob", &room).await;
        let what = format!("{actor} {action:?} {before:?}");
        assert_eq!(done.is_ok(), after.is_some(), "{what}: {done:?}");
        assert_eq!(
            house.membership(&room, "bob").await,
            after.unwrap_or(before),
            "{what}"
        );
        let id = room.to_string();
        let (row, joined, invited) = house
            .read(move |db| {
                Ok((
                    rooms::room(db, &id)?,
                    memberships::in_room(db, &id, "join", "", 100)?.len(),
                    memberships::in_room(db, &id, "invite", "", 100)?.len(),
                ))
            })
            .await;
        let row = row.expect("a row");
        assert_eq!(
            (row.joined, row.invited),
            (joined as i64, invited as i64),
            "{what}"
        );
    }
}

#[actix_rt::test]
async fn a_transaction_id_is_answered_alike() {
    let house = House::new().await;
    let room = house.room("ann", Preset::Public).await;
    house.join("bob", &room).await.expect("joined");
    let first = house.say("ann", &room, "txn1").await.expect("sent");
    assert_eq!(house.say("ann", &room, "txn1").await.expect("sent"), first);
    let other = house.say("bob", &room, "txn1").await.expect("sent");
    assert_ne!(other, first, "another sender's id is another");
    assert_eq!(house.event(&first).await.txn_id.as_deref(), Some("txn1"));
    // State that says the same again is the same event.
    let name = json!({"name": "x"});
    let named = house
        .set("ann", &room, "m.room.name", name.clone())
        .await
        .expect("set");
    assert_eq!(
        house
            .set("ann", &room, "m.room.name", name)
            .await
            .expect("set"),
        named
    );
    let renamed = house
        .set("ann", &room, "m.room.name", json!({"name": "y"}))
        .await
        .expect("set");
    assert_eq!(
        house.event(&renamed).await.replaces.as_deref(),
        Some(named.as_str())
    );
}

#[actix_rt::test]
async fn redaction_strips_what_was_said() {
    let house = House::new().await;
    let room = house.room("ann", Preset::Public).await;
    for name in ["bob", "eve"] {
        house.join(name, &room).await.expect("joined");
    }
    let redact = |name: &str, event: &EventId, txn: &str| Redact {
        by: by(name),
        room: room.clone(),
        event: event.to_owned(),
        txn: txn.into(),
        reason: Some("tidy".to_owned()),
    };
    let said = house.say("bob", &room, "secret").await.expect("sent");
    let not_hers = ask(&house.actors.rooms, redact("eve", &said, "1")).await;
    assert!(matches!(refusal(not_hers), Refusal::Forbidden(_)));
    let done = ask(&house.actors.rooms, redact("bob", &said, "1"))
        .await
        .expect("redacted");
    let again = ask(&house.actors.rooms, redact("bob", &said, "1"))
        .await
        .expect("redacted");
    assert_eq!(done, again);
    let row = house.event(&said).await;
    assert_eq!(row.redacted_by.as_deref(), Some(done.as_str()));
    assert!(!row.pdu.contains("secret"));
    let rules = pdu::rules_of("11").expect("rules");
    let object = serde_json::from_str(&row.pdu).expect("canonical JSON");
    let hash = ruma::signatures::reference_hash(&object, &rules).expect("a hash");
    assert_eq!(
        row.event_id,
        format!("${hash}"),
        "a redacted event keeps its id"
    );

    let by_ann = house.say("bob", &room, "rude").await.expect("sent");
    ask(&house.actors.rooms, redact("ann", &by_ann, "2"))
        .await
        .expect("she has the level");
    let shown = house
        .read(move |db| {
            let row = events::by_id(db, by_ann.as_str())?
                .into_iter()
                .collect::<Vec<_>>();
            let dress = format::Dress {
                room_id: true,
                now: Some(1_500),
                ..Default::default()
            };
            Ok(queries::dressed(db, &row, &["join"], &dress).expect("dressed"))
        })
        .await;
    let shown: Value = serde_json::from_str(shown[0].get()).expect("JSON");
    assert_eq!(shown["content"], json!({}));
    assert_eq!(shown["unsigned"]["age"], json!(500));
    assert_eq!(shown["unsigned"]["membership"], json!("join"));
    let because = &shown["unsigned"]["redacted_because"];
    assert_eq!(
        (&because["sender"], &because["content"]["reason"]),
        (&json!("@ann:test"), &json!("tidy"))
    );
    assert_eq!(
        because["redacts"], because["content"]["redacts"],
        "at both places"
    );
    let missing = EventId::parse("$none").expect("an id");
    let nothing = ask(&house.actors.rooms, redact("ann", &missing, "3")).await;
    assert!(matches!(refusal(nothing), Refusal::NotFound(_)));
}

#[actix_rt::test]
async fn what_is_too_large_or_malformed_changes_nothing() {
    let house = House::new().await;
    let room = house.room("ann", Preset::Private).await;
    let head = house.actors.env.store.head();
    let send = |kind: &str, content: &str| SendEvent {
        by: by("ann"),
        room: room.clone(),
        kind: kind.to_owned(),
        txn: "t".into(),
        content: serde_json::value::RawValue::from_string(content.to_owned()).expect("JSON"),
        at: None,
    };
    let big = format!(r#"{{"body":"{}"}}"#, "x".repeat(65_536));
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let long = "k".repeat(256);
    let cases: [(&str, &str, fn(&Refusal) -> bool); 8] = [
        ("m.room.message", &big, |r| {
            matches!(r, Refusal::TooLarge(_))
        }),
        (&long, "{}", |r| matches!(r, Refusal::TooLarge(_))),
        ("a\0b", "{}", |r| matches!(r, Refusal::InvalidParam(_))),
        ("", "{}", |r| matches!(r, Refusal::InvalidParam(_))),
        ("m", r#"{"a":1.5}"#, |r| matches!(r, Refusal::BadJson(_))),
        ("m", r#"{"a":9007199254740992}"#, |r| {
            matches!(r, Refusal::BadJson(_))
        }),
        ("m", "[]", |r| matches!(r, Refusal::BadJson(_))),
        ("m", &deep, |r| matches!(r, Refusal::BadJson(_))),
    ];
    for (kind, content, expected) in cases {
        let refused = refusal(ask(&house.actors.rooms, send(kind, content)).await);
        assert!(expected(&refused), "{kind:.20} {content:.20}: {refused:?}");
    }
    let id = room.to_string();
    let more = house
        .read(move |db| events::oldest_first(db, &id, head, Position(i64::MAX), 10))
        .await;
    assert!(more.is_empty());
}

#[actix_rt::test]
async fn a_service_is_owed_what_concerns_its_members() {
    let house = House::new().await;
    house
        .services(&[("irc", "@irc_.*"), ("slack", "@slack_.*")])
        .await;
    let room = house.room("ann", Preset::Public).await;
    house.say("ann", &room, "before").await.expect("sent");
    assert!(house.owed("irc").await.is_empty());
    house
        .act("ann", Action::Invite, "irc_bob", &room)
        .await
        .expect("invited");
    house.say("ann", &room, "between").await.expect("sent");
    house.join("irc_bob", &room).await.expect("joined");
    house.say("ann", &room, "with").await.expect("sent");
    house
        .act("irc_bob", Action::Leave, "irc_bob", &room)
        .await
        .expect("left");
    house.say("ann", &room, "after").await.expect("sent");
    let owed = house.owed("irc").await;
    let said: Vec<String> = owed
        .iter()
        .map(|e| {
            let pdu: Value = serde_json::from_str(&e.pdu).expect("JSON");
            let content = &pdu["content"];
            content
                .get("membership")
                .unwrap_or(&content["body"])
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert_eq!(said, ["invite", "join", "with", "leave"]);
    assert!(house.owed("slack").await.is_empty());

    let positions: Vec<Position> = owed.iter().map(|e| Position(e.position)).collect();
    let interests = house.actors.env.store.interests();
    let shown = house
        .read(move |db| {
            Ok(
                queries::for_appservice(db, &interests, &"irc".into(), &positions, 2_000)
                    .expect("shown"),
            )
        })
        .await;
    let invite: Value = serde_json::from_str(shown[0].1.get()).expect("JSON");
    assert_eq!(invite["room_id"], json!(room));
    let state = invite["unsigned"]["invite_room_state"]
        .as_array()
        .expect("stripped state");
    assert!(state.iter().any(|e| e["type"] == "m.room.create"));
    let leave: Value = serde_json::from_str(shown[3].1.get()).expect("JSON");
    assert_eq!(
        leave["unsigned"]["prev_content"]["membership"],
        json!("join")
    );
}

/// A brute-force twin of interest: after every step, a message is owed to exactly those services that have a joined member.
#[actix_rt::test]
async fn interest_follows_every_membership() {
    let house = House::new().await;
    house
        .services(&[("a", "@a_.*"), ("b", "@b_.*"), ("ab", "@[ab]_.*")])
        .await;
    let room = house.room("ann", Preset::Public).await;
    let names = ["a_1", "a_2", "b_1", "c_1"];
    let mut joined: BTreeSet<&str> = BTreeSet::new();
    // A linear congruence is chance enough, and repeats.
    let mut dice: u64 = 42;
    for step in 0..60 {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let name = names[(dice >> 33) as usize % names.len()];
        let (before, head) = (joined.clone(), house.actors.env.store.head());
        if joined.remove(name) {
            let (who, action) = if dice & (1 << 40) == 0 {
                (name, Action::Leave)
            } else {
                ("ann", Action::Kick)
            };
            house.act(who, action, name, &room).await.expect("gone");
        } else {
            house.join(name, &room).await.expect("joined");
            joined.insert(name);
        }
        house
            .say("ann", &room, &format!("step{step}"))
            .await
            .expect("sent");
        for service in ["a", "b", "ab"] {
            let has_member = |set: &BTreeSet<&str>| set.iter().any(|n| service.contains(&n[..1]));
            let owed = house.owed(service).await;
            let told = |kind: &str| owed.iter().any(|e| e.position > head.0 && e.kind == kind);
            let own = service.contains(&name[..1]);
            assert_eq!(
                (told("m.room.member"), told("m.room.message")),
                (
                    has_member(&before) || has_member(&joined) || own,
                    has_member(&joined)
                ),
                "step {step}: {service}"
            );
        }
    }
}

#[actix_rt::test]
async fn an_alias_belongs_to_who_reserved_it() {
    let house = House::new().await;
    house.services(&[("irc", "@irc_.*")]).await;
    let room = house
        .create(CreateRoom {
            alias: Some("tea".to_owned()),
            ..CreateRoom::new(by("ann"))
        })
        .await
        .expect("a room");
    let taken = CreateRoom {
        alias: Some("tea".to_owned()),
        ..CreateRoom::new(by("ann"))
    };
    assert_eq!(refusal(house.create(taken).await), Refusal::RoomInUse);
    let put = |by: Identity, alias: &str| PutAlias {
        by,
        alias: alias.try_into().expect("an alias"),
        room: room.clone(),
    };
    let rooms = &house.actors.rooms;
    assert_eq!(
        refusal(ask(rooms, put(by("ann"), "#tea:test")).await),
        Refusal::AliasTaken
    );
    assert!(matches!(
        refusal(ask(rooms, put(by("ann"), "#irc_x:test")).await),
        Refusal::Exclusive(_)
    ));
    assert!(matches!(
        refusal(ask(rooms, put(by("eve"), "#x:test")).await),
        Refusal::Forbidden(_)
    ));
    let bot = Identity {
        user: user("ircbot"),
        device: None,
        appservice: Some("irc".into()),
    };
    ask(rooms, put(bot.clone(), "#irc_x:test"))
        .await
        .expect("its own");
    assert!(matches!(
        refusal(ask(rooms, put(bot.clone(), "#x:test")).await),
        Refusal::Exclusive(_)
    ));
    // An alias in its namespace makes the service interested in the room.
    house.say("ann", &room, "hello").await.expect("sent");
    assert_eq!(house.owed("irc").await.len(), 1);
    let delete = |by: Identity, alias: &str| DeleteAlias {
        by,
        alias: alias.try_into().expect("an alias"),
    };
    assert!(matches!(
        refusal(ask(rooms, delete(by("eve"), "#tea:test")).await),
        Refusal::Forbidden(_)
    ));
    assert!(matches!(
        refusal(ask(rooms, delete(by("ann"), "#irc_x:test")).await),
        Refusal::Exclusive(_)
    ));
    ask(rooms, delete(by("ann"), "#tea:test"))
        .await
        .expect("hers");
    ask(rooms, delete(bot, "#irc_x:test"))
        .await
        .expect("its own");
    let left = room.to_string();
    assert!(
        house
            .read(move |db| aliases::of_room(db, &left, 10))
            .await
            .is_empty()
    );
}

#[actix_rt::test]
async fn a_new_name_is_said_in_every_room() {
    let house = House::new().await;
    let (one, two) = (
        house.room("ann", Preset::Public).await,
        house.room("ann", Preset::Public).await,
    );
    house.join("bob", &one).await.expect("joined");
    let write = |tx: &mut Tx<'_>| {
        accounts::register(
            tx,
            &accounts::UserRow {
                display_name: Some("Bob".to_owned()),
                ..accounts::UserRow::new("@bob:test", 1)
            },
        )?;
        Ok::<_, Error>(())
    };
    house
        .actors
        .env
        .store
        .write(write)
        .await
        .expect("registered");
    ask(&house.actors.rooms, ProfileChanged { user: user("bob") })
        .await
        .expect("told");
    house.join("bob", &two).await.expect("joined");
    for room in [one, two] {
        let row = house
            .read(move |db| memberships::get(db, room.as_str(), "@bob:test"))
            .await;
        assert_eq!(row.and_then(|m| m.display_name).as_deref(), Some("Bob"));
    }
}

#[actix_rt::test]
async fn a_member_of_one_room_is_admitted_to_another() {
    let house = House::new().await;
    let (club, hall) = (
        house.room("ann", Preset::Private).await,
        house.room("ann", Preset::Private).await,
    );
    let rule = json!({"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": club}]});
    house
        .set("ann", &hall, "m.room.join_rules", rule)
        .await
        .expect("set");
    assert!(matches!(
        refusal(house.join("bob", &hall).await),
        Refusal::Forbidden(_)
    ));
    house
        .act("ann", Action::Invite, "bob", &club)
        .await
        .expect("invited");
    house.join("bob", &club).await.expect("joined");
    house.join("bob", &hall).await.expect("admitted");
    let id = hall.to_string();
    let event = house
        .read(move |db| events::state(db, &id, "m.room.member", "@bob:test"))
        .await
        .expect("an event");
    assert!(
        event
            .pdu
            .contains(r#""join_authorised_via_users_server":"@ann:test""#)
    );
}

#[actix_rt::test]
async fn marks_move_forward_only() {
    let house = House::new().await;
    let room = house.room("ann", Preset::Private).await;
    let first = house.say("ann", &room, "1").await.expect("sent");
    let second = house.say("ann", &room, "2").await.expect("sent");
    for event in [&second, &first] {
        let marks = [MarkKind::Read, MarkKind::ReadPrivate, MarkKind::FullyRead]
            .map(|kind| Mark {
                kind,
                event: event.clone(),
                thread: String::new(),
            })
            .into();
        ask(
            &house.actors.rooms,
            MarkRead {
                by: by("ann"),
                room: room.clone(),
                marks,
            },
        )
        .await
        .expect("marked");
    }
    let id = room.to_string();
    let (receipts, marker) = house
        .read(move |db| {
            Ok((
                schema::receipts::after(db, &id, Position::START, Position(i64::MAX), 10)?,
                schema::user_data::get(db, "@ann:test", &id, "m.fully_read")?,
            ))
        })
        .await;
    assert_eq!(receipts.len(), 2);
    assert!(receipts.iter().all(|r| r.event_id == second.as_str()));
    assert!(marker.expect("a marker").contains(second.as_str()));
    let stranger = MarkRead {
        by: by("eve"),
        room,
        marks: Vec::new(),
    };
    assert!(matches!(
        refusal(ask(&house.actors.rooms, stranger).await),
        Refusal::Forbidden(_)
    ));
}

#[actix_rt::test]
async fn the_past_has_the_state_it_had() {
    let house = House::new().await;
    let room = house.room("ann", Preset::Public).await;
    house
        .set("ann", &room, "m.room.name", json!({"name": "old"}))
        .await
        .expect("set");
    let then = house.actors.env.store.head();
    house
        .set("ann", &room, "m.room.name", json!({"name": "new"}))
        .await
        .expect("set");
    house.join("bob", &room).await.expect("joined");
    let id = room.to_string();
    let (old, since, now) = house
        .read(move |db| {
            let head = Position(i64::MAX);
            Ok((
                events::state_between(db, &id, Position::START, then, 100)?,
                events::state_between(db, &id, then, head, 100)?,
                events::current_state(db, &id, 100)?,
            ))
        })
        .await;
    let name = |rows: &[EventRow]| {
        rows.iter()
            .find(|e| e.kind == "m.room.name")
            .map(|e| e.pdu.contains("old"))
    };
    assert_eq!(
        (name(&old), name(&since), name(&now)),
        (Some(true), Some(false), Some(false))
    );
    assert_eq!((since.len(), now.len()), (2, old.len() + 1));
}

#[test]
fn what_the_rules_look_at() {
    let row = EventRow {
        position: 1,
        event_id: "$c".to_owned(),
        room_id: "!c".to_owned(),
        kind: "m.room.create".to_owned(),
        state_key: Some(String::new()),
        sender: "@ann:test".to_owned(),
        origin_server_ts: 5,
        pdu: r#"{"content":{"room_version":"12"}}"#.to_owned(),
        replaces: None,
        redacted_by: None,
        device_id: None,
        txn_id: None,
    };
    let rules = pdu::rules_of("12").expect("rules");
    let judged = pdu::Judged::stored(&row, &rules).expect("judged");
    assert!(
        judged.room_id().is_none(),
        "the create event of version 12 names no room"
    );
    let powers = power::Powers::new(Some(judged), None, &rules.authorization).expect("powers");
    assert_eq!(powers.of(&user("ann")), power::INFINITE);
    assert_eq!(powers.of(&user("bob")), 0);
}
