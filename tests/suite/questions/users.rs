//! Users that an appservice creates while it is queried about them.

use serde_json::{Value, json};
use tests::Stage;
use tests::person::segment;

use super::{ABOUT_BOB, BOB, makes_bob, while_bob_is_made};

/// Clause: as.query.waits
#[actix_web::test]
async fn keys_of_a_user_whom_its_service_makes_while_it_is_asked() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    stage
        .step(
            "Alice asks for the keys of a user who does not exist; his service is asked about him",
        )
        .await;
    let query = json!({"device_keys": {BOB: []}});
    let (found, ()) = tokio::join!(alice.post("/keys/query", &query), async {
        let question = irc.is_asked().await;
        stage
            .step("while it is asked the service makes the user, a device and keys")
            .await;
        makes_bob(&stage, &irc).await;
        stage
            .step("then it says that he exists, and Alice's request goes on and finds them")
            .await;
        question.answers(200, &json!({}));
    });
    let keys = &found.ok()["device_keys"][BOB]["GHOST"]["keys"];
    assert_eq!(keys["curve25519:GHOST"], "curve");
    stage
        .transcript("keys_of_a_user_whom_its_service_makes_while_it_is_asked")
        .await;
    // Bob exists now, so there is no second query.
    alice.aside().post("/keys/query", &query).await.ok();
    assert_eq!(irc.receiver.questions().len(), 1);
}

/// Clause: own.query.everywhere
#[actix_web::test]
async fn a_message_to_a_user_whom_its_service_makes_reaches_the_new_device() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    stage
        .step("Alice writes to all devices of a user who does not exist")
        .await;
    let message = json!({"messages": {BOB: {"*": {"body": "ping"}}}});
    let (sent, ()) = tokio::join!(alice.put("/sendToDevice/m.example/1", &message), async {
        let question = irc.is_asked().await;
        stage.step("his service makes him and a device").await;
        irc.ghost_with_device("bob", "GHOST").await;
        stage
            .step("the message is deposited for that device, and delivered")
            .await;
        question.answers(200, &json!({}));
    });
    sent.ok();
    stage
        .transcript("a_message_to_a_user_whom_its_service_makes_reaches_the_new_device")
        .await;
    let taken = irc.receiver.taken(0);
    let of = |t: &Value| t["de.sorunome.msc2409.to_device"][0].clone();
    let message = taken.iter().map(of).find(|m| !m.is_null());
    let message = message.expect("the message arrives");
    assert_eq!(message["to_device_id"], "GHOST");
    assert_eq!(message["content"]["body"], "ping");
}

/// Clause: own.query.everywhere
#[actix_web::test]
async fn a_claim_gets_the_key_that_was_uploaded_while_the_service_was_queried() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let claim = json!({"one_time_keys": {BOB: {"GHOST": "signed_curve25519"}}});
    let claimed = while_bob_is_made(&stage, &irc, alice.post("/keys/claim", &claim)).await;
    let key = &claimed["one_time_keys"][BOB]["GHOST"]["signed_curve25519:K0"];
    assert_eq!(key["key"], "key0", "{claimed}");
}

#[actix_web::test]
async fn an_invite_shows_the_name_that_the_service_set_while_it_was_queried() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let room = alice.post("/createRoom", &json!({})).await.ok()["room_id"].clone();
    let room = format!("/rooms/{}", segment(room.as_str().expect("a room")));
    let invite = format!("{room}/invite");
    while_bob_is_made(&stage, &irc, alice.post(&invite, &json!({"user_id": BOB}))).await;
    let member = format!("{room}/state/m.room.member/{BOB}");
    let member = alice.get(&member).await.ok();
    assert_eq!(member["membership"], "invite");
    assert_eq!(member["displayname"], "Bob");
}

/// Clause: own.query.everywhere
#[actix_web::test]
async fn users_that_are_invited_in_other_ways_cause_a_query_too() {
    // Invites in `createRoom`, and by sending the member event as a state event.
    for by_state in [false, true] {
        let stage = Stage::new().await;
        let alice = stage.person("alice", "LAPTOP").await;
        let irc = stage.bridge("irc").await;
        if by_state {
            let room = alice.post("/createRoom", &json!({})).await.ok()["room_id"].clone();
            let room = segment(room.as_str().expect("a room"));
            let member = format!("/rooms/{room}/state/m.room.member/{BOB}");
            // Only an invite causes a query. A ban does not need an existing user.
            let ban = json!({"membership": "ban"});
            alice.put(&member, &ban).await.ok();
            alice
                .put(&member, &json!({"membership": "leave"}))
                .await
                .ok();
            assert_eq!(irc.receiver.questions(), [""; 0]);
            let invite = json!({"membership": "invite"});
            while_bob_is_made(&stage, &irc, alice.put(&member, &invite)).await;
        } else {
            let create = json!({"invite": [BOB, "@alice_s_friend:test"]});
            while_bob_is_made(&stage, &irc, alice.post("/createRoom", &create)).await;
        }
        assert_eq!(irc.receiver.questions(), [ABOUT_BOB]);
    }
}

/// Clause: own.query.everywhere
#[actix_web::test]
async fn a_profile_is_read_after_its_service_was_queried() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let somebody = stage.person("alice", "LAPTOP").await;
    let profile = format!("/profile/{BOB}");
    let profile = while_bob_is_made(&stage, &irc, somebody.get(&profile)).await;
    assert_eq!(profile, json!({"displayname": "Bob"}));
    let field = format!("/profile/{BOB}/displayname");
    // The profile of an existing user can be read without a token.
    let field = somebody.anonymous().get(&field).await.ok();
    assert_eq!(field, json!({"displayname": "Bob"}));
    assert_eq!(irc.receiver.questions(), [ABOUT_BOB]);
}

/// Clause: as.query.user
#[actix_web::test]
async fn users_that_no_service_could_create_cause_no_query() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let mut silent = json!({"namespaces": {"users": [{"exclusive": true, "regex": "@silent_.*"}]}});
    silent["url"] = Value::Null;
    let silent = stage.bridge_with("silent", silent).await;
    let body = json!({"messages": {
        "@nobody:test": {"*": {}}, "@irc_bob:elsewhere": {"*": {}}, "@silent_bob:test": {"*": {}},
        "@alice:test": {"*": {}}, &irc.bot.user_id: {"*": {}},
    }});
    alice.put("/sendToDevice/m.example/1", &body).await.ok();
    // A request of the appservice itself causes no query, on public endpoints too: the appservice would wait for itself.
    let profile = format!("/profile/{BOB}");
    irc.bot.get(&profile).await.is_refused(404, "M_NOT_FOUND");
    let query = json!({"device_keys": {BOB: []}});
    irc.bot.post("/keys/query", &query).await.ok();
    let dave = irc.ghost("dave").await;
    dave.post("/keys/query", &query).await.ok();
    // A request that is refused causes no query.
    let anonymous = alice.anonymous();
    anonymous
        .post("/keys/query", &query)
        .await
        .is_refused(401, "M_MISSING_TOKEN");
    alice
        .post("/keys/query", &json!({"device_keys": {"irc_bob": []}}))
        .await
        .is_refused(400, "M_BAD_JSON");
    assert_eq!(irc.receiver.questions(), [""; 0]);
    assert_eq!(silent.receiver.questions(), [""; 0]);
}

/// Clause: as.query.user
#[actix_web::test]
async fn an_exclusive_service_is_queried_alone_and_others_in_turn() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let everybody = json!({"namespaces": {"users": [{"exclusive": false, "regex": "@.*"}]}});
    let first = stage.bridge_with("first", everybody.clone()).await;
    let second = stage.bridge_with("second", everybody).await;
    second.receiver.to_questions(Some((200, json!({}))));
    for (user, asked) in [(BOB, [1, 0, 0]), ("@dave:test", [1, 1, 1])] {
        let profile = format!("/profile/{user}");
        alice.get(&profile).await.is_refused(404, "M_NOT_FOUND");
        let questions = [&irc, &first, &second].map(|b| b.receiver.questions().len());
        assert_eq!(questions, asked, "{user}");
    }
    first.receiver.to_questions(Some((200, json!({}))));
    let profile = alice.get("/profile/@erin:test").await;
    profile.is_refused(404, "M_NOT_FOUND");
    assert_eq!(first.receiver.questions().len(), 2);
    assert_eq!(
        second.receiver.questions().len(),
        1,
        "the second service is not queried once the first has answered that the user exists"
    );
}
