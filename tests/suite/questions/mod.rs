//! Queries to appservices during a request, and the users and aliases that appservices create then.

mod aliases;
mod limits;
mod users;

use serde_json::{Value, json};
use tests::{Answer, Bridge, Stage};

const BOB: &str = "@irc_bob:test";
const ABOUT_BOB: &str = "/_matrix/app/v1/users/@irc_bob:test";

/// What a bridge does when it is queried about bob: register him, create a device, upload keys, set a display name. The stage comes
/// to rest after each step, so that the transactions sent meanwhile are the same in each run.
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

/// Send a request. During it, the appservice is queried about bob, creates him, and answers that he exists.
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
