//! Limits of one account and of one request, and contents that must come back unchanged.

use std::time::Duration;

use schema::sessions::{self, DeviceCreator};
use schema::{Position, device_log, user_data};
use serde_json::{Map, Value, json};
use tests::person::segment;
use tests::{Stage, TO_DEVICE};

use crate::to_device::inbox_of;

/// The number of rows in `shared_contents`, where contents that several rows share are stored.
async fn shared_contents(stage: &Stage) -> i64 {
    let store = &stage.app().actors.env.store;
    store
        .read(schema::queues::count_shared)
        .await
        .expect("a count")
}

#[actix_web::test]
async fn a_message_to_many_devices_is_stored_once() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "D0").await;
    for n in 1..30 {
        let path = format!("/devices/D{n}");
        let answer = bob.put(&path, &json!({})).await;
        assert!(answer.status < 300, "{answer:?}");
    }
    stage.quiet().await;
    irc.receiver.at_once(None);
    let content = json!({"ciphertext": "c".repeat(20_000)});
    let body = json!({"messages": {&bob.user_id: {"*": content}, &alice.user_id: {"*": content}}});
    alice.put("/sendToDevice/m.example/1", &body).await.ok();
    assert_eq!(
        shared_contents(&stage).await,
        1,
        "the content is shared by bob's thirty devices, and stored in the row for alice's only one"
    );
    irc.answers(200).await;
    stage.quiet().await;
    let taken = irc.receiver.items(0, TO_DEVICE);
    assert_eq!(taken.len(), 30);
    assert!(taken.iter().all(|message| message["content"] == content));
    assert_eq!(
        shared_contents(&stage).await,
        0,
        "the shared content is deleted with the last row"
    );
    assert_eq!(inbox_of(&alice).await[0]["content"], content);
}

#[actix_web::test]
async fn a_request_to_too_many_devices_changes_nothing() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let mut devices: Map<String, Value> =
        (0..5_000).map(|n| (format!("D{n}"), json!({}))).collect();
    devices.insert("LAPTOP".to_owned(), json!({}));
    let body = json!({"messages": {&alice.user_id: devices}});
    let answer = alice.put("/sendToDevice/m.example/1", &body).await;
    answer.is_refused(413, "M_TOO_LARGE");
    assert!(inbox_of(&alice).await.is_empty());
}

#[actix_web::test]
async fn an_escaped_nul_in_content_comes_back_as_it_was_sent() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let room = segment(&alice.creates(json!({})).await);
    let said = json!({"body": "a\u{0}b", "msgtype": "m.text"});
    let event = alice
        .put(&format!("/rooms/{room}/send/m.room.message/1"), &said)
        .await
        .ok();
    let event = segment(event["event_id"].as_str().expect("an id"));
    let seen = alice
        .get(&format!("/rooms/{room}/event/{event}"))
        .await
        .ok();
    assert_eq!(seen["content"], said);

    let state = format!("/rooms/{room}/state/org.example.x/k");
    alice.put(&state, &said).await.ok();
    assert_eq!(alice.get(&state).await.ok(), said);

    let body = json!({"messages": {&alice.user_id: {"LAPTOP": said}}});
    alice.put("/sendToDevice/m.example/1", &body).await.ok();
    assert_eq!(inbox_of(&alice).await[0]["content"], said);

    let data = format!(
        "/user/{}/account_data/org.example.x",
        segment(&alice.user_id)
    );
    alice.put(&data, &said).await.ok();
    assert_eq!(alice.get(&data).await.ok(), said);

    // Only values that are stored in a column of their own are refused.
    let name = json!({"displayname": "a\u{0}b"});
    let path = format!("/profile/{}/displayname", segment(&alice.user_id));
    alice
        .put(&path, &name)
        .await
        .is_refused(400, "M_INVALID_PARAM");
    let member = format!(
        "/rooms/{room}/state/m.room.member/{}",
        segment(&alice.user_id)
    );
    let named = json!({"membership": "join", "displayname": "a\u{0}b"});
    let answer = alice.put(&member, &named).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let wrong = json!({"messages": {"@a\u{0}b:test": {"*": {}}}});
    let answer = alice.put("/sendToDevice/m.example/2", &wrong).await;
    assert_eq!(answer.status, 400, "{answer:?}");
}

#[actix_web::test]
async fn account_data_has_a_limit_in_bytes() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let path = |n: usize| {
        format!(
            "/user/{}/account_data/org.example.{n}",
            segment(&alice.user_id)
        )
    };
    let large = json!({"a": "x".repeat(65_500)});
    let mut kept = 0;
    let refused = loop {
        let answer = alice.put(&path(kept), &large).await;
        if answer.status != 200 || kept > 300 {
            break answer;
        }
        kept += 1;
    };
    refused.is_refused(413, "M_TOO_LARGE");
    assert!((250..=256).contains(&kept), "about 16 MiB: {kept} pieces");
    // A write that does not increase the size is still accepted.
    alice.put(&path(0), &large).await.ok();
    alice.put(&path(1), &json!({})).await.ok();
    alice.put(&path(kept), &large).await.ok();
}

#[actix_web::test]
async fn an_account_has_a_thousand_devices_at_most() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    let (store, user) = (&stage.app().actors.env.store, bob.user_id.clone());
    let made = store.write_always(move |tx| {
        for n in 1..999 {
            let device = format!("D{n}");
            sessions::ensure_device(tx, user.as_str(), &device, None, &DeviceCreator::Person)?;
        }
        Ok::<_, schema::Error>(())
    });
    made.await.expect("written");
    let makes = async |device: &str| bob.put(&format!("/devices/{device}"), &json!({})).await;
    assert_eq!(makes("LAST").await.status, 201);
    let refused = makes("ANOTHER").await;
    let errcode = refused.body["errcode"].as_str();
    assert_eq!((refused.status, errcode), (400, Some("M_TOO_LARGE")));
    let devices = bob.get("/devices").await.ok();
    let devices = devices["devices"].as_array().expect("devices");
    assert_eq!(devices.len(), 1_000);
    assert!(devices.iter().all(|d| d["device_id"] != "ANOTHER"));
    assert_eq!(makes("LAST").await.status, 200, "the device exists already");
}

/// How many lines the device-list log has.
async fn log_lines(stage: &Stage) -> usize {
    let store = &stage.app().actors.env.store;
    let end = Position(i64::MAX);
    let lines = store.read(move |db| device_log::log_after(db, Position::START, end, 1_000));
    lines.await.expect("the log").len()
}

#[actix_web::test]
async fn the_device_list_log_drops_lines_after_a_month() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    stage.bridge("irc").await;
    alice.creates(json!({})).await;
    stage.advance(HOUR).await;
    let old = log_lines(&stage).await;
    assert!(old > 0);
    stage.advance(24 * 29 * HOUR).await;
    assert_eq!(log_lines(&stage).await, old, "no line is a month old yet");
    alice.creates(json!({})).await;
    stage.advance(24 * 2 * HOUR).await;
    assert_eq!(log_lines(&stage).await, 1, "the line of today is kept");
}

#[actix_web::test]
async fn filters_and_push_rules_of_a_user_are_limited() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let path = format!("/user/{}/filter", segment(&alice.user_id));
    let known = json!({"room": {"timeline": {"limit": 7}}});
    let id = alice.post(&path, &known).await.ok();
    let (store, user) = (&stage.app().actors.env.store, alice.user_id.clone());
    let made = store.write_always(move |tx| {
        for n in 1..10_000 {
            user_data::put_filter(tx, &user, &format!("F{n}"), "{}")?;
        }
        Ok::<_, schema::Error>(())
    });
    made.await.expect("written");
    let refused = alice.post(&path, &json!({"room": {}})).await;
    refused.is_refused(400, "M_TOO_LARGE");
    assert_eq!(
        alice.post(&path, &known).await.ok(),
        id,
        "the filter exists already"
    );

    let rule = json!({"actions": ["notify"], "pattern": "x".repeat(10_000)});
    let mut kept = 0;
    let refused = loop {
        let path = format!("/pushrules/global/content/r{kept}");
        let answer = alice.put(&path, &rule).await;
        if answer.status != 200 || kept > 10 {
            break answer;
        }
        kept += 1;
    };
    refused.is_refused(413, "M_TOO_LARGE");
    assert!((4..=6).contains(&kept), "about 64 KiB: {kept} rules");
    let last = format!("/pushrules/global/content/r{kept}");
    alice.get(&last).await.is_refused(404, "M_NOT_FOUND");
    alice.get("/pushrules/global/content/r0").await.ok();
}

#[actix_web::test]
async fn many_joined_rooms_are_read_page_by_page() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let mut made = Vec::new();
    for count in [100, 105] {
        while made.len() < count {
            made.push(alice.creates(json!({})).await);
        }
        made.sort();
        let rooms = alice.get("/joined_rooms").await.ok();
        assert_eq!(rooms["joined_rooms"], json!(made));
    }
}

#[actix_web::test]
async fn a_sync_from_an_old_token_leaves_a_reader_to_the_others() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    alice.creates(json!({})).await;
    let token = async || {
        let answer = alice.get("/sync").await.ok();
        answer["next_batch"].as_str().expect("a token").to_owned()
    };
    let old = token().await;
    for _ in 0..3 {
        alice.creates(json!({})).await;
        stage.advance(24 * 20 * HOUR).await;
    }
    let new = token().await;
    // A slow read occupies a reader until the gate is closed.
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let held = stage.app().actors.env.store.read_slow(move |_| {
        let _ = gate.recv();
        Ok::<_, schema::Error>(())
    });
    let from_long_ago = {
        let (alice, path) = (alice.clone(), format!("/sync?since={old}"));
        actix_rt::spawn(async move { alice.get(&path).await.ok() })
    };
    for _ in 0..20 {
        alice.get(&format!("/sync?since={new}")).await.ok();
        alice.get("/joined_rooms").await.ok();
    }
    assert!(
        !from_long_ago.is_finished(),
        "the sync waits for the slow read"
    );
    drop(open);
    held.await.expect("a read");
    let answer = from_long_ago.await.expect("an answer");
    let rooms = answer["rooms"]["join"].as_object().expect("rooms");
    assert_eq!(rooms.len(), 3, "the rooms created since");
}
