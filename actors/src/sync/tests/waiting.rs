//! Initial syncs, waiting requests, and to-device messages.

use super::*;

/// Clause: cs.sync.own-txn
#[actix::test]
async fn an_initial_sync_has_everything() {
    let server = TestServer::new().await;
    let room = server.room("ann").await;
    server.join("bob", &room).await;
    server.say("bob", &room, "hello").await;
    server.say("ann", &room, "hi").await;
    let answer = server.sync("ann", None).await;
    let joined = &answer["rooms"]["join"][room.as_str()];
    assert_eq!(joined["summary"]["m.joined_member_count"], 2);
    assert_eq!(joined["summary"]["m.heroes"], json!(["@bob:test"]));
    let events = joined["timeline"]["events"].as_array().expect("events");
    assert_eq!(events[0]["type"], "m.room.create");
    assert!(
        events[0].get("room_id").is_none(),
        "no event names its room"
    );
    let mine = events.last().expect("an event");
    assert_eq!(mine["unsigned"]["transaction_id"], "hi");
    assert_eq!(joined["timeline"]["limited"], false);
    assert!(
        joined.get("state").is_none(),
        "all of it is in the timeline"
    );
    assert_eq!(answer["account_data"]["events"][0]["type"], "m.push_rules");
    assert_eq!(
        answer["device_one_time_keys_count"],
        json!({"signed_curve25519": 0})
    );
    assert_eq!(answer["device_unused_fallback_key_types"], json!([]));
    assert!(answer.get("device_lists").is_none());

    let other = server.sync("ann/TWO", None).await;
    let events = &other["rooms"]["join"][room.as_str()]["timeline"]["events"];
    let last = events.as_array().and_then(|e| e.last()).expect("an event");
    assert!(
        last["unsigned"].get("transaction_id").is_none(),
        "another device sent it"
    );
}

/// Clause: cs.sync.counts, cs.sync.fallback, cs.sync.timeout
#[actix::test]
async fn a_sync_without_news_is_answered_after_its_timeout() {
    let server = TestServer::new().await;
    server.room("ann").await;
    let first = server.sync("ann", None).await;
    let second = server.sync("ann", Some(next(&first))).await;
    assert_eq!(
        second,
        json!({"next_batch": next(&first), "device_one_time_keys_count": {"signed_curve25519": 0},
            "device_unused_fallback_key_types": []})
    );
    let waiting = server.wait("ann", next(&first)).await;
    server
        .actors
        .env
        .clock
        .advance(Duration::from_millis(29_999));
    assert_eq!(server.waiting().await, 1);
    server.actors.env.clock.advance(Duration::from_millis(1));
    assert_eq!(waiting.await.expect("an answer"), second);
    assert_eq!(server.waiting().await, 0);
}

/// Clause: cs.sync.timeout
#[actix::test]
async fn a_waiting_request_gets_a_message_at_once() {
    let server = TestServer::new().await;
    let room = server.room("ann").await;
    server.join("bob", &room).await;
    let (ann, bob) = (
        server.sync("ann", None).await,
        server.sync("bob", None).await,
    );
    let (ann, bob) = (
        server.wait("ann", next(&ann)).await,
        server.wait("bob", next(&bob)).await,
    );
    server.say("ann", &room, "hello").await;
    for waiting in [ann, bob] {
        let answer = waiting.await.expect("an answer");
        assert_eq!(timeline(&answer, "join", &room), ["hello"]);
        let joined = &answer["rooms"]["join"][room.as_str()];
        assert!(joined.get("summary").is_none(), "nobody came or went");
    }
}

#[actix::test]
async fn a_request_whose_client_hung_up_is_removed() {
    let server = TestServer::new().await;
    let first = server.sync("ann", None).await;
    let waiting = server.wait("ann", next(&first)).await;
    waiting.abort();
    while server.waiting().await != 0 {
        tokio::task::yield_now().await;
    }
}

/// Clause: cs.to-device.kept, cs.to-device.repeated
#[actix::test]
async fn messages_stay_until_the_next_token_acknowledges_them() {
    let server = TestServer::new().await;
    let first = server.sync("ann", None).await;
    let waiting = server.wait("ann", next(&first)).await;
    server.send_to("ann", ["one".to_owned()]).await;
    let answer = waiting.await.expect("an answer");
    assert_eq!(received(&answer), ["one"]);
    // The same token gets the same messages again.
    assert_eq!(
        received(&server.sync("ann", Some(next(&first))).await),
        ["one"]
    );
    let answer = server.sync("ann", Some(next(&answer))).await;
    assert!(received(&answer).is_empty());
    assert!(
        received(&server.sync("ann", Some(next(&first))).await).is_empty(),
        "they are gone"
    );
}

/// Clause: cs.to-device.limited, cs.to-device.order
#[actix::test]
async fn more_messages_than_fit_come_with_the_next_answer() {
    let server = TestServer::new().await;
    let first = server.sync("ann", None).await;
    server.send_to("ann", (0..230).map(|i| i.to_string())).await;
    let mut token = next(&first).to_owned();
    let (mut all, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let answer = server.sync("ann", Some(&token)).await;
        let some = received(&answer);
        if some.is_empty() {
            break;
        }
        sizes.push(some.len());
        all.extend(some);
        next(&answer).clone_into(&mut token);
        assert_eq!(token.contains('_'), sizes.len() < 3, "{token}");
    }
    assert_eq!(sizes, [100, 100, 30]);
    assert_eq!(all, (0..230).map(|i| i.to_string()).collect::<Vec<_>>());
}

/// Clause: cs.sync.invalid-token
#[actix::test]
async fn invalid_and_future_tokens_lose_nothing() {
    let server = TestServer::new().await;
    server.send_to("ann", ["one".to_owned()]).await;
    let refused = server.ask(request("ann", Some("x1"))).await;
    assert!(matches!(
        refused,
        Err(Error::Refused(Refusal::InvalidParam(_)))
    ));
    // A token above the head deletes nothing, and its client misses nothing from now on.
    let waiting = server.wait("ann", "s999999").await;
    server.send_to("ann", ["two".to_owned()]).await;
    assert_eq!(received(&waiting.await.expect("an answer")), ["two"]);
    assert_eq!(received(&server.sync("ann", None).await), ["one", "two"]);
}

#[actix::test]
async fn account_data_is_sent_globally_and_by_room() {
    let server = TestServer::new().await;
    let room = server.room("ann").await;
    let first = server.sync("ann", None).await;
    let there = room.to_string();
    server
        .write(move |tx| {
            user_data::put(tx, "@ann:test", "", "m.direct", r#"{"a":1}"#)?;
            user_data::put(tx, "@ann:test", &there, "m.tag", r#"{"tags":{}}"#)?;
            user_data::put(tx, "@ann:test", "!elsewhere:test", "m.tag", "{}")
        })
        .await;
    let answer = server.sync("ann", Some(next(&first))).await;
    assert_eq!(
        answer["account_data"]["events"],
        json!([{"type": "m.direct", "content": {"a": 1}}])
    );
    let joined = &answer["rooms"]["join"];
    assert_eq!(joined.as_object().map(serde_json::Map::len), Some(1));
    assert_eq!(
        joined[room.as_str()]["account_data"]["events"],
        json!([{"type": "m.tag", "content": {"tags": {}}}])
    );
}

/// Clause: cs.sync.next
#[actix::test]
async fn successive_answers_omit_and_repeat_nothing() {
    const MANY: usize = 60;
    let server = TestServer::new().await;
    let rooms = [server.room("ann").await, server.room("ann").await];
    for room in &rooms {
        server.join("bob", room).await;
    }
    let server = &server;
    let mut token = next(&server.sync("bob", None).await).to_owned();
    let client = async {
        let (mut events, mut sent) = ([Vec::new(), Vec::new()], Vec::new());
        while events[0].len() + events[1].len() + sent.len() < 3 * MANY {
            let answer = server
                .ask(SyncRequest {
                    timeout: Duration::from_secs(30),
                    filter: Some(r#"{"room": {"timeline": {"limit": 100}}}"#.to_owned()),
                    ..request("bob", Some(&token))
                })
                .await
                .expect("an answer");
            for (room, events) in rooms.iter().zip(&mut events) {
                events.extend(timeline(&answer, "join", room));
            }
            sent.extend(received(&answer));
            next(&answer).clone_into(&mut token);
        }
        (events, sent)
    };
    let number = |n: usize| n.to_string();
    let talk = |room| async move {
        for n in 0..MANY {
            server.say("ann", room, &number(n)).await;
        }
    };
    let messages = server.send_to("bob", (0..MANY).map(number));
    let ((events, sent), (), (), ()) =
        tokio::join!(client, talk(&rooms[0]), talk(&rooms[1]), messages);
    let all: Vec<String> = (0..MANY).map(number).collect();
    assert_eq!(events, [all.clone(), all.clone()]);
    assert_eq!(sent, all);
}
