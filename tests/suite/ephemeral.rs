//! Typing, receipts and presence are sent in the next transaction of an interested appservice, and never queued for one that is
//! down.

use std::collections::BTreeMap;
use std::time::Duration;

use schema::ServiceId;
use serde_json::{Value, json};
use tests::person::segment;
use tests::{Person, Stage};

/// Clause: as.ephemeral.room, as.ephemeral.room-id
#[actix_web::test]
async fn typing_and_receipts_reach_the_bridge() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let room = stage.shared_room(&alice, &irc).await;
    let before = irc.receiver.count();

    stage.step("alice types").await;
    alice
        .put(
            &format!("/rooms/{room}/typing/@alice:test"),
            &json!({"typing": true, "timeout": 30_000}),
        )
        .await
        .ok();
    stage.step("the bot writes, and alice has read it").await;
    let sent = irc
        .bot
        .put(
            &format!("/rooms/{room}/send/m.room.message/1"),
            &json!({"msgtype": "m.text", "body": "hi"}),
        )
        .await
        .ok();
    stage.quiet().await;
    let event = sent["event_id"].as_str().expect("an event").to_owned();
    alice
        .post(
            &format!("/rooms/{room}/receipt/m.read/{}", segment(&event)),
            &json!({}),
        )
        .await
        .ok();
    stage.quiet().await;

    let all = irc.receiver.items(before, "ephemeral");
    assert!(
        all.iter()
            .any(|e| e["type"] == "m.typing" && e["content"]["user_ids"] == json!(["@alice:test"])),
        "{all:?}"
    );
    assert!(
        all.iter().any(|e| e["type"] == "m.receipt"
            && e["content"][&event]["m.read"]["@alice:test"].is_object()),
        "{all:?}"
    );
    assert!(
        all.iter().all(|e| e["room_id"].is_string()),
        "each ephemeral event names its room"
    );
    stage
        .transcript("typing_and_receipts_reach_the_bridge")
        .await;
}

/// Clause: as.ephemeral.opt-in, as.ephemeral.private-receipts
#[actix_web::test]
async fn private_receipts_stay_private_and_services_with_unstable_names_are_sent_those() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let users = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
    let old = json!({"receive_ephemeral": false, "de.sorunome.msc2409.push_ephemeral": true, "namespaces": users});
    let irc = stage.bridge_with("irc", old).await;
    let room = stage.shared_room(&alice, &irc).await;
    let sent = alice
        .put(
            &format!("/rooms/{room}/send/m.room.message/1"),
            &json!({"msgtype": "m.text", "body": "hi"}),
        )
        .await
        .ok();
    stage.quiet().await;
    let event = segment(sent["event_id"].as_str().expect("an event"));
    let before = irc.receiver.count();
    alice
        .post(
            &format!("/rooms/{room}/receipt/m.read.private/{event}"),
            &json!({}),
        )
        .await
        .ok();
    stage.quiet().await;
    assert_eq!(
        irc.receiver.count(),
        before,
        "a private receipt of another user is not sent"
    );
    alice
        .put(
            &format!("/rooms/{room}/typing/@alice:test"),
            &json!({"typing": true, "timeout": 30_000}),
        )
        .await
        .ok();
    stage.quiet().await;
    assert_eq!(
        irc.receiver
            .items(before, "de.sorunome.msc2409.ephemeral")
            .len(),
        1
    );
    assert!(irc.receiver.items(before, "ephemeral").is_empty());
}

const OLD: &str = "de.sorunome.msc2409.ephemeral";

async fn types(person: &Person, room: &str, typing: bool) {
    let path = format!("/rooms/{room}/typing/{}", person.user_id);
    let body = if typing {
        json!({"typing": true, "timeout": 30_000})
    } else {
        json!({"typing": false})
    };
    person.put(&path, &body).await.ok();
}

async fn reads(person: &Person, room: &str, kind: &str, event: &str, thread: Option<&str>) {
    let path = format!("/rooms/{room}/receipt/{kind}/{}", segment(event));
    let body = thread.map_or(json!({}), |thread| json!({"thread_id": thread}));
    person.post(&path, &body).await.ok();
}

/// How many ephemeral events wait for each appservice.
async fn pending(stage: &Stage) -> BTreeMap<String, usize> {
    let sync = stage.app().actors.sync.addr();
    let view = sync.send(actors::sync::Observe).await.expect("an answer");
    view.expect("a view").pending
}

async fn is_online(person: &Person, message: &str) {
    let path = format!("/presence/{}/status", person.user_id);
    let body = json!({"presence": "online", "status_msg": message});
    person.put(&path, &body).await.ok();
}

/// Clause: as.ephemeral.opt-in
#[actix_web::test]
async fn who_has_both_flags_is_told_under_both_names() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let users = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
    let both = json!({"de.sorunome.msc2409.push_ephemeral": true, "namespaces": users.clone()});
    let irc = stage.bridge_with("irc", both).await;
    let room = stage.shared_room(&alice, &irc).await;
    let before = irc.receiver.count();
    stage.step("alice types").await;
    types(&alice, &room, true).await;
    stage.quiet().await;
    let stable = irc.receiver.items(before, "ephemeral");
    assert_eq!(stable.len(), 1);
    assert_eq!(stable, irc.receiver.items(before, OLD));
    stage
        .transcript("who_has_both_flags_is_told_under_both_names")
        .await;
}

#[actix_web::test]
async fn a_typing_storm_is_one_word() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let room = stage.shared_room(&alice, &irc).await;
    let other = stage.shared_room(&alice, &irc).await;
    let before = irc.receiver.count();
    irc.receiver.at_once(None);
    stage
        .step("a message, which the bridge does not answer yet")
        .await;
    alice.says(&room, "one").await;
    stage.quiet().await;
    stage
        .step("in two rooms alice begins and ceases, and in one begins again")
        .await;
    for typing in [true, false] {
        types(&alice, &room, typing).await;
        types(&alice, &other, typing).await;
    }
    types(&alice, &other, true).await;
    stage.quiet().await;
    assert_eq!(pending(&stage).await["irc"], 2, "one event for each room");
    stage.step("now the bridge answers").await;
    irc.answers(200).await;
    irc.answers(200).await;
    stage.quiet().await;
    let events = irc.receiver.items(before, "ephemeral");
    let who: Vec<_> = events.iter().map(|e| &e["content"]["user_ids"]).collect();
    assert_eq!(who, [&json!([]), &json!(["@alice:test"])]);
    stage.transcript("a_typing_storm_is_one_word").await;
}

/// Clause: as.ephemeral.not-kept
#[actix_web::test]
async fn nothing_fleeting_is_kept_for_a_service_that_is_down() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let room = stage.shared_room(&alice, &irc).await;
    let before = irc.receiver.count();
    irc.receiver.at_once(Some(503));
    stage.step("the bridge is down").await;
    let event = alice.says(&room, "one").await;
    stage.quiet().await;
    stage
        .step("meanwhile alice types, reads and comes online")
        .await;
    types(&alice, &room, true).await;
    reads(&alice, &room, "m.read", &event, None).await;
    is_online(&alice, "here").await;
    stage.quiet().await;
    assert_eq!(pending(&stage).await, BTreeMap::new(), "nothing is kept");

    stage
        .step("the bridge is back: it gets the message, and nothing that was fleeting")
        .await;
    irc.receiver.at_once(Some(200));
    stage.advance(Duration::from_secs(1)).await;
    assert_eq!(irc.receiver.taken(before).len(), 1);
    assert!(irc.receiver.items(before, "ephemeral").is_empty());

    stage.step("what happens from now on it hears").await;
    types(&alice, &room, false).await;
    stage.quiet().await;
    assert_eq!(irc.receiver.items(before, "ephemeral").len(), 1);
    stage
        .transcript("nothing_fleeting_is_kept_for_a_service_that_is_down")
        .await;
}

#[actix_web::test]
async fn no_ephemeral_event_is_kept_for_a_service_whose_file_is_gone() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let room = stage.shared_room(&alice, &irc).await;
    irc.receiver.at_once(None);
    alice.says(&room, "one").await;
    stage.quiet().await;
    types(&alice, &room, true).await;
    stage.quiet().await;
    std::fs::remove_file(stage.registration_file("irc")).expect("removed");
    stage.reload().await;
    types(&alice, &room, false).await;
    stage.quiet().await;
    assert_eq!(pending(&stage).await, BTreeMap::new());
    irc.answers(200).await;
}

/// Clause: as.ephemeral.private-receipts
#[actix_web::test]
async fn private_receipts_only_of_its_own_users_and_a_receipt_for_each_thread() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let room = stage.shared_room(&alice, &irc).await;
    let ghost = irc.ghost("bob").await;
    alice.invites(&room, &ghost.user_id).await;
    stage.quiet().await;
    ghost.joins(&room).await;
    stage.quiet().await;
    let event = alice.says(&room, "one").await;
    stage.quiet().await;
    let before = irc.receiver.count();

    stage.step("alice and the ghost read, both privately").await;
    reads(&alice, &room, "m.read.private", &event, None).await;
    reads(&ghost, &room, "m.read.private", &event, None).await;
    stage.quiet().await;
    let sent = irc.receiver.items(before, "ephemeral");
    assert_eq!(sent.len(), 1, "{sent:?}");
    let private = &sent[0]["content"][&event]["m.read.private"];
    assert!(private.get("@irc_bob:test").is_some() && private.get("@alice:test").is_none());

    let before = irc.receiver.count();
    irc.receiver.at_once(None);
    stage
        .step("alice reads for everybody to see: the room, and its main thread")
        .await;
    alice.says(&room, "two").await;
    stage.quiet().await;
    reads(&alice, &room, "m.read", &event, None).await;
    reads(&alice, &room, "m.read", &event, Some("main")).await;
    stage.quiet().await;
    irc.answers(200).await;
    irc.answers(200).await;
    stage.quiet().await;
    let sent = irc.receiver.items(before, "ephemeral");
    let threads: Vec<_> = sent
        .iter()
        .map(|e| e["content"][&event]["m.read"]["@alice:test"]["thread_id"].clone())
        .collect();
    assert_eq!(threads, [Value::Null, "main".into()]);
    stage
        .transcript("private_receipts_only_of_its_own_users_and_a_receipt_for_each_thread")
        .await;
}

/// Clause: as.ephemeral.presence
#[actix_web::test]
async fn presence_of_its_own_users_and_of_who_shares_a_room() {
    let stage = Stage::with(&[3202, 4203], |options| {
        options.settings.observe = Some(vec![ServiceId::from("granted")]);
    })
    .await;
    let alice = stage.person("alice", "LAPTOP").await;
    let stranger = stage.person("stranger", "LAPTOP").await;
    let everybody = json!({"users": [{"exclusive": false, "regex": "@.*"}]});
    let irc = stage.bridge("irc").await;
    let granted = stage
        .bridge_with("granted", json!({"namespaces": everybody.clone()}))
        .await;
    let curious = stage
        .bridge_with("curious", json!({"namespaces": everybody}))
        .await;
    stage.shared_room(&alice, &irc).await;
    let ghost = irc.ghost("bob").await;
    stage.quiet().await;
    let bridges = [&irc, &granted, &curious];
    let before = bridges.map(|b| b.receiver.count());

    stage
        .step("a stranger, the ghost and alice come online")
        .await;
    is_online(&stranger, "nobody knows me").await;
    stage.quiet().await;
    is_online(&ghost, "somewhere else").await;
    stage.quiet().await;
    is_online(&alice, "here").await;
    stage.quiet().await;
    let sent = |i: usize| -> Vec<String> {
        let all = bridges[i].receiver.items(before[i], "ephemeral");
        let sender = |e: &Value| e["sender"].as_str().expect("a sender").to_owned();
        all.iter().map(sender).collect()
    };
    assert_eq!(sent(0), ["@irc_bob:test", "@alice:test"]);
    assert_eq!(sent(1), ["@stranger:test", "@irc_bob:test", "@alice:test"]);
    assert_eq!(
        sent(2),
        ["@alice:test"],
        "without a grant, only users that share a room are observed"
    );
    stage
        .transcript("presence_of_its_own_users_and_of_who_shares_a_room")
        .await;
}

/// Clause: cs.sync.presence
#[actix_web::test]
async fn invalid_ephemeral_events_are_refused_and_not_sent() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let mallory = stage.person("mallory", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let room = stage.shared_room(&alice, &irc).await;
    let event = segment(&alice.says(&room, "one").await);
    stage.quiet().await;
    let before = irc.receiver.count();
    let typing = json!({"typing": true, "timeout": 30_000});
    for (who, path, body, status, code) in [
        (
            &mallory,
            format!("/rooms/{room}/typing/@mallory:test"),
            typing.clone(),
            403,
            "M_FORBIDDEN",
        ),
        (
            &mallory,
            format!("/rooms/{room}/typing/@alice:test"),
            typing,
            403,
            "M_FORBIDDEN",
        ),
        (
            &alice,
            format!("/rooms/{room}/typing/@alice:test"),
            json!({"typing": "yes"}),
            400,
            "M_BAD_JSON",
        ),
        (
            &mallory,
            "/presence/@alice:test/status".into(),
            json!({"presence": "online"}),
            403,
            "M_FORBIDDEN",
        ),
        (
            &alice,
            "/presence/@alice:test/status".into(),
            json!({"presence": "partying"}),
            400,
            "M_INVALID_PARAM",
        ),
        (
            &alice,
            "/presence/@alice:test/status".into(),
            json!({"presence": "online", "status_msg": "x".repeat(1025)}),
            400,
            "M_INVALID_PARAM",
        ),
        (
            &alice,
            "/presence/@alice:test/status".into(),
            json!({}),
            400,
            "M_MISSING_PARAM",
        ),
    ] {
        who.put(&path, &body).await.is_refused(status, code);
    }
    for (who, path, body, status, code) in [
        (
            &mallory,
            format!("/rooms/{room}/receipt/m.read/{event}"),
            json!({}),
            403,
            "M_FORBIDDEN",
        ),
        (
            &alice,
            format!("/rooms/{room}/receipt/m.seen/{event}"),
            json!({}),
            400,
            "M_INVALID_PARAM",
        ),
        (
            &alice,
            format!("/rooms/{room}/receipt/m.read/nothing"),
            json!({}),
            400,
            "M_INVALID_PARAM",
        ),
        (
            &alice,
            format!("/rooms/{room}/receipt/m.read/{event}"),
            json!({"thread_id": "\0"}),
            400,
            "M_BAD_JSON",
        ),
    ] {
        who.post(&path, &body).await.is_refused(status, code);
    }
    stage.quiet().await;
    assert_eq!(irc.receiver.count(), before);
}
