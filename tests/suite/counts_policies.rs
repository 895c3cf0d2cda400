//! The same requests under each of the three policies of one-time-key counts, and the setting that allows an appservice to choose.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Bridge, Stage};

use crate::counts::{claim, upload};

const COUNTS: &str = "org.matrix.msc3202.device_one_time_keys_count";

/// The devices whose counts each transaction contained, in order.
fn counted_devices(bridge: &Bridge, skip: usize) -> Vec<Vec<String>> {
    let counted = |transaction: &Value| {
        let users = transaction[COUNTS].as_object().cloned().unwrap_or_default();
        let devices = users.values().filter_map(Value::as_object);
        devices.flat_map(|d| d.keys().cloned()).collect()
    };
    bridge.receiver.taken(skip).iter().map(counted).collect()
}

/// Create a bot and three ghosts with devices and keys, and one ghost without keys. Then send an event, a message to a ghost, and a
/// claim of its key. Returns the devices in the counts of each transaction.
async fn run(stage: &Stage, policy: Option<&str>) -> Vec<Vec<String>> {
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
    // Let the transactions about all this be sent first.
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
    counted_devices(&irc, before)
}

fn all_are(counted: &[Vec<String>], devices: &[&str]) -> bool {
    counted.iter().all(|t| t == devices)
}

#[actix_web::test]
async fn counts_of_recipients_and_of_what_changed() {
    let stage = Stage::new().await;
    let counted = run(&stage, Some("recipients")).await;
    let [events @ .., message, claim] = &counted[..] else {
        panic!("{counted:?}");
    };
    assert!(
        !events.is_empty() && all_are(events, &["BOT"]),
        "{counted:?}"
    );
    assert_eq!(message, &["BOB", "BOT"]);
    assert_eq!(claim, &["BOB", "BOT"]);
    stage
        .transcript("counts_of_recipients_and_of_what_changed")
        .await;
    // This is the default policy.
    assert_eq!(run(&Stage::new().await, None).await, counted);
}

/// Clause: as.counts.changed
#[actix_web::test]
async fn counts_of_what_changed_alone() {
    let stage = Stage::new().await;
    let counted = run(&stage, Some("changed")).await;
    let [before @ .., claim] = &counted[..] else {
        panic!("{counted:?}");
    };
    assert!(before.len() > 1 && all_are(before, &[]), "{counted:?}");
    assert_eq!(claim, &["BOB"]);
    stage.transcript("counts_of_what_changed_alone").await;
}

#[actix_web::test]
async fn counts_of_everybody_always() {
    let stage = Stage::new().await;
    let counted = run(&stage, Some("always")).await;
    assert!(
        counted.len() > 2 && all_are(&counted, &["ANN", "BOB", "CAT", "BOT"]),
        "{counted:?}"
    );
    stage.transcript("counts_of_everybody_always").await;
}

#[actix_web::test]
async fn a_long_lived_server_does_not_let_a_service_choose() {
    let stage = Stage::with(&[3202, 4203], |options| {
        options.settings.proposals.counts_policies = false;
    })
    .await;
    let counted = run(&stage, Some("always")).await;
    assert_eq!(counted.last().expect("counts"), &["BOB", "BOT"]);
}

#[actix_web::test]
async fn an_unknown_counts_policy_is_a_problem_of_the_registration() {
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
