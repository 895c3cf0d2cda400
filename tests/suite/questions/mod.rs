//! Questions to services before a request goes on: users and aliases that a service makes when it hears of them.

mod aliases;
mod limits;
mod users;

use serde_json::{Value, json};
use tests::{Answer, Bridge, Stage};

const BOB: &str = "@irc_bob:test";
const ABOUT_BOB: &str = "/_matrix/app/v1/users/@irc_bob:test";

/// What a bridge does when it is asked about Bob: register him, make him a device, upload keys, name him. The stage comes to
/// rest in between, so that what the bridge is sent meanwhile comes in the same transactions each time.
async fn makes_bob(stage: &Stage, irc: &Bridge) {
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    let keys = json!({
        "device_keys": {"user_id": BOB, "device_id": "GHOST", "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
            "keys": {"curve25519:GHOST": "curve", "ed25519:GHOST": "ed"},
            "signatures": {BOB: {"ed25519:GHOST": "signature"}}},
        "one_time_keys": {"signed_curve25519:K0": {"key": "key0", "signatures": {}}},
    });
    bob.post("/keys/upload", &keys).await.ok();
    stage.quiet().await;
    let name = json!({"displayname": "Bob"});
    let profile = format!("/profile/{BOB}/displayname");
    bob.put(&profile, &name).await.ok();
}

/// This request, while whose service is asked about Bob, makes him, and says that he exists.
async fn while_bob_is_made(
    stage: &Stage,
    irc: &Bridge,
    request: impl Future<Output = Answer>,
) -> Value {
    irc.receiver.to_questions(None);
    let (answer, ()) = tokio::join!(request, async {
        let question = irc.receiver.is_asked().await;
        assert_eq!(question.path, ABOUT_BOB);
        makes_bob(stage, irc).await;
        question.answers(200, &json!({}));
    });
    answer.ok()
}
