//! Messages between actors: a lost hint only delays a delivery, and a full mailbox loses nothing.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actors::appservices::{Reload, RetryNow, Status};
use actors::ask;
use actors::runtime::faults::{Fault, Faults, Point};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::Stage;
use tests::bridge::Receiver;
use tests::transcript::Log;

/// A stage on which hints are lost at a point while the flag is set.
async fn losing(point: Point) -> (Stage, Arc<AtomicBool>) {
    let lost = Arc::new(AtomicBool::new(false));
    let on = Arc::clone(&lost);
    let choose = move |at| {
        if at == point && on.load(Ordering::Relaxed) {
            Fault::Lose
        } else {
            Fault::None
        }
    };
    let stage = Stage::with(&understudy::mscs::by_default(), |options| {
        options.actor_faults = Faults::chosen_by(choose);
    })
    .await;
    (stage, lost)
}

#[actix_web::test]
async fn a_lost_hint_to_a_sender_is_repeated_by_the_next_commit() {
    let (stage, lost) = losing(Point::SenderHint).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    let before = irc.receiver.count();
    lost.store(true, Ordering::Relaxed);
    let body = json!({"messages": {"@irc_bob:test": {"GHOST": {"n": 1}}}});
    alice.put("/sendToDevice/m.example/1", &body).await.ok();
    stage.quiet().await;
    assert_eq!(irc.receiver.count(), before, "the hint was lost");
    lost.store(false, Ordering::Relaxed);
    // The next commit does not concern the service.
    let path = "/user/@alice:test/account_data/m.example";
    alice.put(path, &json!({"n": 1})).await.ok();
    stage.quiet().await;
    assert_eq!(irc.receiver.count(), before + 1);
}

#[actix_web::test]
async fn a_lost_hint_of_the_device_list_log_is_repeated_by_the_next_commit() {
    let (stage, lost) = losing(Point::LogHint).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let device_lists = stage.app().actors.env.store.clone();
    stage.quiet().await;
    let before = device_lists.device_list_log();
    lost.store(true, Ordering::Relaxed);
    let keys = json!({"device_keys": {
        "user_id": "@alice:test", "device_id": "LAPTOP", "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {"curve25519:LAPTOP": "curve", "ed25519:LAPTOP": "ed"},
        "signatures": {"@alice:test": {"ed25519:LAPTOP": "c2lnbmVk"}},
    }});
    alice.post("/keys/upload", &keys).await.ok();
    stage.quiet().await;
    assert!(
        device_lists.device_list_log() > before,
        "a line was appended to the log"
    );
    let hints = hints_of_the_log(&stage);
    lost.store(false, Ordering::Relaxed);
    let path = "/user/@alice:test/account_data/m.example";
    alice.put(path, &json!({"n": 1})).await.ok();
    stage.quiet().await;
    assert_eq!(hints_of_the_log(&stage), hints + 1);
    alice.put(path, &json!({"n": 2})).await.ok();
    stage.quiet().await;
    assert_eq!(hints_of_the_log(&stage), hints + 1, "the hint is sent once");
}

/// How many hints the storage has sent to `device_lists`.
fn hints_of_the_log(stage: &Stage) -> usize {
    let trace = &stage.app().actors.env.trace;
    let all = trace.after(0);
    all.iter().filter(|m| m.what == "LogAppended").count()
}

#[actix_web::test]
async fn a_change_of_a_registration_reaches_a_sender_whose_mailbox_is_full() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    let moved = Receiver::start("irc", "irc-hs-token", None, Log::default());
    let file = stage.registration_file("irc");
    let text = std::fs::read_to_string(&file).expect("a file");
    let mut registration: Value = serde_json::from_str(&text).expect("JSON");
    registration["url"] = json!(moved.url);
    std::fs::write(&file, registration.to_string()).expect("written");
    let appservices = &stage.app().actors.appservices;
    let loading = Cell::new(true);
    let load = async {
        ask(appservices, Reload).await.expect("it is read");
        loading.set(false);
    };
    // Send more messages than a mailbox holds, again and again until the change is in force.
    let crowd = async {
        while loading.get() {
            let many = (0..40).map(|_| async {
                let service = "irc".into();
                let _ = ask(appservices, RetryNow { service }).await;
            });
            join_all(many).await;
            let _ = ask(appservices, Status).await;
        }
    };
    futures_util::join!(load, crowd);
    stage.quiet().await;
    let body = json!({"messages": {"@irc_bob:test": {"GHOST": {"n": 1}}}});
    alice.put("/sendToDevice/m.example/1", &body).await.ok();
    stage.quiet().await;
    assert_eq!(moved.received().len(), 1, "it is sent to the new address");
}
