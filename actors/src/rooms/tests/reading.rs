//! Reading history as far as each user may see it; receipts.

use super::*;

#[actix_rt::test]
async fn marks_move_forward_only() {
    let server = TestServer::new().await;
    let room = server.room("ann", Preset::Private).await;
    let first = server.say("ann", &room, "1").await.expect("sent");
    let second = server.say("ann", &room, "2").await.expect("sent");
    for event in [&second, &first] {
        let marks = [
            ReadMarkerKind::Read,
            ReadMarkerKind::ReadPrivate,
            ReadMarkerKind::FullyRead,
        ]
        .map(|kind| ReadMarker {
            kind,
            event: event.to_string(),
            thread: String::new(),
        })
        .into();
        ask(
            &server.actors.rooms,
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
    let (receipts, marker) = server
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
        refusal(ask(&server.actors.rooms, stranger).await),
        Refusal::Forbidden(_)
    ));
}

#[actix_rt::test]
async fn past_state_is_the_state_at_that_time() {
    let server = TestServer::new().await;
    let room = server.room("ann", Preset::Public).await;
    server
        .set("ann", &room, "m.room.name", json!({"name": "old"}))
        .await
        .expect("set");
    let then = server.actors.env.store.head();
    server
        .set("ann", &room, "m.room.name", json!({"name": "new"}))
        .await
        .expect("set");
    server.join("bob", &room).await.expect("joined");
    let id = room.to_string();
    let (old, since, now) = server
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

async fn page(
    server: &TestServer,
    name: &str,
    room: &RoomId,
    backwards: bool,
    from: Option<&str>,
    limit: usize,
) -> Result<queries::HistoryPage> {
    let page = queries::HistoryCriteria {
        from: from.map(|t| rules::parse_token(t).expect("a token")),
        to: None,
        backwards,
        limit,
        filter: serde_json::from_str(r#"{"types":["m.room.message"]}"#).expect("a filter"),
    };
    queries::messages(&server.actors.env, &by(name), room, page).await
}

fn bodies(shown: &[Box<serde_json::value::RawValue>]) -> Vec<String> {
    shown
        .iter()
        .map(|event| {
            let event: Value = serde_json::from_str(event.get()).expect("JSON");
            event["content"]["body"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        })
        .collect()
}

#[actix_rt::test]
async fn pages_cover_all_of_the_history_in_both_directions() {
    let server = TestServer::new().await;
    let room = server.room("ann", Preset::Private).await;
    let texts: Vec<String> = (0..25).map(|n| format!("m{n}")).collect();
    for text in &texts {
        server.say("ann", &room, text).await.expect("sent");
        server
            .set("ann", &room, "m.room.topic", json!({"topic": text}))
            .await
            .expect("set");
    }
    for limit in [1, 7, 25, 100] {
        for backwards in [false, true] {
            let (mut all, mut from, mut pages) = (Vec::new(), None::<String>, 0);
            loop {
                let messages = page(&server, "ann", &room, backwards, from.as_deref(), limit)
                    .await
                    .expect("a page");
                assert!(from.is_none() || from.as_deref() == Some(messages.start.as_str()));
                all.extend(bodies(&messages.chunk));
                from = messages.end;
                pages += 1;
                if from.is_none() || pages > 100 {
                    break;
                }
            }
            if backwards {
                all.reverse();
            }
            assert_eq!(all, texts, "limit {limit}, backwards {backwards}");
        }
    }
}

#[actix_rt::test]
async fn a_user_that_left_sees_the_history_until_its_leave() {
    let server = TestServer::new().await;
    let room = server.room("ann", Preset::Public).await;
    server.say("ann", &room, "early").await.expect("sent");
    server.join("bob", &room).await.expect("joined");
    server.say("ann", &room, "with").await.expect("sent");
    server
        .act("bob", Action::Leave, "bob", &room)
        .await
        .expect("left");
    let late = server.say("ann", &room, "late").await.expect("sent");
    server
        .set("ann", &room, "m.room.name", json!({"name": "late"}))
        .await
        .expect("set");

    let env = &server.actors.env;
    let seen = page(&server, "bob", &room, true, None, 10)
        .await
        .expect("a page");
    assert_eq!(bodies(&seen.chunk), ["with", "early"]);
    assert!(matches!(
        refusal(queries::event(env, &by("bob"), &room, &late).await),
        Refusal::NotFound(_)
    ));
    assert!(queries::event(env, &by("ann"), &room, &late).await.is_ok());
    let names = queries::state_event(env, &by("bob"), &room, "m.room.name", "").await;
    assert!(matches!(refusal(names), Refusal::NotFound(_)));
    assert!(
        queries::state_event(env, &by("ann"), &room, "m.room.name", "")
            .await
            .is_ok()
    );
    let before = queries::state(env, &by("bob"), &room).await.expect("state");
    let after = queries::state(env, &by("ann"), &room).await.expect("state");
    assert_eq!(before.len() + 1, after.len());
    assert!(matches!(
        refusal(queries::joined_members(env, &by("bob"), &room).await),
        Refusal::Forbidden(_)
    ));
    for stranger in ["eve", "bob"] {
        let seen = page(&server, stranger, &room, true, None, 10).await;
        assert_eq!(seen.is_err(), stranger == "eve");
    }
    // A world-readable room can be read by eve, who is not a member.
    let open = json!({"history_visibility": "world_readable"});
    server
        .set("ann", &room, "m.room.history_visibility", open)
        .await
        .expect("set");
    server.say("ann", &room, "open").await.expect("sent");
    assert_eq!(
        bodies(
            &page(&server, "eve", &room, true, None, 10)
                .await
                .expect("a page")
                .chunk
        ),
        ["open"]
    );
}

/// Clause: cs.rooms.annotation-once
#[actix_rt::test]
async fn an_event_has_a_context_and_related_events() {
    let server = TestServer::new().await;
    let room = server.room("ann", Preset::Private).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(
            server
                .say("ann", &room, &format!("m{n}"))
                .await
                .expect("sent"),
        );
    }
    let env = &server.actors.env;
    let around = queries::context(env, &by("ann"), &room, &ids[2], 4, Default::default())
        .await
        .expect("context");
    assert_eq!(
        (bodies(&around.before), bodies(&around.after)),
        (
            vec!["m1".to_owned(), "m0".to_owned()],
            vec!["m3".to_owned(), "m4".to_owned()]
        )
    );
    assert!(
        page(&server, "ann", &room, true, Some(&around.start), 10)
            .await
            .expect("a page")
            .chunk
            .is_empty()
    );

    let react = |txn: &str, key: &str| SendEvent {
        by: by("ann"),
        room: room.clone(),
        kind: "m.reaction".to_owned(),
        txn: txn.into(),
        content: raw(
            &json!({"m.relates_to": {"event_id": ids[0], "rel_type": "m.annotation", "key": key}}),
        ),
        at: None,
    };
    let first = ask(&server.actors.rooms, react("a", "👍"))
        .await
        .expect("sent");
    assert_eq!(
        refusal(ask(&server.actors.rooms, react("b", "👍")).await),
        Refusal::DuplicateAnnotation
    );
    ask(&server.actors.rooms, react("c", "👎"))
        .await
        .expect("another");
    let all = queries::HistoryCriteria {
        from: None,
        to: None,
        backwards: true,
        limit: 1,
        filter: Default::default(),
    };
    let which = queries::Related {
        rel_type: Some("m.annotation".to_owned()),
        kind: None,
        recurse: false,
    };
    let newest = queries::related(env, &by("ann"), &room, &ids[0], which.clone(), all.clone())
        .await
        .expect("related");
    assert!(newest.chunk[0].get().contains("👎"));
    let next = queries::HistoryCriteria {
        from: newest.end.map(|t| rules::parse_token(&t).expect("a token")),
        ..all
    };
    let rest = queries::related(env, &by("ann"), &room, &ids[0], which, next)
        .await
        .expect("related");
    assert!(rest.chunk[0].get().contains("👍") && rest.end.is_none());
    // A redacted annotation may be sent again.
    let redact = Redact {
        by: by("ann"),
        room: room.clone(),
        event: first,
        txn: "r".into(),
        content: raw(&json!({})),
    };
    ask(&server.actors.rooms, redact).await.expect("redacted");
    ask(&server.actors.rooms, react("d", "👍"))
        .await
        .expect("said again");
}

#[actix_rt::test]
async fn the_directory_lists_the_largest_first() {
    let server = TestServer::new().await;
    let mut rooms = Vec::new();
    for (name, members) in [("tea", 1), ("coffee", 3), ("water", 2)] {
        let request = CreateRoom {
            public: true,
            name: Some(name.to_owned()),
            ..CreateRoom::new(by("ann"))
        };
        let room = server.create(request).await.expect("a room");
        for n in 1..members {
            server.join(&format!("u{n}"), &room).await.expect("joined");
        }
        rooms.push(room);
    }
    let env = &server.actors.env;
    let (mut seen, mut since) = (Vec::new(), None);
    loop {
        let page =
            queries::public_rooms(env, queries::DirectoryCriteria::default(), since, Some(1))
                .await
                .expect("a page");
        assert_eq!(page.total, 3);
        seen.extend(page.chunk.into_iter().filter_map(|r| r.name));
        since = page.next;
        if since.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["coffee", "water", "tea"]);
    let tea = queries::DirectoryCriteria {
        search: Some("TEA".to_owned()),
        ..queries::DirectoryCriteria::default()
    };
    let found = queries::public_rooms(env, tea, None, None)
        .await
        .expect("a page");
    assert_eq!((found.chunk.len(), found.next), (1, None));
    let hide = |name: &str| SetListed {
        by: by(name),
        room: rooms[0].clone(),
        listed: false,
    };
    assert!(matches!(
        refusal(ask(&server.actors.rooms, hide("u1")).await),
        Refusal::Forbidden(_)
    ));
    ask(&server.actors.rooms, hide("ann"))
        .await
        .expect("hidden");
    assert!(!queries::is_listed(env, &rooms[0]).await.expect("known"));
}

#[actix_rt::test]
async fn a_service_reads_where_one_of_its_users_is() {
    let server = TestServer::new().await;
    server.services(&[("irc", "@irc_.*")]).await;
    let room = server.room("ann", Preset::Public).await;
    let bot = Identity {
        user: user("ircbot"),
        device: None,
        appservice: Some("irc".into()),
    };
    let env = &server.actors.env;
    assert!(matches!(
        refusal(queries::joined_members(env, &bot, &room).await),
        Refusal::Forbidden(_)
    ));
    server.join("irc_bob", &room).await.expect("joined");
    let joined = queries::joined_members(env, &bot, &room)
        .await
        .expect("members");
    assert_eq!(joined.len(), 2);
    assert!(queries::state(env, &bot, &room).await.is_ok());
    let all = queries::members(env, &bot, &room, queries::MemberCriteria::default())
        .await
        .expect("members");
    assert_eq!(all.len(), 2);
    let gone = queries::MemberCriteria {
        with: Some("leave".to_owned()),
        ..Default::default()
    };
    assert!(
        queries::members(env, &bot, &room, gone)
            .await
            .expect("members")
            .is_empty()
    );
}
