//! The effects of a new display name and of a deactivation in all rooms of a user.

use serde_json::{Value, json};
use tests::Stage;
use tests::person::segment;

#[actix_web::test]
async fn a_room_that_refuses_a_new_name_does_not_keep_it_from_the_others() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let mut rooms = Vec::new();
    for _ in 0..3 {
        rooms.push(alice.creates(json!({})).await);
    }
    rooms.sort();
    // A join rule that admits no user also rejects the new member event.
    let rule = format!("/rooms/{}/state/m.room.join_rules", segment(&rooms[0]));
    alice
        .put(&rule, &json!({"join_rule": "private"}))
        .await
        .ok();
    let name = format!("/profile/{}/displayname", segment("@alice:test"));
    alice
        .put(&name, &json!({"displayname": "Alice"}))
        .await
        .ok();
    stage.quiet().await;
    let mut names = Vec::new();
    for room in &rooms {
        names.push(alice.membership(room, "@alice:test").await["displayname"].clone());
    }
    assert_eq!(names, [Value::Null, json!("Alice"), json!("Alice")]);
}

#[actix_web::test]
async fn a_deactivated_user_leaves_rooms_declines_invites_and_retracts_knocks() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let carol = stage.person("carol", "DESK").await;
    let joined = alice.creates(json!({"preset": "public_chat"})).await;
    bob.post(&format!("/rooms/{}/join", segment(&joined)), &json!({}))
        .await
        .ok();
    let invited = alice.creates(json!({"invite": ["@bob:test"]})).await;
    let rules =
        json!([{"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}]);
    let knocked = alice.creates(json!({"initial_state": rules})).await;
    bob.post(&format!("/knock/{}", segment(&knocked)), &json!({}))
        .await
        .ok();
    let said = bob.says(&joined, "x").await;
    let auth = json!({"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "bob"},
        "password": "bob-password"});
    bob.post("/account/deactivate", &json!({"auth": auth, "erase": true}))
        .await
        .ok();
    stage.quiet().await;
    for room in [&joined, &invited, &knocked] {
        assert_eq!(
            alice.membership(room, "@bob:test").await["membership"],
            "leave",
            "{room}"
        );
    }
    bob.get("/account/whoami")
        .await
        .is_refused(401, "M_UNKNOWN_TOKEN");

    // Users that were in the room can still read bob's message. Users that join later see an erased event.
    let event = format!("/rooms/{}/event/{}", segment(&joined), segment(&said));
    assert_eq!(alice.get(&event).await.ok()["content"]["body"], "x");
    carol
        .post(&format!("/rooms/{}/join", segment(&joined)), &json!({}))
        .await
        .ok();
    let seen = carol.get(&event).await.ok();
    assert_eq!(
        (&seen["sender"], &seen["content"]),
        (&json!("@bob:test"), &json!({}))
    );
    let page = carol
        .get(&format!("/rooms/{}/messages?dir=b", segment(&joined)))
        .await
        .ok();
    let page = page["chunk"].as_array().expect("events");
    let of_bob = page
        .iter()
        .filter(|e| e["sender"] == "@bob:test" && e["type"] == "m.room.message");
    assert!(of_bob.clone().count() == 1 && of_bob.clone().all(|e| e["content"] == json!({})));
    let first = carol.get("/sync").await.ok();
    let timeline = &first["rooms"]["join"][&joined]["timeline"]["events"];
    let found = timeline
        .as_array()
        .expect("events")
        .iter()
        .find(|e| e["event_id"] == said.as_str());
    assert!(found.is_none_or(|e| e["content"] == json!({})), "{found:?}");
}

#[actix_web::test]
async fn transaction_ids_are_deleted_with_their_device() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let room = alice.creates(json!({})).await;
    let first = alice.says(&room, "1").await;
    assert_eq!(
        alice.says(&room, "1").await,
        first,
        "the same transaction id is the same event"
    );
    alice.post("/logout", &json!({})).await.ok();
    let again = stage.log_in("alice", "LAPTOP").await;
    assert_ne!(
        again.says(&room, "1").await,
        first,
        "a new device with the same id has its own transaction ids"
    );
}
