//! What clients are sent: typing, presence, unread counts, and nothing from ignored users.

use std::time::Duration;

use serde_json::{Value, json};
use tests::person::segment;
use tests::{Person, Stage};
use understudy::mscs::by_default;

async fn public(by: &Person, others: &[&Person]) -> String {
    let room = by.creates(json!({"preset": "public_chat"})).await;
    for other in others {
        other.joins(&room).await;
    }
    room
}

async fn syncs(by: &Person, since: Option<&Value>, more: &str) -> Value {
    let since = since.and_then(|answer| answer["next_batch"].as_str());
    let since = since.map_or(String::new(), |since| format!("since={since}&"));
    by.get(&format!("/sync?{since}{more}")).await.ok()
}

fn bodies(events: &Value) -> Vec<&str> {
    let events = events.as_array().expect("events");
    let bodies = events.iter().filter_map(|e| e["content"]["body"].as_str());
    bodies.collect()
}

#[actix_web::test]
async fn typing_without_a_time_lasts_for_half_a_minute() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let room = public(&alice, &[&bob]).await;
    let typing = format!(
        "/rooms/{}/typing/{}",
        segment(&room),
        segment("@alice:test")
    );
    alice.put(&typing, &json!({"typing": true})).await.ok();
    let users = |answer: &Value| {
        let events = &answer["rooms"]["join"][&room]["ephemeral"]["events"];
        let events = events.as_array().cloned().unwrap_or_default();
        let typing = events.into_iter().find(|e| e["type"] == "m.typing");
        typing.map(|e| e["content"]["user_ids"].clone())
    };
    let first = syncs(&bob, None, "set_presence=offline").await;
    assert_eq!(users(&first), Some(json!(["@alice:test"])));
    stage.advance(Duration::from_secs(30)).await;
    let second = syncs(&bob, Some(&first), "set_presence=offline").await;
    assert_eq!(users(&second), Some(json!([])));
    alice
        .put(&typing, &json!({"typing": "yes"}))
        .await
        .is_refused(400, "M_BAD_JSON");
    let others = typing.replace("alice", "bob");
    alice
        .put(&others, &json!({"typing": true}))
        .await
        .is_refused(403, "M_FORBIDDEN");
    alice.put(&typing, &json!({"typing": false})).await.ok();
}

#[actix_web::test]
async fn a_user_that_syncs_is_online_and_a_user_that_joins_is_sent_presence() {
    let stage = Stage::with(&by_default(), |options| options.settings.presence = true).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let carol = stage.person("carol", "DESK").await;
    let room = public(&alice, &[&bob]).await;
    let status = |of: &str| format!("/presence/{}/status", segment(of));
    syncs(&alice, None, "set_presence=offline").await;
    let seen = bob.get(&status("@alice:test")).await.ok();
    assert_eq!(
        seen["presence"], "offline",
        "`set_presence=offline` leaves the presence as it is"
    );
    let of_alice = syncs(&alice, None, "").await;
    assert_eq!(
        of_alice["presence"],
        Value::Null,
        "a client is not sent its own user's presence"
    );
    assert_eq!(
        bob.get(&status("@alice:test")).await.ok()["presence"],
        "online"
    );
    syncs(&alice, None, "set_presence=unavailable").await;
    assert_eq!(
        bob.get(&status("@alice:test")).await.ok()["presence"],
        "unavailable"
    );
    alice
        .get("/sync?set_presence=away")
        .await
        .is_refused(400, "M_INVALID_PARAM");

    let before = syncs(&carol, None, "set_presence=online").await;
    assert_eq!(before["presence"], Value::Null);
    let of_alice = syncs(&alice, None, "").await;
    carol
        .post(&format!("/rooms/{}/join", segment(&room)), &json!({}))
        .await
        .ok();
    let who = |answer: &Value| {
        let events = answer["presence"]["events"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        events
            .iter()
            .map(|e| (e["sender"].clone(), e["content"]["presence"].clone()))
            .collect::<Vec<_>>()
    };
    let after = syncs(&carol, Some(&before), "").await;
    assert_eq!(who(&after), [(json!("@alice:test"), json!("online"))]);
    let of_alice = syncs(&alice, Some(&of_alice), "").await;
    assert_eq!(who(&of_alice), [(json!("@carol:test"), json!("online"))]);
    // After a minute without a request, a user is offline.
    stage.advance(Duration::from_secs(30)).await;
    stage.advance(Duration::from_secs(30)).await;
    assert_eq!(
        bob.get(&status("@alice:test")).await.ok()["presence"],
        "offline"
    );
}

fn unread(answer: &Value, room: &str) -> (Value, Value) {
    let counts = &answer["rooms"]["join"][room]["unread_notifications"];
    (
        counts["notification_count"].clone(),
        counts["highlight_count"].clone(),
    )
}

#[actix_web::test]
async fn unread_messages_are_counted_by_the_push_rules_since_the_receipt() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let room = public(&alice, &[&bob]).await;
    let first = syncs(&bob, None, "").await;
    assert_eq!(unread(&first, &room), (json!(0), json!(0)));
    alice.says(&room, "one").await;
    let two = alice.says(&room, "two").await;
    let mention =
        json!({"msgtype": "m.text", "body": "bob!", "m.mentions": {"user_ids": ["@bob:test"]}});
    alice.sends(&room, "m.room.message", "3", mention).await;
    let notice = json!({"msgtype": "m.notice", "body": "hush"});
    alice.sends(&room, "m.room.message", "4", notice).await;
    let second = syncs(&bob, Some(&first), "").await;
    assert_eq!(unread(&second, &room), (json!(3), json!(1)));
    alice.says(&room, "five").await;
    let third = syncs(&bob, Some(&second), "").await;
    assert_eq!(
        unread(&third, &room),
        (json!(4), json!(1)),
        "the counts continue"
    );
    let read =
        |id: &str, kind: &str| format!("/rooms/{}/receipt/{kind}/{}", segment(&room), segment(id));
    bob.post(&read(&two, "m.read.private"), &json!({}))
        .await
        .ok();
    let fourth = syncs(&bob, Some(&third), "").await;
    assert_eq!(unread(&fourth, &room), (json!(2), json!(1)));
    // A user's own message marks everything before it as read.
    bob.says(&room, "here").await;
    let fifth = syncs(&bob, Some(&fourth), "").await;
    assert_eq!(unread(&fifth, &room), (json!(0), json!(0)));
    // Bob sets a push rule that mutes the room.
    let mute = format!("/pushrules/global/room/{}", segment(&room));
    bob.put(&mute, &json!({"actions": []})).await.ok();
    alice.says(&room, "six").await;
    let sixth = syncs(&bob, Some(&fifth), "").await;
    assert_eq!(unread(&sixth, &room), (json!(0), json!(0)));
}

#[actix_web::test]
async fn unknown_counts_of_encrypted_messages_are_left_out() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let room = public(&alice, &[&bob]).await;
    let content = json!({"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x"});
    let first = syncs(&bob, None, "").await;
    alice
        .sends(&room, "m.room.encrypted", "1", content.clone())
        .await;
    let second = syncs(&bob, Some(&first), "").await;
    assert_eq!(unread(&second, &room), (json!(1), Value::Null));
    let rule = "/pushrules/global/underride/.m.rule.encrypted/actions";
    bob.put(rule, &json!({"actions": []})).await.ok();
    let room_rule = "/pushrules/global/underride/.m.rule.encrypted_room_one_to_one/actions";
    bob.put(room_rule, &json!({"actions": []})).await.ok();
    let last = alice.sends(&room, "m.room.encrypted", "2", content).await;
    let third = syncs(&bob, Some(&second), "").await;
    assert_eq!(
        unread(&third, &room),
        (Value::Null, Value::Null),
        "unknown counts are left out, not sent as zero"
    );
    let read = format!(
        "/rooms/{}/receipt/m.read/{}",
        segment(&room),
        segment(&last)
    );
    bob.post(&read, &json!({})).await.ok();
    let fourth = syncs(&bob, Some(&third), "").await;
    assert_eq!(unread(&fourth, &room), (json!(0), json!(0)));
}

#[actix_web::test]
async fn unread_messages_of_threads_are_counted_apart_when_the_client_asks() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let room = public(&alice, &[&bob]).await;
    let filter = segment(r#"{"room":{"timeline":{"unread_thread_notifications":true}}}"#);
    let filter = format!("filter={filter}");
    let first = syncs(&bob, None, &filter).await;
    let root = alice.says(&room, "root").await;
    let reply = json!({"msgtype": "m.text", "body": "reply",
        "m.relates_to": {"rel_type": "m.thread", "event_id": root}});
    let last = alice.sends(&room, "m.room.message", "2", reply).await;
    let second = syncs(&bob, Some(&first), &filter).await;
    assert_eq!(unread(&second, &room), (json!(1), json!(0)));
    let threads = &second["rooms"]["join"][&room]["unread_thread_notifications"];
    let expected = json!({"notification_count": 1, "highlight_count": 0});
    assert_eq!(threads, &json!({&root: expected}));
    let plain = syncs(&bob, Some(&first), "").await;
    assert_eq!(
        unread(&plain, &room),
        (json!(2), json!(0)),
        "without threads, one count for all"
    );
    let read = format!(
        "/rooms/{}/receipt/m.read/{}",
        segment(&room),
        segment(&last)
    );
    bob.post(&read, &json!({"thread_id": root})).await.ok();
    let third = syncs(&bob, Some(&second), &filter).await;
    assert_eq!(unread(&third, &room), (json!(1), json!(0)));
    assert_eq!(
        third["rooms"]["join"][&room]["unread_thread_notifications"],
        Value::Null
    );
}

#[actix_web::test]
async fn messages_and_invites_of_ignored_users_are_not_sent_to_a_client() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let spam = stage.person("spam", "BOT").await;
    let room = public(&alice, &[&bob, &spam]).await;
    let list = format!(
        "/user/{}/account_data/m.ignored_user_list",
        segment("@bob:test")
    );
    bob.put(&list, &json!({"ignored_users": {"@spam:test": {}}}))
        .await
        .ok();
    let first = syncs(&bob, None, "set_presence=offline").await;
    spam.says(&room, "buy").await;
    let hello = alice.says(&room, "hello").await;
    spam.put(
        &format!("/profile/{}/displayname", segment("@spam:test")),
        &json!({"displayname": "Sam"}),
    )
    .await
    .ok();
    let typing = format!("/rooms/{}/typing/{}", segment(&room), segment("@spam:test"));
    spam.put(&typing, &json!({"typing": true})).await.ok();
    let invite = json!({"invite": ["@bob:test"]});
    let trap = spam.creates(invite).await;
    syncs(&spam, None, "set_presence=online").await;
    let second = syncs(&bob, Some(&first), "set_presence=offline").await;
    let joined = &second["rooms"]["join"][&room];
    assert_eq!(bodies(&joined["timeline"]["events"]), ["hello"]);
    let names: Vec<&Value> = joined["timeline"]["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|e| &e["content"]["displayname"])
        .collect();
    assert!(
        names.contains(&&json!("Sam")),
        "state events are not filtered: {joined}"
    );
    let ephemeral = joined["ephemeral"]["events"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let typing = ephemeral.iter().find(|e| e["type"] == "m.typing");
    assert!(typing.is_none_or(|e| e["content"]["user_ids"] == json!([])));
    assert_eq!(second["rooms"]["invite"], Value::Null);
    assert_eq!(second["presence"], Value::Null);
    assert_eq!(unread(&second, &room), (json!(1), json!(0)));
    let messages = format!("/rooms/{}/messages?dir=b", segment(&room));
    let page = bob.get(&messages).await.ok();
    assert_eq!(bodies(&page["chunk"]), ["hello"]);
    let context = format!("/rooms/{}/context/{}", segment(&room), segment(&hello));
    let around = bob.get(&context).await.ok();
    assert!(bodies(&around["events_before"]).is_empty());

    // Once the user is no longer ignored, its newer events and invites are sent.
    bob.put(&list, &json!({"ignored_users": {}})).await.ok();
    spam.says(&room, "again").await;
    let third = syncs(&bob, Some(&second), "set_presence=offline").await;
    assert_eq!(
        bodies(&third["rooms"]["join"][&room]["timeline"]["events"]),
        ["again"]
    );
    assert!(third["rooms"]["invite"][&trap].is_object(), "{third}");
}
