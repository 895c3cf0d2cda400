//! One-time-key counts are sent for recipients of messages, for the appservice's sender, and when they change, including to zero.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Bridge, Person, Stage};

const COUNTS: &str = "org.matrix.msc3202.device_one_time_keys_count";
const FALLBACK: &str = "org.matrix.msc3202.device_unused_fallback_key_types";

pub(crate) async fn upload(device: &Person, one_time: std::ops::Range<usize>, fallback: bool) {
    let key = |n: usize| {
        (
            format!("signed_curve25519:K{n}"),
            json!({"key": format!("key{n}"), "signatures": {}}),
        )
    };
    let one_time: serde_json::Map<String, Value> = one_time.map(key).collect();
    let mut body = json!({"one_time_keys": one_time});
    if fallback {
        body["fallback_keys"] =
            json!({"signed_curve25519:F": {"key": "fallback", "fallback": true, "signatures": {}}});
    }
    device.post("/keys/upload", &body).await.ok();
}

pub(crate) async fn claim(person: &Person, user: &str, device: &str) -> Value {
    let body = json!({"one_time_keys": {user: {device: "signed_curve25519"}}});
    person.post("/keys/claim", &body).await.ok()["one_time_keys"][user][device].clone()
}

/// The last one-time-key counts and unused fallback key types that a bridge was sent for a device.
pub(crate) fn last_counts(bridge: &Bridge, user: &str, device: &str) -> (Value, Value) {
    let all = bridge.receiver.taken(0);
    let last = |key: &str| {
        all.iter()
            .rev()
            .map(|t| t[key][user][device].clone())
            .find(|v| !v.is_null())
            .unwrap_or(Value::Null)
    };
    (last(COUNTS), last(FALLBACK))
}

/// Clause: as.counts.changed, as.counts.zero, as.counts.fallback, cs.keys.fallback-stays
/// Clause: own.counts.empty-at-once
#[actix_web::test]
async fn a_claim_that_empties_a_device_is_told_at_once() {
    let stage = Stage::with_mscs(&[3202, 4203]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bot = irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    upload(&bot, 0..2, true).await;
    stage.advance(Duration::from_secs(1)).await;
    assert_eq!(
        last_counts(&irc, &bot.user_id, "GHOST"),
        (
            json!({"signed_curve25519": 2}),
            json!(["signed_curve25519"])
        )
    );

    for (expected, told) in [
        ("signed_curve25519:K0", "the count waits for company"),
        ("signed_curve25519:K1", "and zero is told at once"),
        ("signed_curve25519:F", "and so is that it is used"),
    ] {
        stage
            .step(&format!("a claim gets {expected}, {told}"))
            .await;
        let key = claim(&alice, &bot.user_id, "GHOST").await;
        assert_eq!(
            key.as_object().expect("a key").keys().collect::<Vec<_>>(),
            [expected]
        );
    }

    stage.quiet().await;
    assert_eq!(
        last_counts(&irc, &bot.user_id, "GHOST"),
        (json!({"signed_curve25519": 0}), json!([]))
    );
    stage
        .transcript("a_claim_that_empties_a_device_is_told_at_once")
        .await;
}

#[actix_web::test]
async fn a_flood_of_claims_causes_one_transaction() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bot = irc.ghost_with_device("bob", "GHOST").await;
    upload(&bot, 0..40, false).await;
    stage.advance(Duration::from_secs(1)).await;
    let before = irc.receiver.count();
    for _ in 0..40 {
        claim(&alice, &bot.user_id, "GHOST").await;
    }
    stage.advance(Duration::from_secs(1)).await;
    assert_eq!(irc.receiver.count() - before, 1);
    assert_eq!(
        last_counts(&irc, &bot.user_id, "GHOST").0,
        json!({"signed_curve25519": 0})
    );
}

/// Clause: as.counts.sender, as.counts.without-keys
#[actix_web::test]
async fn the_sender_is_always_counted_and_a_ghost_without_a_device_never() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.bot.put("/devices/BOT", &json!({})).await.ok();
    upload(&irc.bot.playing("@ircbot:test", Some("BOT")), 0..3, false).await;
    let ghost = irc.ghost("plain").await;
    stage.advance(Duration::from_secs(1)).await;
    let before = irc.receiver.count();
    let made = alice
        .post(
            "/createRoom",
            &json!({"invite": ["@ircbot:test", ghost.user_id]}),
        )
        .await
        .ok();
    let room = tests::person::segment(made["room_id"].as_str().expect("a room"));
    ghost
        .post(&format!("/rooms/{room}/join"), &json!({}))
        .await
        .ok();
    stage.quiet().await;
    for transaction in irc.receiver.taken(before) {
        assert_eq!(
            transaction[COUNTS]["@ircbot:test"]["BOT"],
            json!({"signed_curve25519": 3}),
            "{transaction}"
        );
        assert!(
            transaction[COUNTS].get(&ghost.user_id).is_none()
                && transaction[FALLBACK].get(&ghost.user_id).is_none()
        );
    }
}

/// Clause: as.counts.recipient
#[actix_web::test]
async fn the_recipient_of_a_message_is_counted_with_it() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    upload(&bob, 0..5, true).await;
    stage.advance(Duration::from_secs(1)).await;
    let before = irc.receiver.count();
    stage
        .step("a message for the ghost brings its counts along")
        .await;
    alice
        .put(
            "/sendToDevice/m.example/1",
            &json!({"messages": {&bob.user_id: {"GHOST": {}}}}),
        )
        .await
        .ok();
    stage.quiet().await;
    let taken = irc.receiver.taken(before);
    assert_eq!(taken.len(), 1);
    assert_eq!(
        taken[0][COUNTS][&bob.user_id]["GHOST"],
        json!({"signed_curve25519": 5})
    );
    stage
        .transcript("the_recipient_of_a_message_is_counted_with_it")
        .await;
}

/// Clause: as.counts.opt-in
#[actix_web::test]
async fn a_service_without_the_opt_in_is_sent_no_counts() {
    let stage = Stage::new().await;
    let users = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
    let irc = stage
        .bridge_with(
            "irc",
            json!({"org.matrix.msc3202": false, "namespaces": users}),
        )
        .await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    upload(&bob, 0..5, true).await;
    stage.advance(Duration::from_secs(1)).await;
    assert_eq!(irc.receiver.count(), 0);
}
