//! Checks that the statements which a server executes repeatedly are prepared once, and not anew for each execution.

use serde_json::json;
use tests::person::segment;
use tests::statements::Statements;
use tests::{Person, Stage};

use crate::counts::upload;

/// A message, an event, new keys, a claim, a leave and a join, each with what a bridge is sent because of it.
async fn everything(alice: &Person, bob: &Person, carol: &Person, room: &str, round: usize) {
    let ghost = &carol.user_id;
    let message = json!({"messages": {ghost: {"GHOST": {"n": round}}}});
    let path = format!("/sendToDevice/m.example/{round}");
    alice.put(&path, &message).await.ok();
    let path = format!("/rooms/{}/send/m.example/{round}", segment(room));
    alice.put(&path, &json!({"n": round})).await.ok();
    let path = format!(
        "/rooms/{}/typing/{}",
        segment(room),
        segment(&alice.user_id)
    );
    alice
        .put(&path, &json!({"typing": true, "timeout": 30_000}))
        .await
        .ok();
    let leave = format!("/rooms/{}/leave", segment(room));
    bob.post(&leave, &json!({})).await.ok();
    let join = format!("/join/{}", segment(room));
    bob.post(&join, &json!({})).await.ok();
    upload(carol, round..round + 1, false).await;
    let wanted = json!({"one_time_keys": {ghost: {"GHOST": "signed_curve25519"}}});
    alice.post("/keys/claim", &wanted).await.ok();
    let query = json!({"device_keys": {ghost: []}});
    alice.post("/keys/query", &query).await.ok();
    alice.get("/sync").await.ok();
}

#[actix_web::test]
async fn the_statements_of_steady_work_are_prepared_once() {
    let (stage, statements) = Statements::of(Stage::new()).await;
    let (alice, bob) = (
        stage.person("alice", "LAPTOP").await,
        stage.person("bob", "PHONE").await,
    );
    let irc = stage.bridge("irc").await;
    let carol = irc.ghost_with_device("carol", "GHOST").await;
    let made = alice
        .post("/createRoom", &json!({"preset": "public_chat"}))
        .await
        .ok();
    let room = made["room_id"].as_str().expect("a room").to_owned();
    for person in [&bob, &carol] {
        let path = format!("/join/{}", segment(&room));
        person.post(&path, &json!({})).await.ok();
    }
    for round in 0..3 {
        everything(&alice, &bob, &carol, &room, round).await;
        stage.quiet().await;
        let prepared = statements.prepared_anew();
        // The first round prepares what is kept.
        assert!(
            round == 0 || prepared.is_empty(),
            "round {round}: {prepared:#?}"
        );
    }
}
