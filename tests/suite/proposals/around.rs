//! Code of proposals around endpoints that exist, and what it tells the hooks in their writes.

use std::time::Duration;

use actors::wire::Naming;
use serde_json::json;
use tests::Stage;
use tests::person::segment;
use understudy::mscs;

use super::{msc9904, msc9905, stage};

#[actix_web::test]
async fn code_around_an_endpoint_is_around_every_spelling_of_its_path() {
    let stage = Stage::with(&[], |options| {
        let numbers = mscs::with_specified(&[4140]);
        let mut enabled = mscs::enabled(&numbers).expect("known proposals");
        enabled.push(&msc9904::MSC);
        options.enable(enabled, Naming::Unstable);
    })
    .await;
    let alice = stage.person("alice", "LAPTOP").await;
    let room = alice.creates(json!({"topic": "now"})).await;
    for version in ["v3", "r0"] {
        for end in ["m.room.topic", "m.room.topic/"] {
            let path = format!(
                "/_matrix/client/{version}/rooms/{}/state/{end}",
                segment(&room)
            );
            let later = format!("{path}?org.matrix.msc4140.delay=60000");
            let answer = alice.put(&later, &json!({"topic": "later"})).await.ok();
            assert!(answer["delay_id"].is_string(), "{path}: {answer}");
            let shown = alice
                .get(&format!("{path}?org.example.msc9904.show=1"))
                .await
                .ok();
            assert_eq!(shown["topic"], "now");
            let read = format!("{room}|m.room.topic|");
            assert_eq!(shown["org.example.msc9904.read"], read);
        }
    }
}

#[actix_web::test]
async fn an_answer_that_is_not_changed_keeps_its_bytes() {
    let stage = stage(&[&msc9904::MSC]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let data = format!("/user/{}/account_data/m.example", alice.user_id);
    let text = r#"{"n":  123456789012345678901234567890, "m": 1e2}"#;
    let stored = alice.raw("PUT", &data, text.into()).await;
    stored.ok();
    assert_eq!(alice.text(&data).await, text);
    let shown = alice
        .get(&format!("{data}?org.example.msc9904.show=1"))
        .await;
    let read = format!("{}|m.example", alice.user_id);
    let expected =
        json!({"n": 1.234_567_890_123_456_8e29, "m": 100.0, "org.example.msc9904.read": read});
    assert_eq!(shown.ok(), expected);
}

#[actix_web::test]
async fn a_parameter_of_an_endpoint_reaches_the_event_and_what_its_write_finds_reaches_the_answer()
{
    let stage = stage(&[&msc9905::MSC]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let room = alice.gathers(&[&irc.bot]).await;
    stage.quiet().await;
    let since = alice.get("/sync").await.ok()["next_batch"].clone();
    let path = format!("/rooms/{}/send/m.example", segment(&room));
    let (lasts, until) = ("org.example.msc9905.lasts", "org.example.msc9905.until");
    let plain = alice.put(&format!("{path}/0"), &json!({})).await.ok();
    assert!(plain[until].is_null(), "{plain}");
    let url = format!("{path}/1?{lasts}=1000");
    let sent = alice.put(&url, &json!({})).await.ok();
    let due = sent[until].as_i64().expect("a time");
    let stored = mscs::stored_in(stage.app(), &msc9905::MSC, String::new()).await;
    let stored = stored.expect("what is stored");
    assert_eq!(stored[0].key, sent["event_id"]);
    assert_eq!(stored[0].due, Some(due));
    assert_eq!(stored[0].value::<String>().expect("a device"), "LAPTOP");
    let again = alice.put(&url, &json!({})).await.ok();
    assert_eq!(again["event_id"], sent["event_id"]);
    assert!(
        again[until].is_null(),
        "a repeated request writes nothing: {again}"
    );

    let own = "/_matrix/client/unstable/org.example.msc9905/rooms";
    let own = format!("{own}/{}/announce/1", segment(&room));
    let first = alice.put(&own, &json!({"n": 1})).await.ok();
    assert_eq!(alice.put(&own, &json!({"n": 1})).await.ok(), first);
    let since = since.as_str().expect("a token");
    let answer = alice
        .get(&format!("/sync?since={since}&timeout=0"))
        .await
        .ok();
    let events = answer["rooms"]["join"][&room]["timeline"]["events"].clone();
    let shown: Vec<_> = events
        .as_array()
        .expect("a timeline")
        .iter()
        .map(|event| json!([event[lasts], event["unsigned"]["transaction_id"]]))
        .collect();
    let expected = [
        json!([null, "0"]),
        json!([1000, "1"]),
        json!([3_600_000, "1"]),
    ];
    assert_eq!(shown, expected, "{events}");
    assert_eq!(events[2]["origin_server_ts"], 0);
    stage.quiet().await;
    let sent = irc.receiver.items(0, "events");
    assert_eq!(sent.last().expect("events")[lasts], 3_600_000);
    let id = events[1]["event_id"].as_str().expect("an id");
    let redact = format!("/rooms/{}/redact/{}/1", segment(&room), segment(id));
    alice.put(&redact, &json!({})).await.ok();
    let event = format!("/rooms/{}/event/{}", segment(&room), segment(id));
    let redacted = alice.get(&event).await.ok();
    assert!(redacted[lasts].is_null(), "{redacted}");

    // The same state is stored once; that with another key beside its content is another state.
    let state = format!("/rooms/{}/state/m.example/", segment(&room));
    let mut ids = Vec::new();
    for url in [
        format!("{state}?{lasts}=1000"),
        format!("{state}?{lasts}=1000"),
        state,
    ] {
        let set = alice.put(&url, &json!({"n": 1})).await.ok();
        ids.push(set["event_id"].clone());
    }
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[1], ids[2]);
}

#[actix_web::test]
async fn a_delayed_event_is_sent_once_for_a_transaction_id_and_is_the_devices_own() {
    let stage = Stage::with_mscs(&[4140]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let room = alice.creates(json!({})).await;
    let path = format!("/rooms/{}/send/m.example/1", segment(&room));
    let later = format!("{path}?org.matrix.msc4140.delay=1000");
    let first = alice.put(&later, &json!({})).await.ok();
    assert_eq!(alice.put(&later, &json!({})).await.ok(), first);
    let list = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events";
    let listed = alice.get(list).await.ok()["delayed_events"].clone();
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert!(listed[0]["origin"].is_null(), "{listed}");
    // Newer clients name the action in the path.
    let one = format!("{list}/{}", first["delay_id"].as_str().expect("an id"));
    assert_eq!(alice.get(&one).await.ok(), listed[0]);
    let restart = format!("{one}/restart");
    alice.post(&restart, &json!({})).await.ok();
    let dance = alice.post(&format!("{one}/dance"), &json!({})).await;
    dance.is_refused(404, "M_NOT_FOUND");
    let bob = stage.person("bob", "PHONE").await;
    bob.get(&one).await.is_refused(404, "M_NOT_FOUND");
    let not_his = bob.post(&restart, &json!({})).await;
    not_his.is_refused(404, "M_NOT_FOUND");
    stage.advance(Duration::from_secs(2)).await;
    stage.quiet().await;
    let answer = alice.get("/sync").await.ok();
    let events = &answer["rooms"]["join"][&room]["timeline"]["events"];
    let events = events.as_array().expect("a timeline").iter();
    let sent: Vec<_> = events
        .filter(|event| event["type"] == "m.example")
        .collect();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["unsigned"]["transaction_id"], "1");
}
