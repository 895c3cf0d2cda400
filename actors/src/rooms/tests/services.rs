//! The events that appservices are owed, and the aliases that they reserve.

use super::*;
use crate::services::CarriesInterests;

/// Clause: as.txn.event-format, as.txn.interest-member
#[actix_rt::test]
async fn a_service_is_owed_the_events_that_concern_its_members() {
    let server = TestServer::new().await;
    server
        .services(&[("irc", "@irc_.*"), ("slack", "@slack_.*")])
        .await;
    let room = server.room("ann", Preset::Public).await;
    server.say("ann", &room, "before").await.expect("sent");
    assert!(server.owed("irc").await.is_empty());
    server
        .act("ann", Action::Invite, "irc_bob", &room)
        .await
        .expect("invited");
    server.say("ann", &room, "between").await.expect("sent");
    server.join("irc_bob", &room).await.expect("joined");
    server.say("ann", &room, "with").await.expect("sent");
    server
        .act("irc_bob", Action::Leave, "irc_bob", &room)
        .await
        .expect("left");
    server.say("ann", &room, "after").await.expect("sent");
    let owed = server.owed("irc").await;
    let kinds: Vec<String> = owed
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
    assert_eq!(kinds, ["invite", "join", "with", "leave"]);
    assert!(server.owed("slack").await.is_empty());

    let positions: Vec<Position> = owed.iter().map(|e| Position(e.position)).collect();
    let interests = server.actors.env.store.interests();
    let shown = server
        .read(move |db| {
            Ok(
                queries::for_appservice(db, &interests, &"irc".into(), &positions, 2_000)
                    .expect("shown"),
            )
        })
        .await;
    let invite: Value =
        serde_json::from_str(shown[0].1.as_ref().expect("whole").get()).expect("JSON");
    assert_eq!(invite["room_id"], json!(room));
    let state = invite["unsigned"]["invite_room_state"]
        .as_array()
        .expect("stripped state");
    assert!(state.iter().any(|e| e["type"] == "m.room.create"));
    let leave: Value =
        serde_json::from_str(shown[3].1.as_ref().expect("whole").get()).expect("JSON");
    assert_eq!(
        leave["unsigned"]["prev_content"]["membership"],
        json!("join")
    );
}

/// Compares the appservices that are owed an event with a brute-force model: after every step, a message is owed to exactly those
/// appservices that have a joined member.
/// Clause: as.txn.interest-member
#[actix_rt::test]
async fn interest_follows_every_membership() {
    let server = TestServer::new().await;
    server
        .services(&[("a", "@a_.*"), ("b", "@b_.*"), ("ab", "@[ab]_.*")])
        .await;
    let room = server.room("ann", Preset::Public).await;
    let names = ["a_1", "a_2", "b_1", "c_1"];
    let mut joined: BTreeSet<&str> = BTreeSet::new();
    // A linear congruential generator is random enough, and repeatable.
    let mut dice: u64 = 42;
    for step in 0..60 {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let name = names[(dice >> 33) as usize % names.len()];
        let (before, head) = (joined.clone(), server.actors.env.store.head());
        if joined.remove(name) {
            let (who, action) = if dice & (1 << 40) == 0 {
                (name, Action::Leave)
            } else {
                ("ann", Action::Kick)
            };
            server.act(who, action, name, &room).await.expect("gone");
        } else {
            server.join(name, &room).await.expect("joined");
            joined.insert(name);
        }
        server
            .say("ann", &room, &format!("step{step}"))
            .await
            .expect("sent");
        for service in ["a", "b", "ab"] {
            let has_member = |set: &BTreeSet<&str>| set.iter().any(|n| service.contains(&n[..1]));
            let owed = server.owed(service).await;
            let is_owed = |kind: &str| owed.iter().any(|e| e.position > head.0 && e.kind == kind);
            let own = service.contains(&name[..1]);
            assert_eq!(
                (is_owed("m.room.member"), is_owed("m.room.message")),
                (
                    has_member(&before) || has_member(&joined) || own,
                    has_member(&joined)
                ),
                "step {step}: {service}"
            );
        }
    }
}

/// Clause: as.registration.exclusive-aliases
#[actix_rt::test]
async fn an_alias_belongs_to_the_service_that_reserves_it() {
    let server = TestServer::new().await;
    server.services(&[("irc", "@irc_.*")]).await;
    let room = server
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
    assert_eq!(refusal(server.create(taken).await), Refusal::RoomInUse);
    let put = |by: Identity, alias: &str| PutAlias {
        by,
        alias: alias.try_into().expect("an alias"),
        room: room.clone(),
    };
    let rooms = &server.actors.rooms;
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
    // An alias in its namespace makes the appservice interested in the room.
    server.say("ann", &room, "hello").await.expect("sent");
    assert_eq!(server.owed("irc").await.len(), 1);
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
        server
            .read(move |db| aliases::of_room(db, &left, 10))
            .await
            .is_empty()
    );
}

#[actix_rt::test]
async fn a_canonical_alias_must_point_to_its_room() {
    let server = TestServer::new().await;
    let tea = CreateRoom {
        alias: Some("tea".to_owned()),
        ..CreateRoom::new(by("ann"))
    };
    let (room, other) = (
        server.create(tea).await.expect("a room"),
        server.room("ann", Preset::Private).await,
    );
    let call = |room: &RoomId, content: Value| {
        let room = room.to_owned();
        let server = &server;
        async move {
            server
                .set("ann", &room, "m.room.canonical_alias", content)
                .await
        }
    };
    let taken = call(&other, json!({"alias": "#tea:test"})).await;
    assert_eq!(refusal(taken), Refusal::BadAlias("#tea:test".to_owned()));
    for bad in [
        json!({"alias": "tea"}),
        json!({"alt_aliases": [7]}),
        json!({"alt_aliases": "#tea:test"}),
    ] {
        assert!(matches!(
            refusal(call(&room, bad).await),
            Refusal::InvalidParam(_)
        ));
    }
    let rooms = &server.actors.rooms;
    let alias = "#tea:test".try_into().expect("an alias");
    ask(
        rooms,
        DeleteAlias {
            by: by("ann"),
            alias,
        },
    )
    .await
    .expect("hers");
    // The canonical alias event may keep an alias that it has already, but may not set it again after it was removed.
    call(&room, json!({"alias": "#tea:test", "note": 1}))
        .await
        .expect("as before");
    call(&room, json!({"alias": ""})).await.expect("nothing");
    assert!(matches!(
        refusal(call(&room, json!({"alias": "#tea:test"})).await),
        Refusal::BadAlias(_)
    ));
}

/// The creation of a room is sent before any user is joined, so its sender alone decides which appservices are owed it.
/// Clause: as.txn.interest-user
#[actix_rt::test]
async fn a_service_is_owed_the_creation_of_the_rooms_of_its_users() {
    let server = TestServer::new().await;
    server
        .services(&[("irc", "@irc_.*"), ("slack", "@slack_.*")])
        .await;
    server.room("irc_bob", Preset::Public).await;
    let owed = server.owed("irc").await;
    let kinds: Vec<&str> = owed.iter().map(|e| e.kind.as_str()).collect();
    assert_eq!(kinds[..2], ["m.room.create", "m.room.member"]);
    assert!(server.owed("slack").await.is_empty());
}
