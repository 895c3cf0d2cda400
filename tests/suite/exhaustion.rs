//! A client claims one-time keys without end: the appservice is notified at once and refills them, and others are served meanwhile.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Bridge, Person, Stage};
use understudy::http::limits::RateLimit;

use crate::counts::{claim, last_counts, upload};

/// Three claims at once, then one in ten seconds.
const LIMIT: RateLimit = RateLimit {
    per_second: 0.1,
    burst: 3.0,
};

async fn stage() -> Stage {
    Stage::with(&[3202, 4203], |options| {
        options.door.claim_limit = Some(LIMIT)
    })
    .await
}

fn wanted(devices: &[(&str, &str)]) -> Value {
    let mut wanted = json!({});
    for (user, device) in devices {
        wanted[user][device] = "signed_curve25519".into();
    }
    json!({"one_time_keys": wanted})
}

/// A ghost's device with `keys` one-time keys. The bridge has been sent the count.
async fn ghost(stage: &Stage, irc: &Bridge, name: &str, device: &str, keys: usize) -> Person {
    let ghost = irc.ghost_with_device(name, device).await;
    stage.quiet().await;
    upload(&ghost, 0..keys, true).await;
    stage.advance(Duration::from_secs(1)).await;
    ghost
}

/// Clause: own.counts.empty-at-once
#[actix_web::test]
async fn a_hostile_claimer_drains_a_device_and_the_service_refills_it() {
    let stage = stage().await;
    let mallory = stage.person("mallory", "LAPTOP").await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = ghost(&stage, &irc, "bob", "GHOST", 2).await;
    let from_bob = wanted(&[(&bob.user_id, "GHOST")]);
    let started = irc.receiver.count();

    stage.step("mallory claims a key, and another").await;
    mallory.post("/keys/claim", &from_bob).await.ok();
    mallory.post("/keys/claim", &from_bob).await.ok();
    stage.quiet().await;
    assert_eq!(
        last_counts(&irc, &bob.user_id, "GHOST"),
        (
            json!({"signed_curve25519": 0}),
            json!(["signed_curve25519"])
        ),
        "that was the last: no time has passed, and zero is told"
    );
    stage.step("and the fallback key").await;
    mallory.post("/keys/claim", &from_bob).await.ok();
    stage.quiet().await;
    assert_eq!(last_counts(&irc, &bob.user_id, "GHOST").1, json!([]));
    assert_eq!(
        irc.receiver.count() - started,
        2,
        "one transaction for each change"
    );

    stage
        .step("mallory goes on, and is told when to come back")
        .await;
    let refused = mallory.post("/keys/claim", &from_bob).await;
    refused.is_refused(429, "M_LIMIT_EXCEEDED");
    assert_eq!(refused.body["retry_after_ms"], 10_000);

    stage
        .step("the service refills, fallback key and all")
        .await;
    let key = json!({"key": "new", "signatures": {}});
    let fallback = json!({"key": "new", "fallback": true, "signatures": {}});
    let new = json!({
        "one_time_keys": {"signed_curve25519:K2": key, "signed_curve25519:K3": key},
        "fallback_keys": {"signed_curve25519:F2": fallback},
    });
    bob.post("/keys/upload", &new).await.ok();
    stage.advance(Duration::from_millis(200)).await;
    assert_eq!(
        last_counts(&irc, &bob.user_id, "GHOST"),
        (
            json!({"signed_curve25519": 2}),
            json!(["signed_curve25519"])
        )
    );

    stage.step("mallory gets nothing of it").await;
    let refused = mallory.post("/keys/claim", &from_bob).await;
    refused.is_refused(429, "M_LIMIT_EXCEEDED");
    assert_eq!(refused.body["retry_after_ms"], 9_800);
    stage.step("alice does").await;
    let key = alice.post("/keys/claim", &from_bob).await.ok();
    assert!(key["one_time_keys"][&bob.user_id]["GHOST"]["signed_curve25519:K2"].is_object());
    stage.advance(Duration::from_millis(200)).await;

    stage.step("ten seconds later mallory gets one").await;
    stage.advance(Duration::from_secs(10)).await;
    let key = mallory.post("/keys/claim", &from_bob).await.ok();
    assert!(key["one_time_keys"][&bob.user_id]["GHOST"]["signed_curve25519:K3"].is_object());
    stage.step("and one only").await;
    mallory
        .post("/keys/claim", &from_bob)
        .await
        .is_refused(429, "M_LIMIT_EXCEEDED");
    stage
        .transcript("a_hostile_claimer_drains_a_device_and_the_service_refills_it")
        .await;
}

/// Clause: own.claims.limited
#[actix_web::test]
async fn one_device_that_is_limited_does_not_keep_a_message_from_the_others() {
    let stage = stage().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = ghost(&stage, &irc, "bob", "BOB", 9).await;
    let cat = ghost(&stage, &irc, "cat", "CAT", 9).await;
    for _ in 0..3 {
        assert!(claim(&alice, &bob.user_id, "BOB").await.is_object());
    }

    stage
        .step("alice has claimed from bob too often, and needs a key of cat")
        .await;
    let both = wanted(&[(&bob.user_id, "BOB"), (&cat.user_id, "CAT")]);
    let keys = alice.post("/keys/claim", &both).await.ok();
    assert!(
        keys["one_time_keys"].get(&bob.user_id).is_none(),
        "as if bob had no keys"
    );
    assert!(keys["one_time_keys"][&cat.user_id]["CAT"].is_object());
    stage
        .transcript("one_device_that_is_limited_does_not_keep_a_message_from_the_others")
        .await;

    // The limit counts all devices of a user together.
    let phone = stage.log_in("alice", "PHONE").await;
    let only_bob = wanted(&[(&bob.user_id, "BOB")]);
    phone
        .post("/keys/claim", &only_bob)
        .await
        .is_refused(429, "M_LIMIT_EXCEEDED");
    // The refused claims took no key from bob: six are left.
    stage.advance(Duration::from_secs(1)).await;
    assert_eq!(
        last_counts(&irc, &bob.user_id, "BOB").0,
        json!({"signed_curve25519": 6})
    );
}

/// Clause: as.registration.rate-limited, as.registration.sender-not-limited
#[actix_web::test]
async fn claims_are_not_limited_for_exempt_services_and_without_a_limit() {
    let limited = stage().await;
    let irc = limited.bridge("irc").await;
    let bob = ghost(&limited, &irc, "bob", "GHOST", 9).await;
    // The bridge's registration says `rate_limited: false`.
    for claimer in [&irc.bot, &irc.ghost("cat").await] {
        for _ in 0..4 {
            assert!(claim(claimer, &bob.user_id, "GHOST").await.is_object());
        }
    }
    let free = Stage::new().await;
    let alice = free.person("alice", "LAPTOP").await;
    let irc = free.bridge("irc").await;
    let bob = ghost(&free, &irc, "bob", "GHOST", 30).await;
    for _ in 0..30 {
        assert!(claim(&alice, &bob.user_id, "GHOST").await.is_object());
    }
}

/// Clause: as.registration.rate-limited
#[actix_web::test]
async fn the_ghosts_of_a_rate_limited_service_are_limited_like_other_users() {
    let stage = stage().await;
    let users = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
    let irc = stage
        .bridge_with("irc", json!({"rate_limited": true, "namespaces": users}))
        .await;
    let bob = ghost(&stage, &irc, "bob", "GHOST", 20).await;
    let cat = irc.ghost("cat").await;
    let from_bob = wanted(&[(&bob.user_id, "GHOST")]);
    for _ in 0..3 {
        cat.post("/keys/claim", &from_bob).await.ok();
    }
    cat.post("/keys/claim", &from_bob)
        .await
        .is_refused(429, "M_LIMIT_EXCEEDED");
    for _ in 0..4 {
        irc.bot.post("/keys/claim", &from_bob).await.ok();
    }
}

#[actix_web::test]
async fn a_malformed_claim_does_not_count_against_the_limit() {
    let stage = stage().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = ghost(&stage, &irc, "bob", "GHOST", 9).await;
    let nul = json!({"one_time_keys": {&bob.user_id: {"GHOST": "signed_curve25519", "\0": "signed_curve25519"}}});
    for _ in 0..5 {
        let refused = alice.post("/keys/claim", &nul).await;
        assert_eq!(refused.status, 400, "{refused:?}");
    }
    for _ in 0..3 {
        assert!(claim(&alice, &bob.user_id, "GHOST").await.is_object());
    }
    // A claim of an unknown device is limited too, so that the limit does not tell whether a device exists.
    let nobody = wanted(&[("@irc_nobody:test", "NONE")]);
    for _ in 0..3 {
        let none = alice.post("/keys/claim", &nobody).await.ok();
        assert_eq!(none["one_time_keys"], json!({}));
    }
    alice
        .post("/keys/claim", &nobody)
        .await
        .is_refused(429, "M_LIMIT_EXCEEDED");
}

#[actix_web::test]
async fn counts_that_waited_during_a_crash_are_sent_when_the_server_starts() {
    let mut stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = ghost(&stage, &irc, "bob", "GHOST", 1).await;
    irc.receiver.at_once(Some(503));
    let before = irc.receiver.count();
    claim(&alice, &bob.user_id, "GHOST").await;
    stage.quiet().await;
    assert_eq!(
        irc.receiver.count() - before,
        1,
        "the service refused the transaction"
    );
    irc.receiver.at_once(Some(200));
    stage.restart().await;
    let received = irc.receiver.received();
    let [.., refused, taken] = &received[..] else {
        panic!("{received:?}");
    };
    assert_eq!(
        (&refused.path, &refused.body),
        (&taken.path, &taken.body),
        "the same bytes under the same id"
    );
    assert_eq!(
        last_counts(&irc, &bob.user_id, "GHOST").0,
        json!({"signed_curve25519": 0})
    );
}
