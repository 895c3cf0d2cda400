//! Which names an appservice uses and is sent, where an identifier has a stable and an unstable name.

use serde_json::{Value, json};
use tests::Stage;

const DIALECTS: &str = "/_understudy/appservices/irc/dialects";

#[actix_web::test]
async fn what_a_service_speaks_is_counted() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let users = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
    let old = json!({"receive_ephemeral": false, "de.sorunome.msc2409.push_ephemeral": true, "namespaces": users});
    let irc = stage.bridge_with("irc", old).await;

    stage.step("the bridge makes a ghost and a device").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.step("under the names of before").await;
    let bot = &irc.bot;
    let whoami = "/_matrix/client/r0/account/whoami?user_id=@irc_bob:test&org.matrix.msc3202.device_id=GHOST";
    bot.get(whoami).await.ok();
    let log_in = |kind: &str| json!({"type": kind, "identifier": {"type": "m.id.user", "user": "irc_bob"}, "device_id": "OTHER"});
    bot.post(
        "/login",
        &log_in("uk.half-shot.msc2778.login.application_service"),
    )
    .await
    .is_refused(400, "M_UNKNOWN");
    bot.post("/login", &log_in("m.login.application_service"))
        .await
        .ok();
    bot.anonymous()
        .get("/account/whoami?access_token=irc-as-token")
        .await
        .ok();
    // Names in refused requests are counted too.
    bot.get("/account/whoami?device_id=NONE")
        .await
        .is_refused(400, "M_UNKNOWN_DEVICE");
    stage
        .step("alice sends a message, and the bridge fails once")
        .await;
    irc.receiver.at_once(None);
    alice
        .put(
            "/sendToDevice/m.example/1",
            &json!({"messages": {"@irc_bob:test": {"GHOST": {"n": 1}}}}),
        )
        .await
        .ok();
    irc.answers(500).await;
    stage.advance(std::time::Duration::from_secs(2)).await;
    irc.answers(200).await;

    stage.step("how does the bridge speak?").await;
    let dialect = alice.anonymous().get(DIALECTS).await.ok();
    assert_eq!(
        dialect["sent"]["de.sorunome.msc2409.to_device"], 1,
        "a transaction is counted once, however often it is sent"
    );
    assert_eq!(
        dialect["registration"],
        json!(["de.sorunome.msc2409.push_ephemeral", "org.matrix.msc3202"])
    );
    stage.transcript("what_a_service_speaks_is_counted").await;
}

#[actix_web::test]
async fn only_services_in_force_have_a_dialect_and_only_their_requests_count() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    alice.get(DIALECTS).await.is_refused(404, "M_NOT_FOUND");
    let irc = stage.bridge("irc").await;
    let used = |dialect: Value| dialect["used"].clone();
    assert_eq!(used(alice.get(DIALECTS).await.ok()), json!({}));
    alice.get("/account/whoami").await.ok();
    let nobody = irc.bot.anonymous();
    nobody
        .get("/account/whoami?access_token=wrong")
        .await
        .is_refused(401, "M_UNKNOWN_TOKEN");
    // A request to an unknown path is not authenticated, so it is not counted.
    irc.bot
        .get("/_matrix/client/unstable/com.example/thing")
        .await
        .is_refused(404, "M_UNRECOGNIZED");
    assert_eq!(used(alice.get(DIALECTS).await.ok()), json!({}));
    irc.bot.get("/account/whoami").await.ok();
    assert_eq!(
        used(alice.get(DIALECTS).await.ok()),
        json!({"path": {"/_matrix/client/v3": 1}, "token": {"Authorization": 1}})
    );
}
