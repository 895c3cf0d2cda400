//! What follows a change of a user in all of its rooms: new names, the end of its account.

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
    // A rule by which nobody joins refuses the new member event too.
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
async fn a_user_that_gives_up_its_account_leaves_declines_and_takes_back() {
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

    // Who was there still reads what bob said; who comes later sees that something was.
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
async fn transaction_ids_die_with_their_device() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let room = alice.creates(json!({})).await;
    let first = alice.says(&room, "1").await;
    assert_eq!(alice.says(&room, "1").await, first, "a repetition");
    alice.post("/logout", &json!({})).await.ok();
    let again = stage.log_in("alice", "LAPTOP").await;
    assert_ne!(
        again.says(&room, "1").await,
        first,
        "another device of the same name"
    );
}
