//! Dehydrated devices (MSC3814), with real Olm and Megolm.

use matrix_sdk_crypto::store::types::DehydratedDeviceKey;
use serde_json::{Value, json};
use tests::crypto::CryptoPerson;
use tests::signing::Key;
use tests::{Person, Stage};

const PATH: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";

/// The ids of the devices of a user, as another user sees their keys.
async fn devices_seen(by: &Person, user: &str) -> Vec<String> {
    let query = json!({"device_keys": {user: []}});
    let keys = by.post("/keys/query", &query).await.ok();
    let devices = keys["device_keys"][user].as_object().cloned();
    devices.into_iter().flatten().map(|(id, _)| id).collect()
}

#[actix_web::test]
async fn a_device_that_sleeps_on_the_server_gets_the_room_keys() {
    let mut stage = Stage::with_mscs(&[4203, 3202, 3814]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let irc = stage.bridge("irc").await;
    let room = alice.gathers(&[&bob, &irc.bot]).await;
    let first = CryptoPerson::new(alice.clone()).await;
    stage.quiet().await;
    let before = irc.receiver.count();
    let key = DehydratedDeviceKey::new();
    let device = first.crypto.dehydrates(&key).await;
    stage.quiet().await;
    let changed = irc.receiver.device_lists(before, "changed");
    assert!(changed.contains(&"@alice:test".to_owned()), "{changed:?}");

    alice.post("/logout", &json!({})).await.ok();
    assert_eq!(devices_seen(&bob, "@alice:test").await, [device.as_str()]);
    let members = ["@alice:test".to_owned(), "@bob:test".to_owned()];
    let sender = CryptoPerson::new(bob.clone()).await;
    let event = sender.crypto.say(&room, &members, "while you slept").await;
    stage.restart().await;

    let tablet = stage.log_in("alice", "TABLET").await;
    let woken = CryptoPerson::new(tablet.clone()).await;
    let path = format!("/rooms/{}/event/{}", tests::person::segment(&room), event);
    let encrypted = tablet.get(&path).await.ok();
    let read = woken.crypto.read(&room, &encrypted).await;
    assert!(read.is_err(), "the new device has no key yet");
    assert_eq!(woken.crypto.rehydrates(&key).await, 1);
    let read = woken.crypto.read(&room, &encrypted).await;
    assert_eq!(read.as_deref(), Ok("while you slept"));

    let gone = tablet.delete(PATH).await.ok();
    assert_eq!(gone, json!({"device_id": device}));
    tablet.get(PATH).await.is_refused(404, "M_NOT_FOUND");
    let bob = stage.again(&bob);
    assert_eq!(devices_seen(&bob, "@alice:test").await, ["TABLET"]);
}

/// Newer clients get the messages a page at a time while there is a `next_batch`.
#[actix_web::test]
async fn the_messages_of_a_dehydrated_device_end_without_a_token() {
    let stage = Stage::with_mscs(&[3814]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let first = CryptoPerson::new(alice.clone()).await;
    let device = first.crypto.dehydrates(&DehydratedDeviceKey::new()).await;
    for n in 0..103 {
        bob.sends_number("@alice:test", &device, n).await;
    }
    let events = format!("{PATH}/{}/events", tests::person::segment(&device));
    let page = alice.get(&events).await.ok();
    let token = page["next_batch"].as_str().expect("there is more");
    for name in ["from", "next_batch"] {
        let rest = alice.get(&format!("{events}?{name}={token}")).await.ok();
        assert_eq!(rest["events"].as_array().map(Vec::len), Some(3));
        assert!(rest.get("next_batch").is_none(), "{rest}");
    }
    let wrong = alice.get(&format!("{events}?from=x")).await;
    wrong.is_refused(400, "M_INVALID_PARAM");
    bob.get(&events).await.is_refused(404, "M_NOT_FOUND");
}

#[actix_web::test]
async fn a_dehydrated_device_that_is_refused_changes_nothing() {
    let stage = Stage::with_mscs(&[3814]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let device = |id: &str, owner: &str| {
        let keys = Key::of_device(3, id).device_keys("@alice:test", owner);
        json!({"device_id": id, "device_data": {"algorithm": "m.example"}, "device_keys": keys})
    };
    alice.put(PATH, &device("SLEEPS", "SLEEPS")).await.ok();
    let without = |key: &str| -> Value {
        let mut body = device("OTHER", "OTHER");
        body.as_object_mut().expect("an object").remove(key);
        body
    };
    let cases = [
        (without("device_keys"), "M_MISSING_PARAM"),
        (without("device_data"), "M_MISSING_PARAM"),
        (without("device_id"), "M_MISSING_PARAM"),
        (device("OTHER", "ANOTHER"), "M_INVALID_PARAM"),
        (device("LAPTOP", "LAPTOP"), "M_INVALID_PARAM"),
        (device("", ""), "M_INVALID_PARAM"),
    ];
    for (body, errcode) in cases {
        alice.put(PATH, &body).await.is_refused(400, errcode);
        assert_eq!(alice.get(PATH).await.ok()["device_id"], "SLEEPS", "{body}");
        assert_eq!(
            devices_seen(&alice, "@alice:test").await,
            ["SLEEPS"],
            "{body}"
        );
    }
    let other = format!("{PATH}/OTHER/events");
    alice
        .post(&other, &json!({}))
        .await
        .is_refused(404, "M_NOT_FOUND");
    let own = format!("{PATH}/SLEEPS/events");
    let token = json!({"next_batch": "x"});
    alice
        .post(&own, &token)
        .await
        .is_refused(400, "M_INVALID_PARAM");

    alice.put(PATH, &device("NEXT", "NEXT")).await.ok();
    assert_eq!(
        devices_seen(&alice, "@alice:test").await,
        ["NEXT"],
        "the older one is deleted"
    );
    let bob = stage.person("bob", "PHONE").await;
    bob.get(PATH).await.is_refused(404, "M_NOT_FOUND");
}
