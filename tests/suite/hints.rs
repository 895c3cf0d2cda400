//! Messages between actors: a lost hint only delays a delivery, and a full mailbox loses nothing.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actors::appservices::{Reload, RetryNow, SenderStatuses};
use actors::ask;
use actors::runtime::faults::{DeliveryFault, DeliveryFaults, DeliveryPoint};
use futures_util::future::{join, join_all};
use schema::{ServiceId, Tx, back_fill, device_log};
use serde_json::{Value, json};
use tests::bridge::Receiver;
use tests::transcript::Log;
use tests::{Bridge, Person, Stage, TO_DEVICE, numbers};

/// A stage on which hints are lost at a point while the flag is set.
async fn losing(point: DeliveryPoint) -> (Stage, Arc<AtomicBool>) {
    let lost = Arc::new(AtomicBool::new(false));
    let on = Arc::clone(&lost);
    let choose = move |at| {
        if at == point && on.load(Ordering::Relaxed) {
            DeliveryFault::Lose
        } else {
            DeliveryFault::None
        }
    };
    let stage = Stage::with(&understudy::mscs::by_default(), |options| {
        options.actor_faults = DeliveryFaults::chosen_by(choose);
    })
    .await;
    (stage, lost)
}

#[actix_web::test]
async fn a_lost_hint_to_a_sender_is_repeated_by_the_next_commit() {
    let (stage, lost) = losing(DeliveryPoint::SenderHint).await;
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
    // The next commit does not concern the appservice.
    let path = "/user/@alice:test/account_data/m.example";
    alice.put(path, &json!({"n": 1})).await.ok();
    stage.quiet().await;
    assert_eq!(irc.receiver.count(), before + 1);
}

#[actix_web::test]
async fn a_lost_hint_of_the_device_list_log_is_repeated_by_the_next_commit() {
    let (stage, lost) = losing(DeliveryPoint::LogHint).await;
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

/// How often all senders together have looked for something to send.
async fn looks(stage: &Stage) -> u64 {
    let statuses = ask(&stage.app().actors.appservices, SenderStatuses).await;
    let statuses = statuses.expect("the state of every sender");
    statuses.iter().map(|view| view.gathered).sum()
}

/// Sends five messages to a device of irc while irc's items are held back. Checks that only the first makes a sender look for items.
async fn five_messages_cause_one_look(stage: &Stage, alice: &Person, irc: &Bridge) {
    let before = looks(stage).await;
    for n in 0..5 {
        alice.sends_number("@irc_bob:test", "GHOST", n).await;
        stage.quiet().await;
    }
    assert_eq!(looks(stage).await, before + 1);
    let received = numbers(&irc.receiver.items(0, TO_DEVICE));
    assert!(received.is_empty(), "{received:?} are held back");
}

#[actix_web::test]
async fn with_many_appservices_each_look_finds_something_to_send() {
    const SERVICES: usize = 20;
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let carol = stage.person("carol", "PHONE").await;
    let strangers = alice.creates(json!({"preset": "public_chat"})).await;
    let mut bridges: Vec<(Bridge, String)> = Vec::new();
    for n in 0..SERVICES {
        let bridge = stage.bridge(&format!("svc{n}")).await;
        bridge.ghost_with_device("bob", "GHOST").await;
        let room = bridge.bot.creates(json!({"preset": "public_chat"})).await;
        bridges.push((bridge, room));
    }
    stage.quiet().await;
    let transactions = || -> u64 {
        let counts = bridges.iter().map(|(b, _)| b.receiver.count());
        u64::try_from(counts.sum::<usize>()).expect("not so many")
    };
    let before = (looks(&stage).await, transactions());
    // Each join and each leave concerns one appservice.
    join_all(bridges.iter().map(|(_, room)| alice.joins(room))).await;
    stage.quiet().await;
    join_all(bridges.iter().map(|(_, room)| alice.leaves(room))).await;
    stage.quiet().await;
    // The log has open lines all the time, and none concerns an appservice.
    let churn = async {
        for _ in 0..SERVICES {
            carol.joins(&strangers).await;
            carol.leaves(&strangers).await;
        }
    };
    let messages = async {
        for (n, (bridge, _)) in bridges.iter().enumerate() {
            let n = i64::try_from(n).expect("not so many");
            alice
                .sends_number(&bridge.ghost_id("bob"), "GHOST", n)
                .await;
        }
    };
    join(churn, messages).await;
    stage.quiet().await;
    let (looked, sent) = (looks(&stage).await - before.0, transactions() - before.1);
    assert!(
        sent >= 60,
        "each is sent a join, a leave and a message: {sent}"
    );
    // On a busy machine a hint sometimes arrives when its item is already under way. A look of each sender at each change would be
    // hundreds.
    assert!(looked <= sent + 2, "{looked} looks for {sent} transactions");
}

#[actix_web::test]
async fn what_an_open_line_of_the_log_holds_back_is_not_looked_for() {
    let (stage, lost) = losing(DeliveryPoint::LogHint).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    // No pass reads this line, since the hint is lost.
    lost.store(true, Ordering::Relaxed);
    let store = stage.app().actors.env.store.clone();
    let line = store.write(|tx| device_log::keys_changed(tx, "@irc_bob:test"));
    line.await.expect("a line");
    five_messages_cause_one_look(&stage, &alice, &irc).await;
    lost.store(false, Ordering::Relaxed);
    alice.sends_number("@irc_bob:test", "GHOST", 5).await;
    stage.quiet().await;
    let received = numbers(&irc.receiver.items(0, TO_DEVICE));
    assert_eq!(received, [0, 1, 2, 3, 4, 5]);
}

#[actix_web::test]
async fn what_a_back_fill_holds_back_is_not_looked_for() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    let env = stage.app().actors.env.clone();
    let begin = |tx: &mut Tx<'_>| back_fill::begin(tx, &"irc".into(), false, None);
    env.store.write(begin).await.expect("begun");
    five_messages_cause_one_look(&stage, &alice, &irc).await;
    let finish = |tx: &mut Tx<'_>| back_fill::finish(tx, &"irc".into());
    env.store.write(finish).await.expect("finished");
    env.wake.services([&ServiceId::from("irc")], None);
    stage.quiet().await;
    let received = numbers(&irc.receiver.items(0, TO_DEVICE));
    assert_eq!(received, [0, 1, 2, 3, 4]);
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
            let _ = ask(appservices, SenderStatuses).await;
        }
    };
    futures_util::join!(load, crowd);
    stage.quiet().await;
    let body = json!({"messages": {"@irc_bob:test": {"GHOST": {"n": 1}}}});
    alice.put("/sendToDevice/m.example/1", &body).await.ok();
    stage.quiet().await;
    assert_eq!(moved.received().len(), 1, "it is sent to the new address");
}
