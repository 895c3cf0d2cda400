//! Rooms in an answer, and device lists.

use super::*;

/// Clause: cs.rooms.invite-state
#[actix::test]
async fn an_invite_a_join_and_a_leave_are_answered() {
    let server = TestServer::new().await;
    let room = server.room("ann").await;
    server.say("ann", &room, "before").await;
    let first = server.sync("bob", None).await;
    let waiting = server.wait("bob", next(&first)).await;
    server.act("ann", Action::Invite, "bob", &room).await;
    let invited = waiting.await.expect("an answer");
    let state = &invited["rooms"]["invite"][room.as_str()]["invite_state"]["events"];
    let kinds: Vec<&str> = state
        .as_array()
        .expect("events")
        .iter()
        .filter_map(|e| e["type"].as_str())
        .collect();
    assert!(
        kinds.contains(&"m.room.create") && kinds.contains(&"m.room.member"),
        "{kinds:?}"
    );

    server.join("bob", &room).await;
    let joined = server.sync("bob", Some(next(&invited))).await;
    assert!(
        timeline(&joined, "join", &room).contains(&"before".to_owned()),
        "history is shared"
    );
    assert_eq!(joined["device_lists"]["changed"], json!(["@ann:test"]));
    let again = server.sync("bob", Some(next(&joined))).await;
    assert!(again.get("rooms").is_none() && again.get("device_lists").is_none());

    server.act("bob", Action::Leave, "bob", &room).await;
    server.say("ann", &room, "after").await;
    let left = server.sync("bob", Some(next(&joined))).await;
    assert_eq!(timeline(&left, "leave", &room), ["m.room.member"]);
    assert_eq!(left["device_lists"], json!({"left": ["@ann:test"]}));
    assert!(
        server
            .sync("bob", Some(next(&left)))
            .await
            .get("rooms")
            .is_none()
    );
    assert!(
        server.sync("bob", None).await.get("rooms").is_none(),
        "left rooms are not asked for"
    );
    let with_left = SyncRequest {
        filter: Some(r#"{"room": {"include_leave": true}}"#.to_owned()),
        ..request("bob", None)
    };
    let all = server.ask(with_left).await.expect("an answer");
    let shown = timeline(&all, "leave", &room);
    assert!(shown.contains(&"before".to_owned()) && !shown.contains(&"after".to_owned()));
}

/// Clause: cs.rooms.visibility
#[actix::test]
async fn events_before_the_join_may_be_hidden() {
    let server = TestServer::new().await;
    let request = CreateRoom {
        preset: Some(Preset::Public),
        initial_state: vec![InitialState {
            kind: "m.room.history_visibility".to_owned(),
            state_key: String::new(),
            content: raw(&json!({"history_visibility": "joined"})),
        }],
        ..CreateRoom::new(by("ann"))
    };
    let room = ask(&server.actors.rooms, request).await.expect("a room");
    let first = server.sync("bob", None).await;
    server.say("ann", &room, "hidden").await;
    server.join("bob", &room).await;
    server.say("ann", &room, "seen").await;
    for since in [None, Some(next(&first))] {
        let shown = timeline(&server.sync("bob", since).await, "join", &room);
        assert!(!shown.contains(&"hidden".to_owned()), "{shown:?}");
        assert_eq!(shown.last().map(String::as_str), Some("seen"));
    }
    let second = server.sync("bob", Some(next(&first))).await;
    server.act("bob", Action::Leave, "bob", &room).await;
    server.say("ann", &room, "hidden too").await;
    server.join("bob", &room).await;
    let answer = server.sync("bob", Some(next(&second))).await;
    assert_eq!(
        timeline(&answer, "join", &room),
        ["m.room.member", "m.room.member"]
    );
}

/// Clause: cs.sync.limited
#[actix::test]
async fn a_gap_is_marked_and_its_state_is_sent() {
    let server = TestServer::new().await;
    let room = server.room("ann").await;
    let first = server.sync("ann", None).await;
    server.join("bob", &room).await;
    for i in 0..12 {
        server.say("ann", &room, &i.to_string()).await;
    }
    let answer = server.sync("ann", Some(next(&first))).await;
    let joined = &answer["rooms"]["join"][room.as_str()];
    assert_eq!(timeline(&answer, "join", &room).len(), 10);
    assert_eq!(joined["timeline"]["limited"], true);
    let state = joined["state"]["events"].as_array().expect("state");
    assert_eq!(state.len(), 1, "only what changed in the gap");
    assert_eq!(state[0]["state_key"], "@bob:test");
    assert_eq!(joined["summary"]["m.joined_member_count"], 2);

    let rest = crate::rooms::queries::messages(
        &server.actors.env,
        &by("ann"),
        &room,
        crate::rooms::queries::HistoryCriteria {
            backwards: true,
            from: Some(
                crate::rooms::rules::parse_token(
                    joined["timeline"]["prev_batch"].as_str().expect("a token"),
                )
                .expect("a place"),
            ),
            to: None,
            limit: 3,
            filter: Default::default(),
        },
    )
    .await
    .expect("a page");
    assert!(
        rest.chunk[0].get().contains(r#""body":"1""#),
        "the page goes on where the answer begins"
    );

    let filter = r#"{"room": {"timeline": {"limit": 1, "types": ["m.room.message"]}}}"#;
    for (at, key) in [
        (StateAt::End, "state_after"),
        (StateAt::EndUnstable, "org.matrix.msc4222.state_after"),
    ] {
        let answer = server
            .ask(SyncRequest {
                filter: Some(filter.to_owned()),
                state_at: at,
                ..request("ann", Some(next(&first)))
            })
            .await
            .expect("an answer");
        let joined = &answer["rooms"]["join"][room.as_str()];
        assert_eq!(timeline(&answer, "join", &room), ["11"]);
        assert_eq!(joined[key]["events"][0]["state_key"], "@bob:test");
        assert!(joined.get("state").is_none());
    }
    let whole = SyncRequest {
        full_state: true,
        ..request("bob", Some(next(&answer)))
    };
    let whole = server.ask(whole).await.expect("an answer");
    let state = &whole["rooms"]["join"][room.as_str()]["state"]["events"];
    assert!(
        state.as_array().is_some_and(|s| s.len() > 5),
        "the whole state was asked for"
    );
}

/// For a long or a pruned log, the answer from the rooms must equal the answer from the log's lines.
/// Clause: cs.lists.between
#[actix::test]
async fn an_old_token_gets_the_same_device_lists_as_the_log_gives() {
    let server = TestServer::new().await;
    let room = server.room("ann").await;
    for user in ["bob", "cat", "dan"] {
        server.join(user, &room).await;
    }
    let first = server.sync("ann", None).await;
    let old = next(&first).to_owned();
    server
        .write(|tx| {
            for n in 0..1_100 {
                schema::device_log::keys_changed(tx, &format!("@stranger{n}:test"))?;
            }
            schema::device_log::private_keys_changed(tx, "@ann:test", "@eve:test")?;
            schema::device_log::keys_changed(tx, "@bob:test")
        })
        .await;
    server.act("cat", Action::Leave, "cat", &room).await;
    server.join("fay", &room).await;
    let lists = server.sync("ann", Some(&old)).await["device_lists"].clone();
    assert_eq!(
        lists,
        json!({"changed": ["@bob:test", "@eve:test", "@fay:test"], "left": ["@cat:test"]})
    );
    // If the log was pruned beyond the token, every member of the rooms may have changed.
    let pruned = server
        .write(|tx| {
            let head = tx.head();
            schema::device_log::set_cursor(tx, head)?;
            let mut pieces = 0;
            while schema::device_log::prune(tx, head, 500)? == 500 {
                pieces += 1;
            }
            Ok::<_, schema::Error>(pieces)
        })
        .await;
    assert_eq!(pruned, 2, "in pieces");
    let lists = server.sync("ann", Some(&old)).await["device_lists"].clone();
    let everybody = json!(["@ann:test", "@bob:test", "@dan:test", "@fay:test"]);
    assert_eq!(lists, json!({"changed": everybody, "left": ["@cat:test"]}));
    let now = server.sync("ann", None).await;
    server
        .write(|tx| schema::device_log::keys_changed(tx, "@bob:test"))
        .await;
    let lists = server.sync("ann", Some(next(&now))).await["device_lists"].clone();
    assert_eq!(lists, json!({"changed": ["@bob:test"]}));
}

/// Clause: cs.lists.changed, cs.lists.left
#[actix::test]
async fn device_lists_name_changed_users_and_left_ones() {
    let server = TestServer::new().await;
    let room = server.room("ann").await;
    let first = server.sync("ann", None).await;
    server
        .write(|tx| {
            schema::device_log::keys_changed(tx, "@bob:test")?;
            schema::device_log::keys_changed(tx, "@ann:test")?;
            schema::device_log::private_keys_changed(tx, "@cat:test", "@bob:test")
        })
        .await;
    let answer = server.sync("ann", Some(next(&first))).await;
    assert_eq!(
        answer["device_lists"],
        json!({"changed": ["@ann:test"]}),
        "bob is a stranger"
    );
    server.join("bob", &room).await;
    server.join("cat", &room).await;
    let met = server.sync("ann", Some(next(&answer))).await;
    assert_eq!(
        met["device_lists"],
        json!({"changed": ["@bob:test", "@cat:test"]})
    );
    server
        .write(|tx| schema::device_log::keys_changed(tx, "@bob:test"))
        .await;
    server.act("cat", Action::Leave, "cat", &room).await;
    let answer = server.sync("ann", Some(next(&met))).await;
    assert_eq!(
        answer["device_lists"],
        json!({"changed": ["@bob:test"], "left": ["@cat:test"]})
    );
    // A user's own signature on another user's keys changes them for that user alone, with or without a common room.
    server
        .write(|tx| schema::device_log::private_keys_changed(tx, "@ann:test", "@dan:test"))
        .await;
    let signed = server.sync("ann", Some(next(&answer))).await;
    assert_eq!(signed["device_lists"], json!({"changed": ["@dan:test"]}));
    let other = server.sync("bob", Some(next(&answer))).await;
    assert_eq!(other["device_lists"], json!(null));
    // The same through `/keys/changes`.
    let env = &server.actors.env;
    let lists = queries::key_changes(env, &user("ann"), next(&met), next(&answer)).await;
    assert_eq!(
        lists.expect("lists"),
        SyncDeviceLists {
            changed: vec!["@bob:test".to_owned()],
            left: vec!["@cat:test".to_owned()],
        }
    );
    assert!(
        queries::key_changes(env, &user("ann"), "x", "s1")
            .await
            .is_err()
    );
}
