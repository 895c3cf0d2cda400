//! Custom to-device events: any type, not encrypted, up to the size limit, unchanged to the byte.

use serde_json::json;
use tests::person::segment;
use tests::{Answer, Bridge, Person, Stage};

use crate::to_device::inbox_of;

/// JSON that would change if it were parsed and serialised again: order of keys, duplicate keys, spelling of numbers, escapes,
/// whitespace, numbers out of the range of floats.
const CONTENT: &str = "{\"z\": 1.50,\t\"a\":\"\\u00e9\\/\\ud83d\\ude00\", \"a\":\"again\", \"n\":[1.0,1e2,-0,1E400, 12345678901234567890 ],\n  \"\":{\"deep\" : {} } ,\"ü\":\"😀\" }";

/// Send a to-device message with exactly these bytes as content.
async fn send(
    from: &Person,
    kind: &str,
    txn: &str,
    to: &str,
    device: &str,
    content: &str,
) -> Answer {
    let body = format!(r#"{{"messages":{{"{to}":{{"{device}":{content}}}}}}}"#);
    let path = format!("/sendToDevice/{}/{txn}", segment(kind));
    from.raw("PUT", &path, body.into_bytes()).await
}

/// The bytes of the first `content` in a body.
fn content_in(body: &str) -> &str {
    let (_, rest) = body.split_once("\"content\":").expect("a content");
    &rest[..CONTENT.len()]
}

fn last_body(bridge: &Bridge) -> String {
    bridge
        .receiver
        .received()
        .last()
        .expect("a transaction")
        .body
        .clone()
}

/// Clause: cs.to-device.content
#[actix_web::test]
async fn content_arrives_as_its_bytes_were_sent() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("eve", "GHOST").await;
    stage.quiet().await;
    let kind = "org.example.custom";
    send(&alice, kind, "1", "@irc_eve:test", "GHOST", CONTENT)
        .await
        .ok();
    send(&alice, kind, "2", "@bob:test", "PHONE", CONTENT)
        .await
        .ok();
    stage.quiet().await;
    assert_eq!(content_in(&last_body(&irc)), CONTENT, "in the transaction");
    let sync = bob.text("/sync?timeout=0").await;
    let (_, to_device) = sync.split_once("\"to_device\":").expect("a message");
    assert_eq!(content_in(to_device), CONTENT, "in a sync");
}

/// Clause: as.to-device.on-retry
/// Clause: own.txn.same-bytes
#[actix_web::test]
async fn a_retry_carries_the_same_bytes() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("eve", "GHOST").await;
    stage.quiet().await;
    irc.receiver.at_once(Some(500));
    send(
        &alice,
        "org.example.custom",
        "1",
        "@irc_eve:test",
        "GHOST",
        CONTENT,
    )
    .await
    .ok();
    stage.quiet().await;
    let first = last_body(&irc);
    irc.receiver.at_once(Some(200));
    stage.advance(std::time::Duration::from_secs(1)).await;
    let received = irc.receiver.received();
    assert_eq!(received.last().map(|r| r.answered), Some(200));
    assert_eq!(last_body(&irc), first);
    assert_eq!(content_in(&first), CONTENT);
}

#[actix_web::test]
async fn the_largest_content_arrives_and_one_byte_more_is_refused() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("eve", "GHOST").await;
    stage.quiet().await;
    let sized = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8));
    let (largest, larger) = (sized(65_536), sized(65_537));
    send(&alice, "a", "1", "@irc_eve:test", "GHOST", &largest)
        .await
        .ok();
    send(&alice, "a", "2", "@bob:test", "PHONE", &largest)
        .await
        .ok();
    stage.quiet().await;
    assert!(last_body(&irc).contains(&largest));
    assert!(bob.text("/sync?timeout=0").await.contains(&largest));

    // One of two is too large: neither is deposited, and the transaction id is still free.
    let before = irc.receiver.count();
    let body = format!(
        r#"{{"messages":{{"@irc_eve:test":{{"GHOST":{{"n":1}}}},"@bob:test":{{"PHONE":{larger}}}}}}}"#
    );
    let refused = alice
        .raw("PUT", "/sendToDevice/a/3", body.into_bytes())
        .await;
    refused.is_refused(413, "M_TOO_LARGE");
    stage.quiet().await;
    assert_eq!(irc.receiver.count(), before);
    assert_eq!(inbox_of(&bob).await.len(), 1, "only the earlier message");
    alice
        .sends_to_device("3", "@irc_eve:test", "GHOST", json!({}))
        .await;
    stage.quiet().await;
    assert_eq!(irc.receiver.count(), before + 1);
}

/// Clause: cs.to-device.content
#[actix_web::test]
async fn any_event_type_is_accepted_and_only_an_object_as_content() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let long = "t".repeat(255);
    // Libraries know the last three under two names. Each must arrive under the name that was sent.
    let types = [
        "a b",
        "größe/😀?&#%25",
        "a..b",
        "m.room.encrypted",
        &long,
        "m.secret.push",
        "io.element.msc4385.secret.push",
        "m.stream.subscribe",
    ];
    for (n, kind) in types.iter().enumerate() {
        send(&alice, kind, &n.to_string(), "@bob:test", "PHONE", "{}")
            .await
            .ok();
    }
    let got = inbox_of(&bob).await;
    let got: Vec<_> = got
        .iter()
        .map(|e| e["type"].as_str().expect("a type"))
        .collect();
    assert_eq!(got, types);

    for (n, content) in ["[]", "\"{}\"", "1", "null", "true"].iter().enumerate() {
        let txn = format!("bad{n}");
        let refused = send(&alice, "a", &txn, "@bob:test", "PHONE", content).await;
        refused.is_refused(400, "M_BAD_JSON");
        // Also if the recipient does not exist.
        let refused = send(&alice, "a", &txn, "@nobody:test", "*", content).await;
        refused.is_refused(400, "M_BAD_JSON");
    }
    let empty = send(&alice, "", "1", "@bob:test", "PHONE", "{}").await;
    empty.is_refused(404, "M_UNRECOGNIZED");
    let zero = send(&alice, "a\0b", "1", "@bob:test", "PHONE", "{}").await;
    zero.is_refused(400, "M_INVALID_PARAM");
    assert_eq!(
        inbox_of(&bob).await.len(),
        types.len(),
        "nothing was deposited"
    );
}

#[actix_web::test]
async fn a_bridge_and_a_person_talk_in_events_of_their_own() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let eve = irc.ghost_with_device("eve", "GHOST").await;
    stage.step("a person asks the bridge").await;
    let ask = json!({"messages": {"@irc_eve:test": {"GHOST": {"version": 1.0, "give": "status"}}}});
    alice
        .put("/sendToDevice/org.example.bridge.request/1", &ask)
        .await
        .ok();
    stage
        .step("the bridge answers, and the person's device has it in its next sync")
        .await;
    let tell = json!({"messages": {"@alice:test": {"LAPTOP": {"status": "connected"}}}});
    eve.put("/sendToDevice/org.example.bridge.answer/1", &tell)
        .await
        .ok();
    let inbox = inbox_of(&alice).await;
    assert_eq!(inbox[0]["type"], "org.example.bridge.answer");
    assert_eq!(inbox[0]["content"], json!({"status": "connected"}));
    stage.step("what is no object is refused").await;
    let bad = json!({"messages": {"@irc_eve:test": {"GHOST": ["status"]}}});
    alice
        .put("/sendToDevice/org.example.bridge.request/2", &bad)
        .await
        .is_refused(400, "M_BAD_JSON");
    stage
        .transcript("a_bridge_and_a_person_talk_in_events_of_their_own")
        .await;
}
