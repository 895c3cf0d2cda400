//! MSC3984: an appservice is queried for the keys of its users.

use std::time::Duration;

use serde_json::{Value, json};
use tests::signing::Key;
use tests::{Bridge, Person, Stage};

const BOB: &str = "@irc_bob:test";
const ENDPOINT: &str = "/_matrix/app/unstable/org.matrix.msc3984/keys/query";

fn opted_in() -> Value {
    let users = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
    json!({"namespaces": users, "org.matrix.msc3984": true})
}

/// Create bob with a device, and upload its keys.
async fn bob(irc: &Bridge) -> (Person, Key) {
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    let key = Key::of_device(1, "GHOST");
    let upload = json!({"device_keys": key.device_keys(BOB, "GHOST")});
    bob.post("/keys/upload", &upload).await.ok();
    (bob, key)
}

async fn queries(who: &Person, devices: &[&str]) -> Value {
    let query = json!({"device_keys": {BOB: devices}});
    who.post("/keys/query", &query).await.ok()
}

fn devices(answer: &Value) -> Vec<&str> {
    let devices = answer["device_keys"][BOB]
        .as_object()
        .expect("bob's devices");
    devices.keys().map(String::as_str).collect()
}

fn answer(device: &str, keys: Value) -> Value {
    json!({"device_keys": {BOB: {device: keys}}})
}

/// Clause: as.proxy.query, as.proxy.query-merged
#[actix_web::test]
async fn what_a_service_says_of_its_users_keys_goes_over_what_is_stored() {
    let stage = Stage::with_mscs(&[4203, 3202, 3984]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge_with("irc", opted_in()).await;
    let (bob, stored) = bob(&irc).await;
    bob.aside()
        .put("/devices/GHOST", &json!({"display_name": "stored"}))
        .await
        .ok();
    let (other, master) = (Key::of_device(5, "OTHER"), Key::cross_signing(6));
    let (own, of_others) = (Key::cross_signing(7), Key::cross_signing(8));
    let signed = |key: &Key, usage| master.signs(BOB, key.as_cross_signing_key(BOB, usage));
    let said = json!({
        "device_keys": {BOB: {"GHOST": stored.device_keys(BOB, "GHOST"), "OTHER": other.device_keys(BOB, "OTHER")}},
        "master_keys": {BOB: master.as_cross_signing_key(BOB, "master")},
        "self_signing_keys": {BOB: signed(&own, "self_signing")},
        "user_signing_keys": {BOB: signed(&of_others, "user_signing")},
    });

    stage
        .step("the service knows a device that is stored, one that is not, and cross-signing keys")
        .await;
    let (found, ()) = tokio::join!(queries(&alice, &[]), async {
        let question = irc.is_asked().await;
        assert_eq!(question.path, ENDPOINT);
        question.answers(200, &said);
    });
    assert_eq!(devices(&found), ["GHOST", "OTHER"]);
    let name = &found["device_keys"][BOB]["GHOST"]["unsigned"]["device_display_name"];
    assert_eq!(
        name, "stored",
        "keys that are equal in both stay as they are stored"
    );
    assert!(found["master_keys"][BOB].is_object());
    assert!(found["self_signing_keys"][BOB].is_object());
    assert_eq!(
        found["user_signing_keys"],
        json!({}),
        "other users are not shown user-signing keys"
    );

    stage
        .step("for a moment nobody asks again; only the devices that are asked for are answered")
        .await;
    let one = queries(&alice, &["OTHER"]).await;
    assert_eq!(devices(&one), ["OTHER"]);
    stage
        .transcript("what_a_service_says_of_its_users_keys_goes_over_what_is_stored")
        .await;
    assert_eq!(irc.receiver.questions().len(), 1);
}

#[actix_web::test]
async fn a_recreated_device_is_answered_with_the_keys_of_the_service() {
    let stage = Stage::with_mscs(&[3984]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge_with("irc", opted_in()).await;
    let (bob, _) = bob(&irc).await;
    let master = Key::cross_signing(2);
    let own = Key::cross_signing(3);
    let stored = json!({
        "master_key": master.as_cross_signing_key(BOB, "master"),
        "self_signing_key": master.signs(BOB, own.as_cross_signing_key(BOB, "self_signing")),
    });
    bob.post("/keys/device_signing/upload", &stored).await.ok();

    let new = Key::of_device(5, "GHOST").device_keys(BOB, "GHOST");
    let mut said = answer("GHOST", new.clone());
    let new_master = Key::cross_signing(6).as_cross_signing_key(BOB, "master");
    said["master_keys"] = json!({BOB: new_master});
    irc.receiver.to_questions(Some((200, said)));
    let found = queries(&alice, &[]).await;
    assert_eq!(found["device_keys"][BOB]["GHOST"], new);
    assert_eq!(found["master_keys"][BOB], new_master);
    let signed_by_the_old = &found["self_signing_keys"];
    assert_eq!(
        signed_by_the_old,
        &json!({}),
        "a signature by the old master key is dropped"
    );
}

#[actix_web::test]
async fn keys_in_an_answer_are_used_only_if_the_user_could_have_uploaded_them() {
    let stage = Stage::with_mscs(&[3984]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge_with("irc", opted_in()).await;
    bob(&irc).await;
    let before = queries(&alice.aside(), &["GHOST"]).await;
    let other = Key::of_device(5, "OTHER");
    let fine = other.device_keys(BOB, "OTHER");
    let mut unsigned = fine.clone();
    unsigned["signatures"] = json!({});
    let mut changed = fine.clone();
    changed["algorithms"] = json!([]);
    let (master, own) = (Key::cross_signing(6), Key::cross_signing(7));
    let not_signed = own.as_cross_signing_key(BOB, "self_signing");
    let master = master.as_cross_signing_key(BOB, "master");
    let bad = [
        json!([]),
        json!({"device_keys": {BOB: []}}),
        json!({"device_keys": {"@alice:test": {"LAPTOP": other.device_keys("@alice:test", "LAPTOP")}}}),
        json!({"device_keys": {"@irc_carol:test": {"OTHER": other.device_keys("@irc_carol:test", "OTHER")}}}),
        answer("THIRD", fine.clone()),
        answer("OTHER", other.device_keys("@irc_carol:test", "OTHER")),
        answer("OTHER", unsigned),
        answer("OTHER", changed),
        answer("OTHER", json!({})),
        json!({"master_keys": {"@alice:test": master}}),
        json!({"master_keys": {BOB: not_signed}}),
        json!({"self_signing_keys": {BOB: not_signed}}),
        json!({"user_signing_keys": {BOB: Value::Null}}),
    ];
    for bad in bad {
        stage.advance(Duration::from_secs(10)).await;
        irc.receiver.to_questions(Some((200, bad.clone())));
        let found = alice
            .aside()
            .post(
                "/keys/query",
                &json!({"device_keys": {BOB: [], "@alice:test": []}}),
            )
            .await
            .ok();
        assert_eq!(
            found["device_keys"][BOB], before["device_keys"][BOB],
            "{bad}"
        );
        assert_eq!(found["device_keys"]["@alice:test"], json!({}), "{bad}");
        for kind in ["master_keys", "self_signing_keys", "user_signing_keys"] {
            assert_eq!(found[kind], json!({}), "{bad}");
        }
    }
    // A master key is accepted alone. A self-signing key that it has not signed is dropped.
    stage.advance(Duration::from_secs(10)).await;
    let half = json!({"master_keys": {BOB: master}, "self_signing_keys": {BOB: not_signed}});
    irc.receiver.to_questions(Some((200, half)));
    let found = queries(&alice, &[]).await;
    assert_eq!(found["master_keys"][BOB], master);
    assert_eq!(found["self_signing_keys"], json!({}));
}

#[actix_web::test]
async fn equal_key_queries_share_one_query_to_the_service() {
    let stage = Stage::with_mscs(&[3984]).await;
    let alice = stage.person("alice", "LAPTOP").await.aside();
    let irc = stage.bridge_with("irc", opted_in()).await;
    bob(&irc).await;
    irc.ghost("carol").await;
    irc.receiver.to_questions(None);

    // Many equal queries at the same time cause one query to the appservice.
    let storm = futures_util::future::join_all((0..100).map(|_| queries(&alice, &[])));
    let (found, ()) = tokio::join!(storm, async {
        let question = irc.is_asked().await;
        // All requests are waiting now.
        stage.quiet().await;
        question.answers(200, &json!({}));
    });
    assert!(found.iter().all(|answer| devices(answer) == ["GHOST"]));
    assert_eq!(irc.receiver.questions().len(), 1);

    // Afterwards, only users whose answer is not cached are queried.
    irc.receiver.to_questions(Some((200, json!({}))));
    let both = json!({"device_keys": {BOB: [], "@irc_carol:test": [], "@alice:test": []}});
    for _ in 0..100 {
        alice.post("/keys/query", &both).await.ok();
    }
    let received = irc.receiver.received();
    let asked: Vec<Value> = received
        .iter()
        .filter(|r| r.path == ENDPOINT)
        .map(|r| r.json())
        .collect();
    assert_eq!(asked, [json!({BOB: []}), json!({"@irc_carol:test": []})]);
    stage.advance(Duration::from_secs(10)).await;
    alice.post("/keys/query", &both).await.ok();
    assert_eq!(
        irc.receiver.questions().len(),
        3,
        "one more query once the cached answer has expired"
    );
}

#[actix_web::test]
async fn stored_keys_are_used_when_the_service_does_not_answer() {
    let stage = Stage::with_mscs(&[3984]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge_with("irc", opted_in()).await;
    bob(&irc).await;
    irc.receiver.to_questions(None);
    let (found, ()) = tokio::join!(queries(&alice, &[]), async {
        let _held = irc.is_asked().await;
        stage.advance(Duration::from_secs(5)).await;
    });
    assert_eq!(devices(&found), ["GHOST"]);
    // For a moment, requests do not wait for the appservice again.
    assert_eq!(devices(&queries(&alice, &[]).await), ["GHOST"]);

    stage.advance(Duration::from_secs(10)).await;
    irc.receiver
        .to_questions(Some((405, json!({"errcode": "M_UNRECOGNIZED"}))));
    let before = irc.receiver.questions().len();
    for _ in 0..3 {
        assert_eq!(devices(&queries(&alice, &[]).await), ["GHOST"]);
        stage.advance(Duration::from_secs(60)).await;
    }
    assert_eq!(irc.receiver.questions().len(), before + 1);

    // The appservice is not queried for its own requests, or without the opt-in.
    let own = irc.bot.playing(BOB, None);
    stage.advance(Duration::from_secs(10 * 60)).await;
    queries(&own, &[]).await;
    assert_eq!(irc.receiver.questions().len(), before + 1);
    let stage = Stage::with_mscs(&[3984]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    bob(&irc).await;
    queries(&alice, &[]).await;
    assert_eq!(irc.receiver.questions().len(), 0);
}
