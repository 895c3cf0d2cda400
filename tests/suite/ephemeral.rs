//! Typing and receipts: in the next transaction of who is interested, never queued for a service that is down.

use serde_json::{Value, json};
use tests::person::segment;
use tests::{Bridge, Person, Stage};

fn ephemeral(bridge: &Bridge, skip: usize, key: &str) -> Vec<Value> {
    let taken = bridge.receiver.taken(skip);
    taken
        .iter()
        .flat_map(|t| t[key].as_array().cloned().unwrap_or_default())
        .collect()
}

async fn shared_room(stage: &Stage, alice: &Person, bridge: &Bridge) -> String {
    let made = alice
        .post("/createRoom", &json!({"invite": [bridge.bot.user_id]}))
        .await
        .ok();
    let room = made["room_id"].as_str().expect("a room").to_owned();
    stage.quiet().await;
    bridge
        .bot
        .post(&format!("/rooms/{}/join", segment(&room)), &json!({}))
        .await
        .ok();
    stage.quiet().await;
    room
}

#[actix_web::test]
async fn typing_and_receipts_reach_the_bridge() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let room = segment(&shared_room(&stage, &alice, &irc).await);
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

    let all = ephemeral(&irc, before, "ephemeral");
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
        "each says in which room"
    );
    stage
        .transcript("typing_and_receipts_reach_the_bridge")
        .await;
}

#[actix_web::test]
async fn private_receipts_stay_private_and_old_names_are_spoken_to_who_uses_them() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let users = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
    let old = json!({"receive_ephemeral": false, "de.sorunome.msc2409.push_ephemeral": true, "namespaces": users});
    let irc = stage.bridge_with("irc", old).await;
    let room = segment(&shared_room(&stage, &alice, &irc).await);
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
    assert_eq!(irc.receiver.count(), before, "nobody else's business");
    alice
        .put(
            &format!("/rooms/{room}/typing/@alice:test"),
            &json!({"typing": true, "timeout": 30_000}),
        )
        .await
        .ok();
    stage.quiet().await;
    assert_eq!(
        ephemeral(&irc, before, "de.sorunome.msc2409.ephemeral").len(),
        1
    );
    assert!(ephemeral(&irc, before, "ephemeral").is_empty());
}
