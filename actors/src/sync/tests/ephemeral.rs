//! Typing, receipts and presence, for clients and for application services.

use super::*;

/// Clause: cs.sync.typing
#[actix::test]
async fn typing_is_sent_and_expires() {
    let server = TestServer::new().await;
    let room = server.room("ann").await;
    server.join("bob", &room).await;
    assert!(matches!(
        server.type_in("cat", &room, Some(5)).await,
        Err(Error::Refused(Refusal::Forbidden(_)))
    ));
    let first = server.sync("ann", None).await;
    let typing = |answer: &Value| {
        answer["rooms"]["join"][room.as_str()]["ephemeral"]["events"][0]["content"]["user_ids"]
            .clone()
    };
    let waiting = server.wait("ann", next(&first)).await;
    server.type_in("bob", &room, Some(5)).await.expect("typing");
    let began = waiting.await.expect("an answer");
    assert_eq!(typing(&began), json!(["@bob:test"]));
    // An initial sync has it too, and a client that has got it does not get it again.
    assert_eq!(
        typing(&server.sync("ann/TWO", None).await),
        json!(["@bob:test"])
    );
    assert!(
        server
            .sync("ann", Some(next(&began)))
            .await
            .get("rooms")
            .is_none()
    );

    let waiting = server.wait("ann", next(&began)).await;
    server.actors.env.clock.advance(Duration::from_secs(5));
    let ended = waiting.await.expect("an answer");
    assert_eq!(typing(&ended), json!([]));
    server
        .type_in("bob", &room, None)
        .await
        .expect("nothing new");
    assert_eq!(
        next(&server.sync("ann", Some(next(&ended))).await),
        next(&ended)
    );
}

#[actix::test]
async fn a_client_whose_user_returns_is_sent_that_typing_has_ended() {
    let server = TestServer::new().await;
    let room = server.room("ann").await;
    server.join("bob", &room).await;
    let ephemeral =
        |answer: &Value| answer["rooms"]["join"][room.as_str()]["ephemeral"]["events"].clone();
    let typing = |users: Value| json!([{"content": {"user_ids": users}, "type": "m.typing"}]);
    server.type_in("ann", &room, Some(5)).await.expect("typing");
    let first = server.sync("bob", None).await;
    assert_eq!(ephemeral(&first), typing(json!(["@ann:test"])));

    server.act("bob", Action::Leave, "bob", &room).await;
    server.type_in("ann", &room, None).await.expect("an end");
    let away = server.sync("bob", Some(next(&first))).await;
    server.join("bob", &room).await;
    let back = server.sync("bob", Some(next(&away))).await;
    assert_eq!(ephemeral(&back), typing(json!([])));

    // A client to which the room is new is sent no empty list.
    assert_eq!(ephemeral(&server.sync("bob", None).await), Value::Null);
    let stranger = server.sync("cat", None).await;
    server.join("cat", &room).await;
    let joined = server.sync("cat", Some(next(&stranger))).await;
    assert_eq!(
        timeline(&joined, "join", &room).last().map(String::as_str),
        Some("m.room.member")
    );
    assert_eq!(ephemeral(&joined), Value::Null);
}

/// Clause: cs.sync.private-receipts
#[actix::test]
async fn receipts_are_sent_except_private_ones() {
    let server = TestServer::new().await;
    let room = server.room("ann").await;
    server.join("bob", &room).await;
    server.say("ann", &room, "read me").await;
    let first = server.sync("ann", None).await;
    let events = &first["rooms"]["join"][room.as_str()]["timeline"]["events"];
    let event = events.as_array().and_then(|e| e.last()).expect("an event")["event_id"].clone();
    let event = event.as_str().expect("an id");
    let mark = |kind| MarkRead {
        by: by("bob"),
        room: room.clone(),
        marks: vec![ReadMarker {
            kind,
            event: event.to_owned(),
            thread: String::new(),
        }],
    };
    ask(&server.actors.rooms, mark(ReadMarkerKind::ReadPrivate))
        .await
        .expect("marked");
    let nothing = server.sync("ann", Some(next(&first))).await;
    assert!(nothing.get("rooms").is_none());
    let own = server.sync("bob", Some(next(&first))).await;
    let receipt = |answer: &Value, kind: &str| {
        answer["rooms"]["join"][room.as_str()]["ephemeral"]["events"][0]["content"][event][kind]
            .clone()
    };
    assert!(receipt(&own, "m.read.private").get("@bob:test").is_some());

    let waiting = server.wait("ann", next(&nothing)).await;
    ask(&server.actors.rooms, mark(ReadMarkerKind::Read))
        .await
        .expect("marked");
    let answer = waiting.await.expect("an answer");
    assert_eq!(
        receipt(&answer, "m.read"),
        json!({"@bob:test": {"ts": 1000}})
    );
}

#[actix::test]
async fn presence_is_sent_to_users_that_share_a_room() {
    let server = TestServer::new().await;
    let room = server.room("ann").await;
    server.join("bob", &room).await;
    let (ann, cat) = (
        server.sync("ann", None).await,
        server.sync("cat", None).await,
    );
    let waiting = server.wait("ann", next(&ann)).await;
    let message = SetPresence {
        user: user("bob"),
        state: "online".to_owned(),
        message: Some("here".to_owned()),
    };
    ask(&server.actors.sync, message).await.expect("set");
    let answer = waiting.await.expect("an answer");
    let event = &answer["presence"]["events"][0];
    assert_eq!(
        (&event["sender"], &event["content"]["presence"]),
        (&json!("@bob:test"), &json!("online"))
    );
    assert!(
        server
            .sync("cat", Some(next(&cat)))
            .await
            .get("presence")
            .is_none()
    );
}

/// Clause: as.ephemeral.room
#[actix::test]
async fn a_service_that_asks_for_ephemeral_events_gets_typing_and_receipts() {
    let server = TestServer::new().await;
    let service = |id: &str, listens: bool| {
        let value = json!({"id": id, "url": "http://localhost:9", "as_token": id, "hs_token": id,
            "sender_localpart": format!("{id}bot"), "receive_ephemeral": listens,
            "namespaces": {"users": [{"exclusive": true, "regex": format!("@{id}_.*")}]}});
        (
            serde_json::from_value(value).expect("a registration"),
            false,
        )
    };
    let interests = Interests::compile(
        "test",
        vec![service("irc", true), service("deaf", false)],
        &Proposals::default(),
    );
    let interests = std::sync::Arc::new(interests.expect("patterns"));
    server
        .actors
        .env
        .store
        .write_alone(move |tx| {
            crate::services::swap_interests(tx, std::sync::Arc::clone(&interests));
            Ok::<_, Error>(())
        })
        .await
        .expect("swapped");
    let (room, elsewhere) = (server.room("ann").await, server.room("ann").await);
    for ghost in ["irc_bob", "deaf_bob"] {
        server.join(ghost, &room).await;
    }
    server.type_in("ann", &room, Some(5)).await.expect("typing");
    server
        .type_in("ann", &elsewhere, Some(5))
        .await
        .expect("typing");
    let take = |id: &str| TakeEphemeral {
        service: ServiceId::from(id),
        limit: 100,
    };
    let sync = server.actors.sync.addr();
    let taken = sync.send(take("irc")).await.expect("events");
    let taken: Vec<&str> = taken.iter().map(|json| json.get()).collect();
    let expected =
        json!({"content": {"user_ids": ["@ann:test"]}, "room_id": room, "type": "m.typing"});
    assert_eq!(taken, [expected.to_string()]);
    assert!(sync.send(take("deaf")).await.expect("events").is_empty());

    let first = server.sync("ann", None).await;
    let events = &first["rooms"]["join"][room.as_str()]["timeline"]["events"];
    let event = events.as_array().and_then(|e| e.last()).expect("an event")["event_id"].clone();
    for (name, kind) in [
        ("ann", ReadMarkerKind::ReadPrivate),
        ("irc_bob", ReadMarkerKind::ReadPrivate),
    ] {
        let message = MarkRead {
            by: by(name),
            room: room.clone(),
            marks: vec![ReadMarker {
                kind,
                event: event.as_str().expect("an id").to_owned(),
                thread: String::new(),
            }],
        };
        ask(&server.actors.rooms, message).await.expect("marked");
    }
    let mut taken = Vec::new();
    while taken.is_empty() {
        taken = sync.send(take("irc")).await.expect("events");
        tokio::task::yield_now().await;
    }
    assert_eq!(taken.len(), 1);
    assert!(
        taken[0].get().contains("@irc_bob:test"),
        "its own user's private receipt"
    );
    assert!(!taken[0].get().contains("@ann:test"), "and nobody else's");
}
