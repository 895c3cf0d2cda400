//! Rooms come and go, and with them those whose devices matter.

use super::*;

#[actix::test]
async fn an_invite_a_join_and_a_leave() {
    let house = House::new().await;
    let room = house.room("ann").await;
    house.say("ann", &room, "before").await;
    let first = house.sync("bob", None).await;
    let waiting = house.wait("bob", next(&first)).await;
    house.act("ann", Action::Invite, "bob", &room).await;
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

    house.join("bob", &room).await;
    let joined = house.sync("bob", Some(next(&invited))).await;
    assert!(
        timeline(&joined, "join", &room).contains(&"before".to_owned()),
        "history is shared"
    );
    assert_eq!(joined["device_lists"]["changed"], json!(["@ann:test"]));
    let again = house.sync("bob", Some(next(&joined))).await;
    assert!(again.get("rooms").is_none() && again.get("device_lists").is_none());

    house.act("bob", Action::Leave, "bob", &room).await;
    house.say("ann", &room, "after").await;
    let left = house.sync("bob", Some(next(&joined))).await;
    assert_eq!(timeline(&left, "leave", &room), ["m.room.member"]);
    assert_eq!(left["device_lists"], json!({"left": ["@ann:test"]}));
    assert!(
        house
            .sync("bob", Some(next(&left)))
            .await
            .get("rooms")
            .is_none()
    );
    assert!(
        house.sync("bob", None).await.get("rooms").is_none(),
        "left rooms are not asked for"
    );
    let with_left = Question {
        filter: Some(r#"{"room": {"include_leave": true}}"#.to_owned()),
        ..question("bob", None)
    };
    let all = house.ask(with_left).await.expect("an answer");
    let shown = timeline(&all, "leave", &room);
    assert!(shown.contains(&"before".to_owned()) && !shown.contains(&"after".to_owned()));
}

#[actix::test]
async fn what_was_said_before_one_joined_may_be_hidden() {
    let house = House::new().await;
    let wishes = CreateRoom {
        preset: Some(Preset::Public),
        initial_state: vec![InitialState {
            kind: "m.room.history_visibility".to_owned(),
            state_key: String::new(),
            content: raw(&json!({"history_visibility": "joined"})),
        }],
        ..CreateRoom::new(by("ann"))
    };
    let room = ask(&house.actors.rooms, wishes).await.expect("a room");
    let first = house.sync("bob", None).await;
    house.say("ann", &room, "hidden").await;
    house.join("bob", &room).await;
    house.say("ann", &room, "seen").await;
    for since in [None, Some(next(&first))] {
        let shown = timeline(&house.sync("bob", since).await, "join", &room);
        assert!(!shown.contains(&"hidden".to_owned()), "{shown:?}");
        assert_eq!(shown.last().map(String::as_str), Some("seen"));
    }
    let second = house.sync("bob", Some(next(&first))).await;
    house.act("bob", Action::Leave, "bob", &room).await;
    house.say("ann", &room, "hidden too").await;
    house.join("bob", &room).await;
    let answer = house.sync("bob", Some(next(&second))).await;
    assert_eq!(
        timeline(&answer, "join", &room),
        ["m.room.member", "m.room.member"]
    );
}

#[actix::test]
async fn a_gap_is_said_and_its_state_is_sent() {
    let house = House::new().await;
    let room = house.room("ann").await;
    let first = house.sync("ann", None).await;
    house.join("bob", &room).await;
    for i in 0..12 {
        house.say("ann", &room, &i.to_string()).await;
    }
    let answer = house.sync("ann", Some(next(&first))).await;
    let joined = &answer["rooms"]["join"][room.as_str()];
    assert_eq!(timeline(&answer, "join", &room).len(), 10);
    assert_eq!(joined["timeline"]["limited"], true);
    let state = joined["state"]["events"].as_array().expect("state");
    assert_eq!(state.len(), 1, "only what changed in the gap");
    assert_eq!(state[0]["state_key"], "@bob:test");
    assert_eq!(joined["summary"]["m.joined_member_count"], 2);

    let rest = crate::rooms::queries::messages(
        &house.actors.env,
        &by("ann"),
        &room,
        crate::rooms::queries::Page {
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
        let answer = house
            .ask(Question {
                filter: Some(filter.to_owned()),
                state_at: at,
                ..question("ann", Some(next(&first)))
            })
            .await
            .expect("an answer");
        let joined = &answer["rooms"]["join"][room.as_str()];
        assert_eq!(timeline(&answer, "join", &room), ["11"]);
        assert_eq!(joined[key]["events"][0]["state_key"], "@bob:test");
        assert!(joined.get("state").is_none());
    }
    let whole = Question {
        full_state: true,
        ..question("bob", Some(next(&answer)))
    };
    let whole = house.ask(whole).await.expect("an answer");
    let state = &whole["rooms"]["join"][room.as_str()]["state"]["events"];
    assert!(
        state.as_array().is_some_and(|s| s.len() > 5),
        "the whole state was asked for"
    );
}

/// What a long or a pruned log leads to must be what each of its lines would have led to.
#[actix::test]
async fn whose_devices_changed_since_long_ago() {
    let house = House::new().await;
    let room = house.room("ann").await;
    for user in ["bob", "cat", "dan"] {
        house.join(user, &room).await;
    }
    let first = house.sync("ann", None).await;
    let old = next(&first).to_owned();
    house
        .write(|tx| {
            for n in 0..1_100 {
                schema::device_log::keys_changed(tx, &format!("@stranger{n}:test"))?;
            }
            schema::device_log::private_keys_changed(tx, "@ann:test", "@eve:test")?;
            schema::device_log::keys_changed(tx, "@bob:test")
        })
        .await;
    house.act("cat", Action::Leave, "cat", &room).await;
    house.join("fay", &room).await;
    let lists = house.sync("ann", Some(&old)).await["device_lists"].clone();
    assert_eq!(
        lists,
        json!({"changed": ["@bob:test", "@eve:test", "@fay:test"], "left": ["@cat:test"]})
    );
    // Where the log begins after the token, everybody in the rooms may have changed.
    let pruned = house
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
    let lists = house.sync("ann", Some(&old)).await["device_lists"].clone();
    let everybody = json!(["@ann:test", "@bob:test", "@dan:test", "@fay:test"]);
    assert_eq!(lists, json!({"changed": everybody, "left": ["@cat:test"]}));
    let now = house.sync("ann", None).await;
    house
        .write(|tx| schema::device_log::keys_changed(tx, "@bob:test"))
        .await;
    let lists = house.sync("ann", Some(next(&now))).await["device_lists"].clone();
    assert_eq!(lists, json!({"changed": ["@bob:test"]}));
}

#[actix::test]
async fn whose_devices_changed() {
    let house = House::new().await;
    let room = house.room("ann").await;
    let first = house.sync("ann", None).await;
    house
        .write(|tx| {
            schema::device_log::keys_changed(tx, "@bob:test")?;
            schema::device_log::keys_changed(tx, "@ann:test")?;
            schema::device_log::private_keys_changed(tx, "@cat:test", "@bob:test")
        })
        .await;
    let answer = house.sync("ann", Some(next(&first))).await;
    assert_eq!(
        answer["device_lists"],
        json!({"changed": ["@ann:test"]}),
        "bob is a stranger"
    );
    house.join("bob", &room).await;
    house.join("cat", &room).await;
    let met = house.sync("ann", Some(next(&answer))).await;
    assert_eq!(
        met["device_lists"],
        json!({"changed": ["@bob:test", "@cat:test"]})
    );
    house
        .write(|tx| schema::device_log::keys_changed(tx, "@bob:test"))
        .await;
    house.act("cat", Action::Leave, "cat", &room).await;
    let answer = house.sync("ann", Some(next(&met))).await;
    assert_eq!(
        answer["device_lists"],
        json!({"changed": ["@bob:test"], "left": ["@cat:test"]})
    );
    // A signature of one's own changes how another's keys look, room or no room, and to oneself alone.
    house
        .write(|tx| schema::device_log::private_keys_changed(tx, "@ann:test", "@dan:test"))
        .await;
    let signed = house.sync("ann", Some(next(&answer))).await;
    assert_eq!(signed["device_lists"], json!({"changed": ["@dan:test"]}));
    let other = house.sync("bob", Some(next(&answer))).await;
    assert_eq!(other["device_lists"], json!(null));
    // The same question, put directly.
    let env = &house.actors.env;
    let lists = queries::key_changes(env, &user("ann"), next(&met), next(&answer)).await;
    assert_eq!(
        lists.expect("lists"),
        DeviceLists {
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
