//! The size limit of key backups, and their deletion.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use schema::backup;
use schema::faults::{Fault, Faults, Point};
use serde_json::{Map, Value, json};
use tests::person::segment;
use tests::{Person, Stage};

/// Create a backup version with `rooms[i]` sessions in room `i`.
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

/// How many sessions of a version are stored, whether the version is deleted or not.
async fn stored_sessions(stage: &Stage, user: &str, version: i64) -> usize {
    let (store, user) = (&stage.app().actors.env.store, user.to_owned());
    let sessions =
        store.read(move |db| backup::sessions(db, &user, version, &backup::KeySelection::All));
    sessions.await.expect("the sessions").len()
}

#[actix_web::test]
async fn a_large_backup_is_read_page_by_page() {
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
async fn a_deleted_backup_is_gone_at_once_and_its_sessions_are_deleted_in_steps() {
    let mut stage = Stage::new().await;
    let mut alice = stage.person("alice", "LAPTOP").await;
    back_up(&alice, &[900, 300, 1_100]).await;
    back_up(&alice, &[2]).await;
    // Mark it as deleted, as if the server had ended before it deleted the first sessions.
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
    assert_eq!(
        piece.await.expect("a piece"),
        1_000,
        "one write deletes at most 1,000 sessions"
    );
    assert_eq!(stored_sessions(&stage, &alice.user_id, 1).await, 1_300);
    drop(store);
    stage.restart().await;
    alice = stage.again(&alice);
    assert_eq!(stored_sessions(&stage, &alice.user_id, 1).await, 0);
    assert_eq!(stored_sessions(&stage, &alice.user_id, 2).await, 2);
    let left = stage.app().actors.env.store.read(backup::to_empty);
    assert_eq!(left.await.expect("read"), None);

    // A version deleted by a request is emptied after the answer.
    let version = alice.delete("/room_keys/version/2").await;
    assert_eq!(version.status, 200);
    stage.quiet().await;
    assert_eq!(stored_sessions(&stage, &alice.user_id, 2).await, 0);
}

#[actix_web::test]
async fn the_backups_of_a_deactivated_account_are_deleted() {
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
    assert!(
        (800..2_000).contains(&bytes),
        "ten sessions have {bytes} bytes"
    );
    // Pretend that so much is stored that one more session fits, and two do not.
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
    // Deleting sessions frees space.
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
async fn the_sessions_of_a_backup_are_deleted_in_several_writes() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    back_up(&alice, &[900, 300, 1_100]).await;
    let before = alice.get("/room_keys/version/1").await.ok();
    let (etag, count) = (number(&before["etag"]), &before["count"]);
    assert_eq!(count, &json!(2_300));
    let one = alice
        .delete("/room_keys/keys/!2:test/S0000?version=1")
        .await;
    assert_eq!(
        one.ok(),
        json!({"etag": (etag + 1).to_string(), "count": 2_299})
    );
    let room = alice.delete("/room_keys/keys/!2:test?version=1").await;
    assert_eq!(
        room.ok(),
        json!({"etag": (etag + 3).to_string(), "count": 1_200}),
        "two writes"
    );
    let all = alice.delete("/room_keys/keys?version=1").await;
    assert_eq!(
        all.ok(),
        json!({"etag": (etag + 5).to_string(), "count": 0}),
        "two writes"
    );
    assert_eq!(stored_sessions(&stage, &alice.user_id, 1).await, 0);
    let (store, user) = (&stage.app().actors.env.store, alice.user_id.clone());
    let bytes = store.read(move |db| backup::bytes(db, &user));
    assert_eq!(bytes.await.expect("the bytes"), 0);
    let none = alice.delete("/room_keys/keys?version=1").await;
    assert_eq!(
        none.ok(),
        json!({"etag": (etag + 5).to_string(), "count": 0})
    );
}

fn number(text: &Value) -> u64 {
    text.as_str()
        .and_then(|n| n.parse().ok())
        .expect("a number")
}

#[actix_web::test]
async fn the_number_of_backup_versions_has_a_limit() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    for _ in 0..100 {
        back_up(&alice, &[]).await;
    }
    let version = json!({"algorithm": "m.megolm_backup.v1", "auth_data": {}});
    let one_more = alice.post("/room_keys/version", &version).await;
    one_more.is_refused(400, "M_TOO_LARGE");
    for n in [100, 3] {
        alice.delete(&format!("/room_keys/version/{n}")).await.ok();
    }
    stage.quiet().await;
    // The number of a deleted version is not used again, even when its row is gone.
    for n in [101, 102] {
        let made = alice.post("/room_keys/version", &version).await.ok();
        assert_eq!(made, json!({"version": n.to_string()}));
    }
    alice
        .get("/room_keys/version/3")
        .await
        .is_refused(404, "M_NOT_FOUND");
    let one_more = alice.post("/room_keys/version", &version).await;
    one_more.is_refused(400, "M_TOO_LARGE");
}

#[actix_web::test]
async fn a_piece_of_a_deleted_backup_that_fails_is_tried_again() {
    let writes = Arc::new(AtomicUsize::new(usize::MAX));
    let left = Arc::clone(&writes);
    let stage = Stage::with(&understudy::mscs::by_default(), |options| {
        options.faults = Faults::chosen_by(move |point| {
            let is_last = || {
                left.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1))
                    .is_err()
            };
            if point == Point::Job && is_last() {
                Fault::Refuse
            } else {
                Fault::None
            }
        });
    })
    .await;
    let alice = stage.person("alice", "LAPTOP").await;
    back_up(&alice, &[3]).await;
    stage.quiet().await;
    // The deletion is the last write that succeeds.
    writes.store(1, Relaxed);
    alice.delete("/room_keys/version/1").await.ok();
    stage.quiet().await;
    assert_eq!(stored_sessions(&stage, &alice.user_id, 1).await, 3);
    writes.store(usize::MAX, Relaxed);
    stage.advance(Duration::from_secs(1)).await;
    stage.quiet().await;
    assert_eq!(stored_sessions(&stage, &alice.user_id, 1).await, 0);
}
