//! The requests that unmodified bridges and clients send when they start, one by one.

use serde_json::{Value, json};
use tests::{Bridge, Person, Stage};

const OLD_NAME: &str = "org.matrix.msc3202.device_id";

fn keys(device: &Person, one_time: usize) -> Value {
    let id = device.device_id.as_deref().expect("a device");
    let one_time: serde_json::Map<String, Value> = (0..one_time)
        .map(|n| {
            let key = json!({"key": format!("key{n}"), "signatures": {}});
            (format!("signed_curve25519:{n}"), key)
        })
        .collect();
    json!({
        "device_keys": {
            "user_id": device.user_id, "device_id": id, "algorithms": ["m.megolm.v1.aes-sha2"],
            "keys": {format!("curve25519:{id}"): "c", format!("ed25519:{id}"): "e"}, "signatures": {},
        },
        "one_time_keys": one_time,
    })
}

async fn registers_itself(bridge: &Bridge) {
    let body =
        json!({"type": "m.login.application_service", "username": "ircbot", "inhibit_login": true});
    let answer = bridge.bot.post("/register?kind=user", &body).await;
    assert!(
        answer.status == 200 || answer.body["errcode"] == "M_USER_IN_USE",
        "{answer:?}"
    );
}

/// Find the bridge's device, or create it on the first start. `made` is the expected status of the request that creates it.
async fn finds_its_device(stage: &Stage, bridge: &Bridge, device: &str, made: u16) -> Person {
    let me = bridge.bot.user_id.clone();
    let query = json!({"device_keys": {&me: []}});
    let known = bridge.bot.post("/keys/query", &query).await.ok();
    assert_eq!(known["device_keys"][&me].get(device).is_some(), made == 200);
    let path = format!("/devices/{device}");
    let put = bridge.bot.put(&path, &json!({})).await;
    assert_eq!(put.status, made);
    stage
        .step("does the server let it act as that device?")
        .await;
    let whoami = format!("/account/whoami?{OLD_NAME}={device}");
    let whoami = bridge.bot.get(&whoami).await.ok();
    assert_eq!(
        (whoami["user_id"].as_str(), whoami["device_id"].as_str()),
        (Some(me.as_str()), Some(device)),
        "masquerading is offered"
    );
    bridge.bot.playing(&me, Some(device))
}

/// Clause: as.acting.whoami
#[actix_web::test]
async fn a_bridge_finds_its_device_again_by_the_name_of_the_proposal() {
    let stage = Stage::new().await;
    let irc = stage
        .bridge_with("irc", json!({"io.element.msc4190": true}))
        .await;
    stage.step("the first start").await;
    registers_itself(&irc).await;
    let none = irc.bot.get("/devices").await.ok();
    assert_eq!(none["devices"], json!([]));
    let device = finds_its_device(&stage, &irc, "7bd3f1c0", 201).await;
    device.post("/keys/upload", &keys(&device, 10)).await.ok();

    stage.step("the next start").await;
    registers_itself(&irc).await;
    let devices = irc.bot.get("/devices").await.ok();
    assert_eq!(devices["devices"][0]["device_id"], "7bd3f1c0");
    finds_its_device(&stage, &irc, "7bd3f1c0", 200).await;
    stage
        .transcript("a_bridge_finds_its_device_again_by_the_name_of_the_proposal")
        .await;
}

/// Clause: as.acting.device, as.acting.older-name, as.ping.request, cs.keys.display-name
#[actix_web::test]
async fn a_bridge_sends_both_names_of_its_device_and_pings() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    stage
        .step("the bridge registers and makes its device")
        .await;
    let flows = irc.bot.get("/login").await.ok();
    let kind = "m.login.application_service";
    assert!(
        flows["flows"]
            .as_array()
            .is_some_and(|all| all.iter().any(|f| f["type"] == kind))
    );
    registers_itself(&irc).await;
    let name = json!({"display_name": "bridge"});
    irc.bot.put("/devices/MAUTRIX", &name).await.ok();
    stage.step("it uploads keys").await;
    let both = format!("?device_id=MAUTRIX&{OLD_NAME}=MAUTRIX");
    let whoami = irc.bot.get(&format!("/account/whoami{both}")).await.ok();
    assert_eq!(whoami["device_id"], "MAUTRIX");
    let device = irc.bot.playing(&irc.bot.user_id, Some("MAUTRIX"));
    let uploaded = irc
        .bot
        .post(&format!("/keys/upload{both}"), &keys(&device, 5))
        .await
        .ok();
    assert_eq!(uploaded["one_time_key_counts"]["signed_curve25519"], 5);
    stage.step("it pings, and looks itself up").await;
    let ping = "/_matrix/client/v1/appservice/irc/ping";
    let body = json!({"transaction_id": "start"});
    let pong = irc.bot.post(ping, &body).await.ok();
    assert!(pong["duration_ms"].is_u64());
    let query = json!({"device_keys": {"@ircbot:test": []}});
    let own = irc.bot.post("/keys/query", &query).await.ok();
    let own = &own["device_keys"]["@ircbot:test"]["MAUTRIX"];
    assert_eq!(own["unsigned"]["device_display_name"], "bridge");
    stage
        .transcript("a_bridge_sends_both_names_of_its_device_and_pings")
        .await;
}

/// Clause: as.acting.older-name, as.users.login
#[actix_web::test]
async fn a_bot_logs_in_for_a_device_and_acts_as_it_by_the_older_name() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let kind = "m.login.application_service";
    let me = irc.bot.user_id.clone();
    stage
        .step("the first start: it registers, has no device, and logs in for one")
        .await;
    let body = json!({"type": kind, "username": "ircbot"});
    irc.bot
        .post("/register", &body)
        .await
        .is_refused(400, "M_USER_IN_USE");
    let none = irc.bot.get("/devices").await.ok();
    assert_eq!(none["devices"], json!([]));
    let identifier = json!({"type": "m.id.user", "user": &me});
    let login = json!({"type": kind, "identifier": identifier});
    let login = irc.bot.post("/login", &login).await.ok();
    let device = login["device_id"].as_str().expect("a device").to_owned();

    stage
        .step("does the server let it act as that device? then it needs no other token")
        .await;
    let acting = format!(
        "?user_id={}&{OLD_NAME}={device}",
        tests::person::segment(&me)
    );
    let whoami = irc.bot.get(&format!("/account/whoami{acting}")).await.ok();
    assert_eq!(whoami["device_id"], device);
    let as_device = irc.bot.playing(&me, Some(&device));
    let upload = format!("/keys/upload{acting}");
    let counts = irc.bot.post(&upload, &keys(&as_device, 2)).await.ok();
    assert_eq!(counts["one_time_key_counts"]["signed_curve25519"], 2);

    stage
        .step("a start after somebody has deleted the device: it is told so, in the older name")
        .await;
    irc.bot.delete(&format!("/devices/{device}")).await.ok();
    irc.bot
        .get(&format!("/account/whoami{acting}"))
        .await
        .is_refused(400, "ORG.MATRIX.MSC4326.M_UNKNOWN_DEVICE");
    stage
        .transcript("a_bot_logs_in_for_a_device_and_acts_as_it_by_the_older_name")
        .await;
}

#[actix_web::test]
async fn a_web_client_finds_all_that_it_requests_before_its_first_sync() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let versions = alice.anonymous().get("/_matrix/client/versions").await.ok();
    let known = |v: &Value| {
        v.as_str()
            .is_some_and(|v| ["v1.1", "v1.11", "v1.13"].contains(&v))
    };
    assert!(
        versions["versions"]
            .as_array()
            .is_some_and(|all| all.iter().any(known))
    );
    let rules = alice.get("/pushrules/").await.ok();
    assert!(rules["global"]["override"].is_array());
    alice.get("/capabilities").await.ok();
    let filter = json!({"room": {"state": {"lazy_load_members": true}}});
    let stored = alice.post("/user/@alice:test/filter", &filter).await.ok();
    let filter = stored["filter_id"].as_str().expect("an id").to_owned();
    alice
        .get("/room_keys/version")
        .await
        .is_refused(404, "M_NOT_FOUND");
    alice
        .get("/user/@alice:test/account_data/m.secret_storage.default_key")
        .await
        .is_refused(404, "M_NOT_FOUND");
    let sync = format!("/sync?filter={filter}&timeout=0&org.matrix.msc4222.use_state_after=true");
    let first = alice.get(&sync).await.ok();
    assert!(first["next_batch"].is_string());
    alice.post("/keys/upload", &keys(&alice, 3)).await.ok();
    let since = first["next_batch"].as_str().expect("a token");
    let next = alice.get(&format!("{sync}&since={since}")).await.ok();
    assert_eq!(next["device_one_time_keys_count"]["signed_curve25519"], 3);
    assert_eq!(next["device_unused_fallback_key_types"], json!([]));
}

/// Clause: as.devices.signing-keys, cs.signing.list-changed
#[actix_web::test]
async fn a_service_replaces_cross_signing_keys_without_confirming_and_is_sent_a_users_change() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let made = alice
        .post("/createRoom", &json!({"invite": ["@ircbot:test"]}))
        .await
        .ok();
    let room = tests::person::segment(made["room_id"].as_str().expect("a room"));
    let join = format!("/rooms/{room}/join");
    irc.bot.post(&join, &json!({})).await.ok();
    stage.quiet().await;
    let before = irc.receiver.count();

    let upload = "/keys/device_signing/upload";
    let master = |user: &str, key: &str| {
        let keys = json!({format!("ed25519:{key}"): key});
        json!({"master_key": {"user_id": user, "usage": ["master"], "keys": keys}})
    };
    let key = |n: u8| format!("{}", char::from(b'A' + n)).repeat(43);
    irc.bot
        .post(upload, &master("@ircbot:test", &key(0)))
        .await
        .ok();
    irc.bot
        .post(upload, &master("@ircbot:test", &key(4)))
        .await
        .ok();
    let query = json!({"device_keys": {"@ircbot:test": [], "@alice:test": []}});
    let known = irc.bot.post("/keys/query", &query).await.ok();
    let now = &known["master_keys"]["@ircbot:test"]["keys"];
    assert_eq!(now[format!("ed25519:{}", key(4))], key(4));

    alice
        .post(upload, &master("@alice:test", &key(8)))
        .await
        .ok();
    stage.quiet().await;
    let sent = irc.receiver.taken(before);
    assert!(
        sent.iter().any(|t| {
            let changed = &t["org.matrix.msc3202.device_lists"]["changed"];
            changed
                .as_array()
                .is_some_and(|all| all.iter().any(|u| u == "@alice:test"))
        }),
        "{sent:?}"
    );
}
