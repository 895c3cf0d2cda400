//! Made-up proposals, each one file, and what they do: a proposal needs nothing outside its folder.

mod around;
mod decide;
mod dehydrated;
mod msc9901;
mod msc9902;
mod msc9903;
mod msc9904;
mod msc9905;
mod msc9906;
mod msc9907;
mod msc9908;
mod msc9909;
mod msc9910;
mod msc9911;

use std::time::Duration;

use actors::wire::Naming;
use serde_json::json;
use tests::person::{Answer, segment};
use tests::{Bridge, Person, Stage, TO_DEVICE};
use understudy::mscs::{self, Msc};

/// A stage with the proposals that are on by default and these.
async fn stage(further: &[&'static Msc]) -> Stage {
    Stage::with(&[], |options| {
        let mut enabled = mscs::enabled(&mscs::by_default()).expect("known proposals");
        enabled.extend(further);
        options.enable(enabled, Naming::Unstable);
    })
    .await
}

fn marker_path(room: &str) -> String {
    let room = segment(room);
    format!("/_matrix/client/unstable/org.example.msc9901/rooms/{room}/marker")
}

const MARKERS: &str = "org.example.msc9901.markers";
const MARKER: &str = "org.example.msc9901.marker";

#[actix_web::test]
async fn a_marker_reaches_the_other_device_and_the_appservices_that_opt_in() {
    let stage = stage(&[&msc9901::MSC]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let phone = stage.log_in("alice", "PHONE").await;
    let users = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
    let irc = json!({"namespaces": users, MARKERS: true});
    let irc = stage.bridge_with("irc", irc).await;
    let xmpp = stage.bridge("xmpp").await;
    let room = alice.gathers(&[&irc.bot, &xmpp.bot]).await;
    stage.quiet().await;
    let since = phone.get("/sync").await.ok()["next_batch"].clone();
    let since = since.as_str().expect("a token").to_owned();

    let path = marker_path(&room);
    let marker = json!({"event_id": "$e", "label": "unread from here"});
    irc.receiver.at_once(Some(503));
    alice.put(&path, &marker).await.ok();
    assert_eq!(alice.get(&path).await.ok(), marker);
    let answer = phone
        .get(&format!("/sync?since={since}&timeout=0"))
        .await
        .ok();
    assert_eq!(answer["rooms"]["join"][&room][MARKER], marker);
    let next = answer["next_batch"].as_str().expect("a token");
    let later = phone
        .get(&format!("/sync?since={next}&timeout=0"))
        .await
        .ok();
    assert!(later["rooms"].is_null(), "it is sent once: {later}");
    stage.quiet().await;
    irc.receiver.at_once(Some(200));
    stage.quiet().await;
    stage.advance(Duration::from_secs(60)).await;
    stage.quiet().await;
    let item = json!({"user_id": alice.user_id, "room_id": room, "marker": marker});
    assert_eq!(irc.receiver.items(0, MARKERS), [item]);
    assert!(xmpp.receiver.items(0, MARKERS).is_empty());

    let stranger = stage.person("bob", "LAPTOP").await;
    stranger
        .put(&path, &marker)
        .await
        .is_refused(403, "M_FORBIDDEN");
    alice
        .put(&path, &json!({"label": 1}))
        .await
        .is_refused(400, "M_BAD_JSON");
    let long = json!({"event_id": "$e", "label": "x".repeat(65)});
    alice.put(&path, &long).await.is_refused(413, "M_TOO_LARGE");
    let versions = alice.get("/_matrix/client/versions").await.ok();
    assert_eq!(versions["unstable_features"]["org.example.msc9901"], true);
}

#[actix_web::test]
async fn a_marker_wakes_a_request_that_waits() {
    let stage = stage(&[&msc9901::MSC]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let phone = stage.log_in("alice", "PHONE").await;
    let room = alice.gathers(&[]).await;
    let since = phone.get("/sync").await.ok()["next_batch"].clone();
    let path = format!(
        "/sync?since={}&timeout=30000",
        since.as_str().expect("a token")
    );
    let marker = json!({"event_id": "$e", "label": ""});
    let set = async {
        stage.quiet().await;
        alice.put(&marker_path(&room), &marker).await.ok();
    };
    let (answer, ()) = futures_util::future::join(phone.get(&path), set).await;
    assert_eq!(answer.ok()["rooms"]["join"][&room][MARKER], marker);
}

#[actix_web::test]
async fn what_is_owed_of_a_proposal_that_is_off_waits() {
    let mut stage = stage(&[&msc9901::MSC]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let users = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
    let irc = json!({"namespaces": users, MARKERS: true});
    let irc = stage.bridge_with("irc", irc).await;
    let room = alice.gathers(&[&irc.bot]).await;
    stage.quiet().await;
    irc.receiver.at_once(Some(503));
    alice.says(&room, "first").await;
    let path = marker_path(&room);
    alice
        .put(&path, &json!({"event_id": "$e", "label": ""}))
        .await
        .ok();
    stage
        .restart_with(|options| {
            let enabled = mscs::enabled(&mscs::by_default()).expect("known proposals");
            options.enable(enabled, Naming::Unstable);
        })
        .await;
    irc.receiver.at_once(Some(200));
    stage.advance(Duration::from_secs(60)).await;
    stage.quiet().await;
    assert!(!irc.receiver.items(0, "events").is_empty());
    assert!(irc.receiver.items(0, MARKERS).is_empty());
    stage
        .restart_with(|options| {
            let mut enabled = mscs::enabled(&mscs::by_default()).expect("known proposals");
            enabled.push(&msc9901::MSC);
            options.enable(enabled, Naming::Unstable);
        })
        .await;
    stage.quiet().await;
    assert_eq!(irc.receiver.items(0, MARKERS).len(), 1);
}

#[actix_web::test]
async fn a_receipt_is_sent_once_the_device_or_the_appservice_has_acknowledged() {
    let stage = stage(&[&msc9902::MSC]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("carol", "GHOST").await;
    stage.quiet().await;
    let send = async |txn: &str, receipt: bool| {
        let body = json!({"org.example.msc9902.receipt": receipt, "messages": {
            "@bob:test": {"PHONE": {"n": 1}}, "@irc_carol:test": {"GHOST": {"n": 1}},
        }});
        alice
            .put(&format!("/sendToDevice/m.example/{txn}"), &body)
            .await
            .ok();
    };
    let delivered = async |since: &str| -> (Vec<String>, String) {
        let answer = alice
            .get(&format!("/sync?since={since}&timeout=0"))
            .await
            .ok();
        let events = answer["to_device"]["events"].as_array().cloned();
        let users = events.unwrap_or_default().into_iter().map(|event| {
            assert_eq!(event["type"], "org.example.msc9902.delivered");
            event["content"]["user_id"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        });
        let next = answer["next_batch"].as_str().expect("a token");
        (users.collect(), next.to_owned())
    };
    let (_, since) = delivered("s0").await;
    send("without", false).await;
    send("with", true).await;
    stage.quiet().await;
    assert_eq!(irc.receiver.items(0, TO_DEVICE).len(), 2);
    stage.advance(Duration::from_secs(1)).await;
    stage.quiet().await;
    let (users, since) = delivered(&since).await;
    assert_eq!(users, ["@irc_carol:test"]);
    let next = bob.get("/sync").await.ok()["next_batch"].clone();
    let (users, since) = delivered(&since).await;
    assert!(users.is_empty(), "bob has not acknowledged: {users:?}");
    let next = next.as_str().expect("a token");
    bob.get(&format!("/sync?since={next}&timeout=0")).await.ok();
    let (users, since) = delivered(&since).await;
    assert_eq!(users, ["@bob:test"]);
    let (users, _) = delivered(&since).await;
    assert!(users.is_empty(), "once");
    let path = "/profile/@nobody:test/displayname";
    alice.get(path).await.is_refused(404, "M_NOT_FOUND");
    alice.get("/profile/@bob:test/displayname").await.ok();
}

#[actix_web::test]
async fn a_proposal_reads_the_forms_of_its_names_that_the_operator_chose() {
    use actors::wire::Naming;
    for (naming, delays) in [
        (Naming::Unstable, [true, false]),
        (Naming::Stable, [false, true]),
        (Naming::Both, [true, true]),
    ] {
        let numbers = mscs::with_specified(&[4140]);
        let enabled = mscs::enabled(&numbers).expect("known proposals");
        let stage = Stage::with(&[], |options| options.enable(enabled, naming)).await;
        let alice = stage.person("alice", "LAPTOP").await;
        let room = alice.creates(json!({})).await;
        let delayed = async |name: &str| {
            let path = format!("/rooms/{}/send/m.example/{name}", segment(&room));
            let answer = alice.put(&format!("{path}?{name}=60000"), &json!({})).await;
            answer.ok().get("delay_id").is_some()
        };
        let got = [
            delayed("org.matrix.msc4140.delay").await,
            delayed("delay").await,
        ];
        assert_eq!(got, delays, "{naming:?}");
    }
}

/// Clause: delayed.sent, delayed.actions
#[actix_web::test]
async fn a_delayed_event_is_sent_when_its_time_has_come_also_after_a_restart() {
    let mut stage = Stage::with_mscs(&[4203, 3202, 4140]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let room = alice.gathers(&[&irc.bot]).await;
    stage.quiet().await;
    let rooms = format!("/rooms/{}", segment(&room));
    let events = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events";
    let delayed = async |alice: &Person, kind: &str, n: u64, delay: &str| {
        let path = format!("{rooms}/{kind}?org.matrix.msc4140.delay={delay}");
        alice.put(&path, &json!({"n": n})).await
    };
    let id = |answer: Answer| answer.ok()["delay_id"].as_str().expect("an id").to_owned();
    let first = id(delayed(&alice, "send/m.example/1", 1, "60000").await);
    id(delayed(&alice, "state/m.example/key", 2, "80000").await);
    let third = id(delayed(&alice, "send/m.example/3", 3, "60000").await);
    delayed(&alice, "send/m.example/4", 4, "x")
        .await
        .is_refused(400, "M_INVALID_PARAM");
    let long = delayed(&alice, "send/m.example/4", 4, "86400001").await;
    long.is_refused(400, "M_MAX_DELAY_EXCEEDED");
    let waiting = alice.get(events).await.ok();
    assert_eq!(waiting["delayed_events"].as_array().map(Vec::len), Some(3));
    let act = |id: &str, action: &str| {
        let (path, body) = (format!("{events}/{id}"), json!({"action": action}));
        let alice = alice.clone();
        async move { alice.post(&path, &body).await }
    };
    act(&third, "cancel").await.ok();
    act(&third, "cancel").await.is_refused(404, "M_NOT_FOUND");
    act(&first, "dance").await.is_refused(400, "M_BAD_JSON");
    let sent = |irc: &Bridge| -> Vec<serde_json::Value> {
        let all = irc.receiver.items(0, "events");
        let examples = all.into_iter().filter(|event| event["type"] == "m.example");
        examples
            .map(|event| event["content"]["n"].clone())
            .collect()
    };
    stage.advance(Duration::from_secs(30)).await;
    act(&first, "restart").await.ok();
    stage.advance(Duration::from_secs(40)).await;
    stage.quiet().await;
    assert!(sent(&irc).is_empty(), "{:?}", sent(&irc));
    stage.restart().await;
    stage.advance(Duration::from_secs(20)).await;
    stage.quiet().await;
    assert_eq!(
        sent(&irc),
        [2, 1],
        "the event of which the time was not restarted came first"
    );
    let alice = stage.again(&alice);
    assert_eq!(alice.get(events).await.ok(), json!({"delayed_events": []}));
    let state = alice
        .get(&format!("{rooms}/state/m.example/key"))
        .await
        .ok();
    assert_eq!(state, json!({"n": 2}));
}

#[actix_web::test]
async fn changes_are_reported_to_hooks_and_events_can_be_refused() {
    let stage = stage(&[&msc9903::MSC]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    let keys = json!({"signed_curve25519:1": {"key": "a2V5", "signatures": {}}});
    bob.post("/keys/upload", &json!({"one_time_keys": keys}))
        .await
        .ok();
    let room = alice.gathers(&[&irc.bot]).await;
    let event = alice.says(&room, "hello").await;
    stage.quiet().await;
    let claim = json!({"one_time_keys": {bob.user_id.clone(): {"GHOST": "signed_curve25519"}}});
    alice.post("/keys/claim", &claim).await.ok();
    stage.quiet().await;
    let ephemeral = irc.receiver.items(0, "ephemeral");
    let claimed = ephemeral
        .iter()
        .filter(|e| e["type"] == "org.example.msc9903.claimed");
    assert_eq!(claimed.count(), 1, "{ephemeral:?}");
    let path = format!("/rooms/{}", segment(&room));
    alice
        .post(
            &format!("{path}/receipt/m.read/{}", segment(&event)),
            &json!({}),
        )
        .await
        .ok();
    let profile = format!("/profile/{}/displayname", alice.user_id);
    alice
        .put(&profile, &json!({"displayname": "Alice"}))
        .await
        .ok();
    let data = format!("/user/{}/account_data/m.example", alice.user_id);
    alice.put(&data, &json!({})).await.ok();
    alice.sends_number(&bob.user_id, "GHOST", 1).await;
    alice
        .sets(&room, "m.room.join_rules", json!({"join_rule": "public"}))
        .await;
    let refused = alice
        .put(&format!("{path}/send/m.secret/1"), &json!({}))
        .await;
    refused.is_refused(403, "ORG.EXAMPLE.MSC9903.M_TOO_PUBLIC");
    for version in ["11", "12"] {
        let creation = json!({"org.example.msc9903.secret": true});
        let create = json!({"room_version": version, "creation_content": creation});
        let refused = alice.post("/createRoom", &create).await;
        refused.is_refused(403, "ORG.EXAMPLE.MSC9903.M_TOO_PUBLIC");
    }
    let capabilities = alice.get("/capabilities").await.ok();
    assert_eq!(
        capabilities["capabilities"]["org.example.msc9903"]["enabled"],
        true
    );
    stage.quiet().await;
    let stored = mscs::stored_in(stage.app(), &msc9903::MSC, String::new()).await;
    let stored = stored.expect("the counts");
    let kinds: Vec<&str> = stored.iter().map(|stored| stored.key.as_str()).collect();
    let expected = [
        "Account",
        "AccountData",
        "Claimed",
        "Delivered",
        "Device",
        "Event",
        "Membership",
        "OneTimeKeys",
        "Profile",
        "Receipt",
        "ToDevice",
        "ToDeviceReceived",
    ];
    assert_eq!(kinds, expected);
}
