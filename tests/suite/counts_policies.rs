//! The same story under each of the three policies of key counts, and who may choose.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Bridge, Stage};

use crate::counts::{claim, upload};

const COUNTS: &str = "org.matrix.msc3202.device_one_time_keys_count";

/// The devices whose counts each transaction told, in order.
fn named(bridge: &Bridge, skip: usize) -> Vec<Vec<String>> {
    let told = |transaction: &Value| {
        let users = transaction[COUNTS].as_object().cloned().unwrap_or_default();
        let devices = users.values().filter_map(Value::as_object);
        devices.flat_map(|d| d.keys().cloned()).collect()
    };
    bridge.receiver.taken(skip).iter().map(told).collect()
}

/// A bot and three ghosts with devices and keys, one ghost without; an event, a message for a ghost, and a claim from it.
async fn story(stage: &Stage, policy: Option<&str>) -> Vec<Vec<String>> {
    let alice = stage.person("alice", "LAPTOP").await;
    let mut keys = json!({"namespaces": {"users": [{"exclusive": true, "regex": "@irc_.*"}]}});
    if let Some(policy) = policy {
        keys["org.understudy.counts"] = policy.into();
    }
    let irc = stage.bridge_with("irc", keys).await;
    irc.bot.put("/devices/BOT", &json!({})).await.ok();
    upload(&irc.bot.playing("@ircbot:test", Some("BOT")), 0..9, false).await;
    for name in ["ann", "bob", "cat"] {
        let ghost = irc.ghost_with_device(name, &name.to_uppercase()).await;
        upload(&ghost, 0..5, false).await;
    }
    irc.ghost_with_device("without_keys", "NONE").await;
    // Whatever it was told of all this, it was told before the second of these seconds.
    stage.advance(Duration::from_secs(1)).await;
    stage.advance(Duration::from_secs(1)).await;
    let before = irc.receiver.count();

    stage.step("a room that the bot is invited to").await;
    let invite = json!({"invite": ["@ircbot:test"], "name": "a room"});
    alice.post("/createRoom", &invite).await.ok();
    stage.step("a message for a ghost").await;
    let to_bob = json!({"messages": {"@irc_bob:test": {"BOB": {}}}});
    alice.put("/sendToDevice/m.example/1", &to_bob).await.ok();
    stage.step("a claim, and nothing else within 200 ms").await;
    claim(&alice, "@irc_bob:test", "BOB").await;
    stage.advance(Duration::from_millis(200)).await;
    named(&irc, before)
}

fn all_are(told: &[Vec<String>], devices: &[&str]) -> bool {
    told.iter().all(|t| t == devices)
}

#[actix_web::test]
async fn counts_of_recipients_and_of_what_changed() {
    let stage = Stage::new().await;
    let told = story(&stage, Some("recipients")).await;
    let [events @ .., message, claim] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(!events.is_empty() && all_are(events, &["BOT"]), "{told:?}");
    assert_eq!(message, &["BOB", "BOT"]);
    assert_eq!(claim, &["BOB", "BOT"]);
    stage
        .transcript("counts_of_recipients_and_of_what_changed")
        .await;
    // It is what a service gets that does not choose.
    assert_eq!(story(&Stage::new().await, None).await, told);
}

#[actix_web::test]
async fn counts_of_what_changed_alone() {
    let stage = Stage::new().await;
    let told = story(&stage, Some("changed")).await;
    let [before @ .., claim] = &told[..] else {
        panic!("{told:?}");
    };
    assert!(before.len() > 1 && all_are(before, &[]), "{told:?}");
    assert_eq!(claim, &["BOB"]);
    stage.transcript("counts_of_what_changed_alone").await;
}

#[actix_web::test]
async fn counts_of_everybody_always() {
    let stage = Stage::new().await;
    let told = story(&stage, Some("always")).await;
    assert!(
        told.len() > 2 && all_are(&told, &["ANN", "BOB", "CAT", "BOT"]),
        "{told:?}"
    );
    stage.transcript("counts_of_everybody_always").await;
}

#[actix_web::test]
async fn a_long_lived_server_does_not_let_a_service_choose() {
    let stage = Stage::with(&[3202, 4203], |options| {
        options.settings.proposals.counts_policies = false;
    })
    .await;
    let told = story(&stage, Some("always")).await;
    assert_eq!(told.last().expect("counts"), &["BOB", "BOT"]);
}

#[actix_web::test]
async fn a_policy_that_nobody_knows_is_a_problem_of_the_registration() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let file = stage.registration_file("irc");
    let text = std::fs::read_to_string(&file).expect("a file");
    for bad in [json!("often"), json!(7), json!(["always"])] {
        let mut registration: Value = serde_json::from_str(&text).expect("JSON");
        registration["org.understudy.counts"] = bad.clone();
        std::fs::write(&file, registration.to_string()).expect("written");
        let loaded = stage.reload().await;
        assert_eq!(loaded.problems.len(), 1, "{bad}");
        assert_eq!(loaded.problems[0].file, "irc.yaml");
        irc.bot.get("/account/whoami").await.ok();
    }
}
