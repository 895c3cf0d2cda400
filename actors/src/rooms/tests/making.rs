//! Creating events, and refusals.

use super::*;

#[actix_rt::test]
async fn both_room_versions_create_valid_events_in_a_line() {
    let server = TestServer::new().await;
    for version in ["11", "12"] {
        let request = CreateRoom {
            version: Some(version.to_owned()),
            name: Some("Tea".to_owned()),
            invite: vec![user("bob")],
            is_direct: true,
            ..CreateRoom::new(by("ann"))
        };
        let room = server.create(request).await.expect("a room");
        server.say("ann", &room, version).await.expect("sent");
        let id = room.to_string();
        let all = server
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
        let rules = rules::rules_of(version).expect("rules");
        let env = &server.actors.env;
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
        let row = server
            .read(move |db| rooms::room(db, &id))
            .await
            .expect("a row");
        assert_eq!((row.joined, row.invited, row.depth), (1, 1, 9));
        assert_eq!(Some(row.tip), previous);
    }
}

#[actix_rt::test]
async fn a_room_is_created_completely_or_not_at_all() {
    let server = TestServer::new().await;
    let head = server.actors.env.store.head();
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
    for (request, expected) in refused {
        assert_eq!(refusal(server.create(request).await), expected);
    }
    let creators_named = CreateRoom {
        version: Some("12".to_owned()),
        power_levels: Some(raw(&json!({"users": {"@ann:test": 100}}))),
        ..ann()
    };
    assert!(matches!(
        refusal(server.create(creators_named).await),
        Refusal::InvalidRoomState(_)
    ));
    let floats = CreateRoom {
        initial_state: vec![state("x", json!({"a": 1.5}))],
        ..ann()
    };
    assert!(matches!(
        refusal(server.create(floats).await),
        Refusal::BadJson(_)
    ));
    let kept = server
        .read(move |db| {
            events::at(
                db,
                &(1..100).map(|n| Position(head.0 + n)).collect::<Vec<_>>(),
            )
        })
        .await;
    assert!(kept.is_empty(), "{kept:?}");
    assert!(
        server
            .read(|db| memberships::of_user(db, "@ann:test", "join", "", 10))
            .await
            .is_empty()
    );
}

/// Clause: cs.api.transaction-id
#[actix_rt::test]
async fn a_repeated_transaction_id_gets_the_same_answer() {
    let server = TestServer::new().await;
    let room = server.room("ann", Preset::Public).await;
    server.join("bob", &room).await.expect("joined");
    let first = server.say("ann", &room, "txn1").await.expect("sent");
    assert_eq!(server.say("ann", &room, "txn1").await.expect("sent"), first);
    let other = server.say("bob", &room, "txn1").await.expect("sent");
    assert_ne!(other, first, "another sender's id is another");
    assert_eq!(server.event(&first).await.txn_id.as_deref(), Some("txn1"));
    // The same state again is the same event.
    let name = json!({"name": "x"});
    let named = server
        .set("ann", &room, "m.room.name", name.clone())
        .await
        .expect("set");
    assert_eq!(
        server
            .set("ann", &room, "m.room.name", name)
            .await
            .expect("set"),
        named
    );
    let renamed = server
        .set("ann", &room, "m.room.name", json!({"name": "y"}))
        .await
        .expect("set");
    assert_eq!(
        server.event(&renamed).await.replaces.as_deref(),
        Some(named.as_str())
    );
}

/// Clause: cs.rooms.redaction
#[actix_rt::test]
async fn a_redaction_removes_the_content() {
    let server = TestServer::new().await;
    let room = server.room("ann", Preset::Public).await;
    for name in ["bob", "eve"] {
        server.join(name, &room).await.expect("joined");
    }
    let redact = |name: &str, event: &EventId, txn: &str| Redact {
        by: by(name),
        room: room.clone(),
        event: event.to_owned(),
        txn: txn.into(),
        content: raw(&json!({"reason": "tidy", "org.example.by": "a bridge"})),
    };
    let message = server.say("bob", &room, "secret").await.expect("sent");
    let not_hers = ask(&server.actors.rooms, redact("eve", &message, "1")).await;
    assert!(matches!(refusal(not_hers), Refusal::Forbidden(_)));
    let done = ask(&server.actors.rooms, redact("bob", &message, "1"))
        .await
        .expect("redacted");
    let again = ask(&server.actors.rooms, redact("bob", &message, "1"))
        .await
        .expect("redacted");
    assert_eq!(done, again);
    let row = server.event(&message).await;
    assert_eq!(row.redacted_by.as_deref(), Some(done.as_str()));
    assert!(!row.pdu.contains("secret"));
    let rules = rules::rules_of("11").expect("rules");
    let object = serde_json::from_str(&row.pdu).expect("canonical JSON");
    let hash = ruma::signatures::reference_hash(&object, &rules).expect("a hash");
    assert_eq!(
        row.event_id,
        format!("${hash}"),
        "a redacted event keeps its id"
    );

    let by_ann = server.say("bob", &room, "rude").await.expect("sent");
    ask(&server.actors.rooms, redact("ann", &by_ann, "2"))
        .await
        .expect("she has the level");
    let shown = server
        .read(move |db| {
            let row = events::by_id(db, by_ann.as_str())?
                .into_iter()
                .collect::<Vec<_>>();
            let format = rules::format::EventFormat {
                room_id: true,
                now: Some(1_500),
                ..Default::default()
            };
            Ok(queries::client_events(db, &row, &["join"], &format).expect("dressed"))
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
    let nothing = ask(&server.actors.rooms, redact("ann", &missing, "3")).await;
    assert!(matches!(refusal(nothing), Refusal::NotFound(_)));
}

/// Clause: cs.api.event-size
#[actix_rt::test]
async fn events_that_are_too_large_or_malformed_change_nothing() {
    let server = TestServer::new().await;
    let room = server.room("ann", Preset::Private).await;
    let head = server.actors.env.store.head();
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
    type Expected = fn(&Refusal) -> bool;
    let cases: [(&str, &str, Expected); 8] = [
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
        let refused = refusal(ask(&server.actors.rooms, send(kind, content)).await);
        assert!(expected(&refused), "{kind:.20} {content:.20}: {refused:?}");
    }
    let id = room.to_string();
    let more = server
        .read(move |db| events::oldest_first(db, &id, head, Position(i64::MAX), 10))
        .await;
    assert!(more.is_empty());
}

#[test]
fn stored_events_have_the_form_that_the_rules_read() {
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
    let rules = rules::rules_of("12").expect("rules");
    let judged = rules::judged::Judged::stored(&row, &rules).expect("judged");
    assert!(
        judged.room_id().is_none(),
        "the create event of version 12 names no room"
    );
    let powers =
        rules::power::Powers::new(Some(judged), None, &rules.authorization).expect("powers");
    assert_eq!(powers.of(&user("ann")), rules::power::INFINITE);
    assert_eq!(powers.of(&user("bob")), 0);
}

/// PostgreSQL cannot store or compare U+0000, so every text with it must be refused before it reaches the database.
#[actix_rt::test]
async fn no_nul_reaches_the_database() {
    let server = TestServer::new().await;
    let room = server.room("ann", Preset::Public).await;
    for name in ["@a\0b:test", "#a\0b:test", "!a\0b:test"] {
        let parsed = [
            UserId::parse(name).is_ok(),
            ruma::RoomAliasId::parse(name).is_ok(),
            RoomId::parse(name).is_ok(),
        ];
        assert_eq!(parsed, [false; 3], "{name:?}");
    }
    let named = CreateRoom {
        alias: Some("a\0b".to_owned()),
        ..CreateRoom::new(by("ann"))
    };
    assert!(matches!(
        refusal(server.create(named).await),
        Refusal::InvalidParam(_)
    ));
    let event = EventId::parse("$a\0b").expect("ruma takes it");
    let redact = Redact {
        by: by("ann"),
        room: room.clone(),
        event: event.clone(),
        txn: "r".into(),
        content: raw(&json!({})),
    };
    let redacted = ask(&server.actors.rooms, redact).await;
    assert!(matches!(
        refusal(redacted),
        Refusal::InvalidParam(_) | Refusal::NotFound(_)
    ));
    let rule = json!({"join_rule": "restricted",
        "allow": [{"type": "m.room_membership", "room_id": "!a\0b:test"}]});
    server
        .set("ann", &room, "m.room.join_rules", rule)
        .await
        .expect("set");
    assert!(matches!(
        refusal(server.join("bob", &room).await),
        Refusal::Forbidden(_)
    ));
    let message =
        json!({"body": "x", "m.relates_to": {"rel_type": "m.thread", "event_id": "$a\0b"}});
    let message = SendEvent {
        by: by("ann"),
        room: room.clone(),
        kind: "m.room.message".to_owned(),
        txn: "t".into(),
        content: raw(&message),
        at: None,
    };
    ask(&server.actors.rooms, message)
        .await
        .expect("content may hold anything");
    let member = SetState {
        by: by("ann"),
        room: room.clone(),
        kind: "m.room.member".to_owned(),
        state_key: "@bob:test".to_owned(),
        content: raw(&json!({"membership": "invite", "displayname": "a\0b"})),
        at: None,
    };
    assert!(matches!(
        refusal(ask(&server.actors.rooms, member).await),
        Refusal::InvalidParam(_)
    ));
    let token = json!({"membership": "invite", "third_party_invite": {"signed": {"token": "a\0b", "mxid": "@bob:test", "signatures": {}}}});
    let invite = SetState {
        by: by("ann"),
        room: room.clone(),
        kind: "m.room.member".to_owned(),
        state_key: "@bob:test".to_owned(),
        content: raw(&token),
        at: None,
    };
    assert!(matches!(
        refusal(ask(&server.actors.rooms, invite).await),
        Refusal::Forbidden(_)
    ));
    let marks = vec![ReadMarker {
        kind: ReadMarkerKind::Read,
        event: event.to_string(),
        thread: String::new(),
    }];
    let by = by("ann");
    let marked = ask(&server.actors.rooms, MarkRead { by, room, marks }).await;
    assert!(matches!(refusal(marked), Refusal::InvalidParam(_)));
}
