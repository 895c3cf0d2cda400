//! Which appservices may observe a user's to-device messages, and how the user can find out.

use schema::sessions::{self, DeviceCreator};
use serde_json::{Value, json};
use tests::{Stage, TO_DEVICE};

const OBSERVERS: &str = "/_understudy/observers";

fn everybody() -> Value {
    json!({"namespaces": {"users": [{"exclusive": false, "regex": "@.*"}]}})
}

/// A server whose configuration allows these appservices to observe.
async fn granting(ids: &[&str]) -> Stage {
    let ids = ids.iter().map(|id| (*id).into()).collect();
    Stage::with(&[3202, 4203], |options| {
        options.settings.observe = Some(ids)
    })
    .await
}

/// Clause: own.inbox.consent
#[actix_web::test]
async fn a_service_observes_people_only_where_the_configuration_names_it() {
    let stage = granting(&["mirror"]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let mirror = stage.bridge_with("mirror", everybody()).await;
    let nosy = stage.bridge_with("nosy", everybody()).await;
    stage
        .step("one service is granted to observe, the other is not")
        .await;
    alice
        .sends_to_device("1", "@bob:test", "PHONE", json!({"n": 1}))
        .await;
    stage.step("bob asks who reads along").await;
    bob.get(OBSERVERS).await.ok();
    stage.step("the reason why the other one does not").await;
    bob.get("/_understudy/explain?user=@bob:test&device=PHONE")
        .await
        .ok();
    stage.quiet().await;
    assert_eq!(
        (
            mirror.receiver.items(0, TO_DEVICE).len(),
            nosy.receiver.items(0, TO_DEVICE).len()
        ),
        (1, 0)
    );
    stage
        .transcript("a_service_observes_people_only_where_the_configuration_names_it")
        .await;
}

/// Clause: own.inbox.consent
#[actix_web::test]
async fn users_see_the_observers_of_each_of_their_own_devices() {
    let stage = Stage::with(&[3202, 4203], |options| {
        options.settings.observe = Some(vec!["mirror".into()]);
        // Not a development server: `/_understudy/explain` does not exist.
        options.dev = false;
    })
    .await;
    let bob = stage.person("bob", "PHONE").await;
    let mirror = stage.bridge_with("mirror", everybody()).await;
    mirror
        .bot
        .playing("@bob:test", None)
        .put("/devices/PUPPET", &json!({}))
        .await
        .ok();
    let said = bob.get(OBSERVERS).await.ok();
    let observed = |interest: &str, rule: &str| json!([{"service": "mirror", "sender": "@mirrorbot:test", "interest": interest, "rule": rule}]);
    assert_eq!(
        said,
        json!({"user_id": "@bob:test", "devices": [
            {"device_id": "PHONE", "observers": observed("implicit", "granted")},
            {"device_id": "PUPPET", "observers": observed("explicit", "created_device")},
        ]})
    );
    bob.anonymous()
        .get(OBSERVERS)
        .await
        .is_refused(401, "M_MISSING_TOKEN");
    bob.post(OBSERVERS, &json!({}))
        .await
        .is_refused(405, "M_UNRECOGNIZED");
    bob.get("/_understudy/explain?user=@bob:test&device=PHONE")
        .await
        .is_refused(404, "M_UNRECOGNIZED");
}

#[actix_web::test]
async fn a_service_needs_no_grant_for_an_account_that_it_registered() {
    let stage = granting(&[]).await;
    let mirror = stage.bridge_with("mirror", everybody()).await;
    let eve = mirror.ghost_with_device("eve", "GHOST").await;
    // A login of a user on that account.
    let store = stage.app().actors.env.store.clone();
    let log_in = store.write(|tx| {
        sessions::ensure_device(
            tx,
            "@mirror_eve:test",
            "PHONE",
            None,
            &DeviceCreator::Person,
        )
    });
    assert!(log_in.await.expect("written"));
    let said = eve.get(OBSERVERS).await.ok();
    let rules: Vec<_> = said["devices"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|d| (d["device_id"].clone(), d["observers"][0]["rule"].clone()))
        .collect();
    assert_eq!(
        rules,
        [
            (json!("GHOST"), json!("registered_account")),
            (json!("PHONE"), json!("own_account")),
        ]
    );
    let alice = stage.person("alice", "LAPTOP").await;
    alice
        .sends_to_device("1", "@mirror_eve:test", "PHONE", json!({"n": 1}))
        .await;
    stage.quiet().await;
    assert_eq!(
        mirror.receiver.items(0, TO_DEVICE).len(),
        1,
        "the service received its copy"
    );
    let path = "/_understudy/explain?user=@mirror_eve:test&device=PHONE";
    assert_eq!(
        alice.get(path).await.ok()["inbox"]["count"],
        1,
        "the message still waits for the user's device"
    );
}

#[actix_web::test]
async fn the_state_of_each_sender_shows_its_grant() {
    let stage = granting(&["mirror"]).await;
    stage.bridge_with("mirror", everybody()).await;
    stage.bridge_with("nosy", everybody()).await;
    let irc = stage.bridge("irc").await;
    let all = irc.bot.get("/_understudy/appservices").await.ok();
    let granted: Vec<_> = all
        .as_array()
        .expect("a list")
        .iter()
        .map(|s| (s["service"].clone(), s["observing"]["granted"].clone()))
        .collect();
    assert_eq!(
        granted,
        [
            (json!("irc"), Value::Null),
            (json!("mirror"), json!(true)),
            (json!("nosy"), json!(false)),
        ]
    );
}
