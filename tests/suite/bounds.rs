//! What one account or one request may hold, and what comes back unchanged.

use std::time::Duration;

use schema::sessions::{self, Maker};
use schema::{Position, device_lists};
use serde_json::{Map, Value, json};
use tests::person::segment;
use tests::{Person, Stage};

use crate::to_device::inbox_of;

/// How many contents are stored apart from their rows.
async fn shared_contents(stage: &Stage) -> i64 {
    let store = &stage.app().actors.env.store;
    store
        .read(schema::inbox::count_shared)
        .await
        .expect("a count")
}

async fn room_of(owner: &Person) -> String {
    let made = owner.post("/createRoom", &json!({})).await.ok();
    made["room_id"].as_str().expect("a room").to_owned()
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
        "one for thirty devices; the one of alice's is in its row"
    );
    irc.answers(200).await;
    stage.quiet().await;
    let taken = crate::to_device::taken(&irc);
    assert_eq!(taken.len(), 30);
    assert!(taken.iter().all(|message| message["content"] == content));
    assert_eq!(
        shared_contents(&stage).await,
        0,
        "it goes with the last row"
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
    let room = segment(&room_of(&alice).await);
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

    // What is decoded into a column is refused, and only that.
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
async fn a_large_backup_comes_back_page_by_page() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let version = json!({"algorithm": "m.megolm_backup.v1", "auth_data": {}});
    alice.post("/room_keys/version", &version).await.ok();
    let session = json!({"first_message_index": 0, "forwarded_count": 0, "is_verified": true, "session_data": {}});
    let sessions = |count: usize| -> Map<String, Value> {
        let ids = (0..count).map(|n| format!("S{n:04}"));
        ids.map(|id| (id, session.clone())).collect()
    };
    let rooms = json!({"rooms": {
        "!a:test": {"sessions": sessions(450)},
        "!b:test": {"sessions": sessions(200)},
        "!c:test": {"sessions": sessions(1)},
    }});
    alice.put("/room_keys/keys?version=1", &rooms).await.ok();
    assert_eq!(alice.get("/room_keys/keys?version=1").await.ok(), rooms);
    for room in ["!a:test", "!b:test", "!c:test"] {
        let path = format!("/room_keys/keys/{}?version=1", segment(room));
        assert_eq!(alice.get(&path).await.ok(), rooms["rooms"][room]);
    }
    let none = alice.get("/room_keys/keys/!d:test?version=1").await.ok();
    assert_eq!(none, json!({"sessions": {}}));
    let unknown = alice.get("/room_keys/keys?version=2").await;
    unknown.is_refused(404, "M_NOT_FOUND");
    let many = json!({"sessions": sessions(5_001)});
    let answer = alice.put("/room_keys/keys/!d:test?version=1", &many).await;
    answer.is_refused(413, "M_TOO_LARGE");
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
    assert!((250..=256).contains(&kept), "some 16 MiB: {kept}");
    // What grows nothing is taken still.
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
            sessions::ensure_device(tx, user.as_str(), &device, None, &Maker::Person)?;
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
    assert_eq!(makes("LAST").await.status, 200, "one that exists");
}

/// The lines of the log of device lists, by number.
async fn log_lines(stage: &Stage) -> usize {
    let store = &stage.app().actors.env.store;
    let end = Position(i64::MAX);
    let lines = store.read(move |db| device_lists::log_after(db, Position::START, end, 1_000));
    lines.await.expect("the log").len()
}

#[actix_web::test]
async fn the_log_of_device_lists_forgets_what_is_a_month_old() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    stage.bridge("irc").await;
    room_of(&alice).await;
    stage.advance(HOUR).await;
    let old = log_lines(&stage).await;
    assert!(old > 0);
    stage.advance(24 * 29 * HOUR).await;
    assert_eq!(log_lines(&stage).await, old, "not yet");
    room_of(&alice).await;
    stage.advance(24 * 2 * HOUR).await;
    assert_eq!(log_lines(&stage).await, 1, "what is of today is kept");
}
