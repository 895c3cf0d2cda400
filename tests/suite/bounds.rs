//! What one account or one request may hold, and what comes back unchanged.

use std::time::Duration;

use schema::sessions::{self, Maker};
use schema::{Position, backup, device_log, user_data};
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
    let lines = store.read(move |db| device_log::log_after(db, Position::START, end, 1_000));
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

/// A new version of a backup with so many sessions in each of some rooms.
async fn back_up(alice: &Person, rooms: &[usize]) {
    let version = json!({"algorithm": "m.megolm_backup.v1", "auth_data": {}});
    let made = alice.post("/room_keys/version", &version).await.ok();
    let version = made["version"].as_str().expect("a version");
    let session = json!({"first_message_index": 0, "forwarded_count": 0, "is_verified": true, "session_data": {}});
    for (room, count) in rooms.iter().enumerate() {
        let ids = (0..*count).map(|n| (format!("S{n:04}"), session.clone()));
        let sessions: Map<String, Value> = ids.collect();
        let path = format!("/room_keys/keys/!{room}:test?version={version}");
        let body = json!({"sessions": sessions});
        alice.put(&path, &body).await.ok();
    }
}

/// How many sessions are stored in a version, deleted or not.
async fn stored_sessions(stage: &Stage, user: &str, version: i64) -> usize {
    let (store, user) = (&stage.app().actors.env.store, user.to_owned());
    let sessions = store.read(move |db| backup::sessions(db, &user, version, &backup::Part::All));
    sessions.await.expect("the sessions").len()
}

#[actix_web::test]
async fn a_deleted_backup_is_gone_at_once_and_emptied_piece_by_piece() {
    let mut stage = Stage::new().await;
    let mut alice = stage.person("alice", "LAPTOP").await;
    back_up(&alice, &[900, 300, 1_100]).await;
    back_up(&alice, &[2]).await;
    // As if the server had ended before the first piece.
    let (store, user) = (stage.app().actors.env.store.clone(), alice.user_id.clone());
    let deleted = store.write_always(move |tx| backup::delete(tx, &user, 1));
    deleted.await.expect("deleted");
    for path in [
        "/room_keys/version/1",
        "/room_keys/keys?version=1",
        "/room_keys/keys/!0:test?version=1",
    ] {
        alice.get(path).await.is_refused(404, "M_NOT_FOUND");
    }
    let user = alice.user_id.clone();
    let piece = store.write_always(move |tx| backup::empty(tx, &user, 1, 1_000));
    assert_eq!(piece.await.expect("a piece"), 1_000, "no more in a write");
    assert_eq!(stored_sessions(&stage, &alice.user_id, 1).await, 1_300);
    drop(store);
    stage.restart().await;
    alice = stage.again(&alice);
    assert_eq!(stored_sessions(&stage, &alice.user_id, 1).await, 0);
    assert_eq!(stored_sessions(&stage, &alice.user_id, 2).await, 2);
    let left = stage.app().actors.env.store.read(backup::to_empty);
    assert_eq!(left.await.expect("read"), None);

    // What is deleted by request is emptied after the answer.
    let version = alice.delete("/room_keys/version/2").await;
    assert_eq!(version.status, 200);
    stage.quiet().await;
    assert_eq!(stored_sessions(&stage, &alice.user_id, 2).await, 0);
}

#[actix_web::test]
async fn the_backups_of_a_deactivated_account_are_emptied() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    back_up(&bob, &[1_001]).await;
    back_up(&bob, &[3]).await;
    bob.post("/account/deactivate", &json!({})).await.ok();
    stage.quiet().await;
    for version in [1, 2] {
        assert_eq!(stored_sessions(&stage, &bob.user_id, version).await, 0);
    }
}

#[actix_web::test]
async fn a_backup_has_a_limit_in_bytes() {
    const LIMIT: i64 = 1 << 30;
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    back_up(&alice, &[10]).await;
    let (store, user) = (&stage.app().actors.env.store, alice.user_id.clone());
    let bytes = store.read({
        let user = user.clone();
        move |db| backup::bytes(db, &user)
    });
    let bytes = bytes.await.expect("the bytes");
    assert!((800..2_000).contains(&bytes), "of ten sessions: {bytes}");
    // As if so much were stored: room for one session and not for two.
    let fill = LIMIT - bytes - bytes * 3 / 20;
    let filled = store.write_always(move |tx| backup::changed(tx, &user, 1, 0, fill));
    filled.await.expect("filled");
    let session = json!({"first_message_index": 0, "forwarded_count": 0, "is_verified": true, "session_data": {}});
    let path = "/room_keys/keys/!new:test?version=1";
    let two = json!({"sessions": {"A": session, "B": session}});
    let before = alice.get("/room_keys/version/1").await.ok();
    alice.put(path, &two).await.is_refused(413, "M_TOO_LARGE");
    assert_eq!(alice.get("/room_keys/version/1").await.ok(), before);
    assert_eq!(alice.get(path).await.ok(), json!({"sessions": {}}));
    let one = json!({"sessions": {"A": session}});
    alice.put(path, &one).await.ok();
    alice.put(path, &two).await.is_refused(413, "M_TOO_LARGE");
    // What is deleted makes room.
    assert_eq!(
        alice
            .delete("/room_keys/keys/!0:test?version=1")
            .await
            .status,
        200
    );
    alice.put(path, &two).await.ok();
}

#[actix_web::test]
async fn a_user_keeps_so_many_filters_and_push_rules() {
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
    assert_eq!(alice.post(&path, &known).await.ok(), id, "one that exists");

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
    assert!((4..=6).contains(&kept), "some 64 KiB: {kept}");
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
            made.push(room_of(&alice).await);
        }
        made.sort();
        let rooms = alice.get("/joined_rooms").await.ok();
        assert_eq!(rooms["joined_rooms"], json!(made));
    }
}

#[actix_web::test]
async fn a_sync_from_long_ago_leaves_a_reader_to_the_others() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    room_of(&alice).await;
    let token = async || {
        let answer = alice.get("/sync").await.ok();
        answer["next_batch"].as_str().expect("a token").to_owned()
    };
    let old = token().await;
    for _ in 0..3 {
        room_of(&alice).await;
        stage.advance(24 * 20 * HOUR).await;
    }
    let new = token().await;
    // A slow read is under way until the gate is closed.
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
    assert!(!from_long_ago.is_finished(), "it waits for the slow read");
    drop(open);
    held.await.expect("a read");
    let answer = from_long_ago.await.expect("an answer");
    let rooms = answer["rooms"]["join"].as_object().expect("rooms");
    assert_eq!(rooms.len(), 3, "those made since");
}
