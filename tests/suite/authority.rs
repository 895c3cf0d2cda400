//! Which appservice decides over a device, which only observe it, and what happens to copies when that changes.

use std::time::Duration;

use schema::ServiceId;
use serde_json::{Value, json};
use tests::{Bridge, Person, Stage, TO_DEVICE, numbers};

use crate::to_device::inbox_of;

const EXPLAIN: &str = "/_understudy/explain?user=@irc_bob:test&device=GHOST";

fn users(exclusive: bool) -> Value {
    json!({"namespaces": {"users": [{"exclusive": exclusive, "regex": "@irc_.*"}]}})
}

/// Change some keys of a bridge's registration file, and reload it.
pub(crate) async fn change_registration(stage: &Stage, bridge: &Bridge, keys: &Value) {
    let file = stage.registration_file(&bridge.id);
    let text = std::fs::read_to_string(&file).expect("a file");
    let mut registration: Value = serde_json::from_str(&text).expect("JSON");
    for (key, value) in keys.as_object().into_iter().flatten() {
        registration[key] = value.clone();
    }
    stage.register(&bridge.id, &registration).await;
}

/// A summary of `/_understudy/explain`: for each appservice the rule that applies, the size of the inbox, and the waiting copies.
async fn explanation(person: &Person) -> (Vec<String>, i64, Vec<String>) {
    let said = person.aside().get(EXPLAIN).await.ok();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let services = said["services"].as_array().expect("a list").iter();
    let services = services.map(|s| {
        let rule = text(s, "rule");
        let why_not = text(s, "why_not");
        format!("{}: {rule}{why_not}", text(s, "service"))
    });
    let copies = said["copies"]["oldest"].as_array().expect("a list").iter();
    let copies = copies.map(|c| format!("{}: {}", text(c, "service"), text(c, "rule")));
    let inbox = said["inbox"]["count"].as_i64().expect("a number");
    (services.collect(), inbox, copies.collect())
}

/// Clause: own.inbox.decided-on-arrival
#[actix_web::test]
async fn of_two_services_that_could_decide_the_first_by_id_does() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let relay = stage.bridge_with("relay", users(true)).await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    irc.receiver.at_once(None);
    relay.receiver.at_once(None);
    stage
        .step("one message, two services with an exclusive namespace: each is sent it")
        .await;
    alice.sends_number("@irc_bob:test", "GHOST", 1).await;
    stage.quiet().await;
    alice.get(EXPLAIN).await.ok();
    stage
        .step("the acknowledgement of the second takes nothing from the inbox")
        .await;
    relay.answers(200).await;
    stage.quiet().await;
    assert_eq!(numbers(&inbox_of(&bob).await), [1]);
    alice.get(EXPLAIN).await.ok();
    stage.step("that of the first is the device's").await;
    irc.answers(200).await;
    stage.quiet().await;
    assert!(inbox_of(&bob).await.is_empty());
    assert_eq!(
        (
            irc.receiver.items(0, TO_DEVICE).len(),
            relay.receiver.items(0, TO_DEVICE).len()
        ),
        (1, 1)
    );
    stage
        .transcript("of_two_services_that_could_decide_the_first_by_id_does")
        .await;
}

#[actix_web::test]
async fn two_services_observe_and_the_message_waits_for_its_device() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let anybody = json!({"namespaces": {"users": [{"exclusive": false, "regex": "@bob.*"}]}});
    let mirror = stage.bridge_with("mirror", anybody.clone()).await;
    let audit = stage.bridge_with("audit", anybody).await;
    alice
        .sends_to_device("1", "@bob:test", "PHONE", json!({"n": 1}))
        .await;
    stage.quiet().await;
    assert_eq!(
        (
            mirror.receiver.items(0, TO_DEVICE).len(),
            audit.receiver.items(0, TO_DEVICE).len()
        ),
        (1, 1)
    );
    let first = bob.get("/sync?timeout=0").await.ok();
    assert_eq!(
        first["to_device"]["events"][0]["content"]["n"], 1,
        "both services have acknowledged it, and it still waits for its device"
    );
    let since = first["next_batch"].as_str().expect("a token");
    bob.get(&format!("/sync?timeout=0&since={since}"))
        .await
        .ok();
    assert!(
        inbox_of(&bob).await.is_empty(),
        "the device's acknowledgement removes it"
    );
}

/// Clause: own.inbox.decided-on-arrival
#[actix_web::test]
async fn a_client_and_the_service_read_the_same_inbox() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    irc.receiver.at_once(None);
    let sync = async |since: &str| {
        let path = format!("/sync?timeout=0{since}");
        let answer = bob.aside().get(&path).await.ok();
        let events = answer["to_device"]["events"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let next = answer["next_batch"].as_str().expect("a token").to_owned();
        (numbers(&events), format!("&since={next}"))
    };

    stage
        .step("the client is first: the copy is sent all the same")
        .await;
    alice.sends_number("@irc_bob:test", "GHOST", 1).await;
    let (got, since) = sync("").await;
    assert_eq!(got, [1]);
    let (got, since) = sync(&since).await;
    assert!(got.is_empty(), "the next sync acknowledges it");
    alice.get(EXPLAIN).await.ok();
    irc.answers(200).await;
    stage.quiet().await;

    stage
        .step("the service is first: the client has seen it, and is not given it again")
        .await;
    alice.sends_number("@irc_bob:test", "GHOST", 2).await;
    stage.quiet().await;
    let (got, _) = sync(&since).await;
    assert_eq!(got, [2], "delivered, and not yet acknowledged");
    irc.answers(200).await;
    stage.quiet().await;
    let (got, since) = sync(&since).await;
    assert!(got.is_empty(), "the service's acknowledgement removes it");
    let (got, _) = sync(&since).await;
    assert!(got.is_empty(), "it is not delivered again");
    alice.get(EXPLAIN).await.ok();
    assert_eq!(numbers(&irc.receiver.items(0, TO_DEVICE)), [1, 2]);
    stage
        .transcript("a_client_and_the_service_read_the_same_inbox")
        .await;
}

#[actix_web::test]
async fn a_device_made_again_under_the_same_id_gets_nothing_of_the_old_one() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    irc.receiver.at_once(None);
    stage.step("one message is frozen, another waits").await;
    alice.sends_number("@irc_bob:test", "GHOST", 1).await;
    stage.quiet().await;
    alice.sends_number("@irc_bob:test", "GHOST", 2).await;
    stage
        .step("the device is deleted and made again: what waited is gone, what is frozen is sent")
        .await;
    bob.delete("/devices/GHOST").await.ok();
    let ghost = irc.bot.playing(&bob.user_id, None);
    ghost.put("/devices/GHOST", &json!({})).await.ok();
    stage.step("a message for the new device").await;
    alice.sends_number("@irc_bob:test", "GHOST", 3).await;
    assert_eq!(numbers(&inbox_of(&bob).await), [3]);
    stage
        .step("the bridge answers: its acknowledgement of the old one is not the new one's")
        .await;
    irc.answers(200).await;
    stage.quiet().await;
    assert_eq!(numbers(&inbox_of(&bob).await), [3]);
    irc.answers(200).await;
    stage.quiet().await;
    assert_eq!(numbers(&irc.receiver.items(0, TO_DEVICE)), [1, 3]);
    assert!(inbox_of(&bob).await.is_empty());
    stage
        .transcript("a_device_made_again_under_the_same_id_gets_nothing_of_the_old_one")
        .await;
}

/// Clause: own.registration.away
#[actix_web::test]
async fn a_service_goes_is_forgotten_and_comes_back() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    irc.receiver.at_once(Some(500));
    stage.step("a message that the service does not take").await;
    alice.sends_number("@irc_bob:test", "GHOST", 1).await;
    stage
        .step("its file is gone: the copy is kept as it was decided, and so is the message")
        .await;
    let file = stage.registration_file("irc");
    let text = std::fs::read_to_string(&file).expect("a file");
    std::fs::remove_file(&file).expect("removed");
    stage.reload().await;
    alice.get(EXPLAIN).await.ok();
    stage
        .step("it is forgotten: the copy goes, the message stays")
        .await;
    let store = stage.app().actors.env.store.clone();
    let forget = store.write(|tx| schema::appservices::forget(tx, &ServiceId::from("irc")));
    assert!(forget.await.expect("written"));
    alice.get(EXPLAIN).await.ok();
    stage
        .step("it is registered again, and is given what waits")
        .await;
    irc.receiver.at_once(Some(200));
    // Appservices are forgotten while the server is stopped, so time passes before they come back.
    stage.advance(Duration::from_secs(1)).await;
    let registration = serde_json::from_str(&text).expect("JSON");
    stage.register("irc", &registration).await;
    stage.quiet().await;
    alice.get(EXPLAIN).await.ok();
    assert_eq!(numbers(&irc.receiver.items(0, TO_DEVICE)), [1]);
    stage
        .transcript("a_service_goes_is_forgotten_and_comes_back")
        .await;
}

/// Clause: own.inbox.decided-on-arrival
#[actix_web::test]
async fn what_was_decided_on_arrival_stays() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    // A user's account that the namespace of the appservice will match.
    let bob = stage.person("irc_bob", "GHOST").await;
    let irc = stage.bridge_with("irc", users(true)).await;
    stage.quiet().await;
    irc.receiver.at_once(None);

    stage
        .step("the namespace is exclusive, and a message is on its way")
        .await;
    alice.sends_number("@irc_bob:test", "GHOST", 1).await;
    stage
        .step("it is shared now: the next message is merely observed")
        .await;
    change_registration(&stage, &irc, &users(false)).await;
    alice.sends_number("@irc_bob:test", "GHOST", 2).await;
    stage.quiet().await;
    alice.get(EXPLAIN).await.ok();
    stage
        .step("the first is acknowledged as it was decided, and leaves the inbox")
        .await;
    irc.answers(200).await;
    stage.quiet().await;
    assert_eq!(numbers(&inbox_of(&bob).await), [2]);

    stage.step("it is exclusive again: the copy that is on its way stays implicit, and the inbox keeps it").await;
    change_registration(&stage, &irc, &users(true)).await;
    alice.get(EXPLAIN).await.ok();
    irc.answers(200).await;
    stage.quiet().await;
    assert_eq!(numbers(&irc.receiver.items(0, TO_DEVICE)), [1, 2]);
    assert_eq!(numbers(&inbox_of(&bob).await), [2]);
    stage.transcript("what_was_decided_on_arrival_stays").await;
}

/// Clause: as.to-device.created-device
#[actix_web::test]
async fn each_rule_has_a_name_and_each_refusal_a_reason() {
    let stage = Stage::with(&[3202, 4203], |options| {
        options.settings.observe = Some(vec!["mirror".into()]);
    })
    .await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    stage.bridge_with("mirror", users(false)).await;
    stage.bridge_with("nosy", users(false)).await;
    let mut mute = users(true);
    mute["url"] = Value::Null;
    stage.bridge_with("mute", mute).await;
    let mut deaf = users(true);
    deaf["receive_ephemeral"] = false.into();
    deaf["org.matrix.msc3202"] = false.into();
    stage.bridge_with("deaf", deaf).await;
    stage.bridge("xmpp").await;
    irc.ghost_with_device("bob", "GHOST").await;
    let (services, inbox, copies) = explanation(&alice).await;
    assert_eq!(
        services,
        [
            "deaf: exclusive_namespacenot_asked_for",
            "irc: exclusive_namespace",
            "mirror: granted",
            "mute: exclusive_namespaceno_url",
            "nosy: not_granted",
            "xmpp: not_interested",
        ]
    );
    assert_eq!((inbox, copies.len()), (0, 0));

    let (bare, gone) = ("/_understudy/explain", "&device=GONE");
    alice.get(bare).await.is_refused(400, "M_MISSING_PARAM");
    alice
        .get(&format!("{bare}?user=@irc_bob:test"))
        .await
        .is_refused(400, "M_MISSING_PARAM");
    alice
        .get(&format!("{bare}?user=bob{gone}"))
        .await
        .is_refused(400, "M_INVALID_PARAM");
    alice
        .get(&format!("{bare}?user=@irc_bob:test{gone}"))
        .await
        .is_refused(404, "M_NOT_FOUND");
    alice
        .get(&format!("{bare}?user=@nobody:test{gone}"))
        .await
        .is_refused(404, "M_NOT_FOUND");
}

#[actix_web::test]
async fn an_explanation_is_bounded() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    irc.receiver.at_once(Some(500));
    for n in 0..60 {
        alice
            .aside()
            .sends_number("@irc_bob:test", "GHOST", n)
            .await;
    }
    stage.quiet().await;
    let said = alice.get(EXPLAIN).await.ok();
    for what in ["inbox", "copies"] {
        assert_eq!(said[what]["count"], 60);
        assert_eq!(said[what]["oldest"].as_array().map(Vec::len), Some(50));
    }
}
