//! To-device messages: which devices and appservices receive them, and what an acknowledgement deletes.

use serde_json::{Value, json};
use tests::{Person, Stage, TO_DEVICE};

pub(crate) async fn inbox_of(person: &Person) -> Vec<Value> {
    let sync = person.aside().get("/sync?timeout=0").await.ok();
    sync["to_device"]["events"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

/// Clause: as.txn.put, as.txn.token, as.txn.same-body-on-retry, as.to-device.sent, as.to-device.addressee
/// Clause: as.to-device.on-retry, as.to-device.exclusive, as.to-device.name
#[actix_web::test]
async fn bridge_receives_a_message_for_its_ghost() {
    let stage = Stage::with_mscs(&[4203]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;

    stage
        .step("a message for the ghost is on its way: frozen, and sent")
        .await;
    irc.receiver.at_once(None);
    let body = json!({"messages": {&bob.user_id: {"GHOST": {"body": "ping"}}}});
    alice
        .put("/sendToDevice/m.room_key_request/txn1", &body)
        .await
        .ok();
    stage
        .step("the bridge fails, and a second later gets the same bytes again")
        .await;
    irc.answers(502).await;
    stage.advance(std::time::Duration::from_secs(1)).await;
    irc.answers(200).await;

    stage
        .transcript("bridge_receives_a_message_for_its_ghost")
        .await;
    let inbox = inbox_of(&bob).await;
    assert!(inbox.is_empty(), "nothing is left: {inbox:?}");
}

/// Clause: as.to-device.wildcard, cs.to-device.wildcard
#[actix_web::test]
async fn a_wildcard_reaches_every_device_of_the_user_and_no_other() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let tablet = stage.log_in("bob", "TABLET").await;
    alice
        .sends_to_device("1", "@bob:test", "*", json!({"n": 1}))
        .await;
    alice
        .sends_to_device("2", "@bob:test", "GONE", json!({"n": 2}))
        .await;
    alice
        .sends_to_device("3", "@nobody:test", "*", json!({"n": 3}))
        .await;
    // A request with the same transaction id is a repetition, even if its body differs.
    alice
        .sends_to_device("1", "@bob:test", "*", json!({"n": 4}))
        .await;
    for device in [&bob, &tablet] {
        let inbox: Vec<_> = inbox_of(device)
            .await
            .into_iter()
            .map(|e| e["content"]["n"].clone())
            .collect();
        assert_eq!(inbox, [1], "{}", device.name);
    }
}

/// Clause: as.to-device.shared
#[actix_web::test]
async fn an_observed_message_is_copied_and_kept_until_its_device_acknowledges_it() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let mirror = stage
        .bridge_with(
            "mirror",
            json!({"namespaces": {"users": [{"exclusive": false, "regex": "@bob.*"}]}}),
        )
        .await;
    alice
        .sends_to_device("1", "@bob:test", "PHONE", json!({"n": 1}))
        .await;
    stage.quiet().await;
    assert_eq!(
        mirror.receiver.items(0, TO_DEVICE).len(),
        1,
        "the service received its copy"
    );

    let first = bob.get("/sync?timeout=0").await.ok();
    assert_eq!(
        first["to_device"]["events"][0]["content"]["n"], 1,
        "the device receives it too"
    );
    assert_eq!(
        inbox_of(&bob).await.len(),
        1,
        "and again, until the device acknowledges it"
    );
    let since = first["next_batch"].as_str().expect("a token");
    let second = bob
        .get(&format!("/sync?timeout=0&since={since}"))
        .await
        .ok();
    assert!(
        second["to_device"]["events"]
            .as_array()
            .is_none_or(Vec::is_empty)
    );
    assert!(inbox_of(&bob).await.is_empty());
    assert_eq!(
        mirror.receiver.items(0, TO_DEVICE).len(),
        1,
        "the service receives it once"
    );
}

/// Clause: as.to-device.exclusive
#[actix_web::test]
async fn two_services_one_exclusive_and_one_not_get_a_copy_each() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let mirror = stage
        .bridge_with(
            "mirror",
            json!({"namespaces": {"users": [{"exclusive": false, "regex": "@irc_.*"}]}}),
        )
        .await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    stage.step("one message: the service that owns the ghost and the one that observes it get a copy each").await;
    alice
        .sends_to_device("1", &bob.user_id, "GHOST", json!({"n": 1}))
        .await;
    stage.quiet().await;
    assert_eq!(irc.receiver.items(0, TO_DEVICE).len(), 1);
    assert_eq!(mirror.receiver.items(0, TO_DEVICE).len(), 1);
    assert!(
        inbox_of(&bob).await.is_empty(),
        "the service that decides over the device has acknowledged it"
    );
    stage
        .transcript("two_services_one_exclusive_and_one_not_get_a_copy_each")
        .await;
}

/// Clause: cs.to-device.deleted-device
#[actix_web::test]
async fn a_deleted_device_takes_its_waiting_messages_with_it() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    irc.receiver.at_once(None);
    stage
        .step("a message is on its way, the bridge takes its time")
        .await;
    alice
        .sends_to_device("1", &bob.user_id, "GHOST", json!({"n": "frozen"}))
        .await;
    stage.step("another one waits behind it").await;
    alice
        .sends_to_device("2", &bob.user_id, "GHOST", json!({"n": "waits"}))
        .await;
    stage
        .step("the device is deleted: what waited is gone, what was frozen is sent as it is")
        .await;
    let bot = &irc.bot;
    let delete = format!(
        "/devices/GHOST?user_id={}",
        tests::person::segment(&bob.user_id)
    );
    bot.delete(&delete).await.ok();
    stage.step("the bridge answers").await;
    irc.receiver.at_once(Some(200));
    irc.answers(200).await;
    stage.quiet().await;
    let got: Vec<_> = irc
        .receiver
        .items(0, TO_DEVICE)
        .into_iter()
        .map(|e| e["content"]["n"].clone())
        .collect();
    assert_eq!(
        got,
        ["frozen"],
        "the frozen transaction is still sent, the waiting message is deleted"
    );
    stage
        .transcript("a_deleted_device_takes_its_waiting_messages_with_it")
        .await;
}

#[actix_web::test]
async fn a_message_that_is_too_large_is_refused_and_changes_nothing() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let body = json!({"messages": {"@bob:test": {"PHONE": {"body": "x".repeat(70_000)}}}});
    alice
        .put("/sendToDevice/m.example/1", &body)
        .await
        .is_refused(413, "M_TOO_LARGE");
    assert!(inbox_of(&bob).await.is_empty());
    alice
        .sends_to_device("1", "@bob:test", "PHONE", json!({}))
        .await;
    assert_eq!(
        inbox_of(&bob).await.len(),
        1,
        "the refused request did not use up its transaction id"
    );
}
