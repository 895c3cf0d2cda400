//! Questions to services before a request goes on: users and aliases that a service makes when it hears of them.

use serde_json::json;
use tests::{Bridge, Stage};

const BOB: &str = "@irc_bob:test";

/// What a bridge does when it is asked about Bob: register him, make him a device, upload keys.
async fn makes_bob(irc: &Bridge) {
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    let mut keys = json!({
        "device_keys": {"user_id": BOB, "device_id": "GHOST", "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
            "keys": {"curve25519:GHOST": "curve", "ed25519:GHOST": "ed"}, "signatures": {}},
        "one_time_keys": {"signed_curve25519:K0": {"key": "key0", "signatures": {}}},
    });
    keys["device_keys"]["signatures"] = json!({BOB: {"ed25519:GHOST": "signature"}});
    bob.post("/keys/upload", &keys).await.ok();
}

#[actix_web::test]
async fn keys_of_a_user_whom_its_service_makes_while_it_is_asked() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    stage
        .step(
            "Alice asks for the keys of a user who does not exist; his service is asked about him",
        )
        .await;
    let query = json!({"device_keys": {BOB: []}});
    let (found, ()) = tokio::join!(alice.post("/keys/query", &query), async {
        let question = irc.is_asked().await;
        stage
            .step("while it is asked the service makes the user, a device and keys")
            .await;
        makes_bob(&irc).await;
        stage
            .step("then it says that he exists, and Alice's request goes on and finds them")
            .await;
        question.answers(200, &json!({}));
    });
    let found = found.ok();
    assert_eq!(
        found["device_keys"][BOB]["GHOST"]["keys"]["curve25519:GHOST"],
        "curve"
    );
    stage
        .transcript("keys_of_a_user_whom_its_service_makes_while_it_is_asked")
        .await;
    // He is known now.
    alice.aside().post("/keys/query", &query).await.ok();
    assert_eq!(irc.receiver.questions().len(), 1);
}
