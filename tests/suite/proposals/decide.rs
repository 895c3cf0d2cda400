//! What hooks of proposals decide: which events a client sees, who is owed something, which devices get a message; and what they learn of
//! answers, of `/sync` and of keys.

use std::time::Duration;

use serde_json::json;
use tests::person::segment;
use tests::{Bridge, Person, TO_DEVICE};
use understudy::mscs;

use super::{msc9906, msc9907, msc9908, msc9909, msc9910, msc9911, stage};

#[actix_web::test]
async fn a_key_of_a_filter_that_only_a_proposal_knows_is_stored_and_applied() {
    let stage = stage(&[&msc9906::MSC]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let room = alice.creates(json!({})).await;
    let since = alice.get("/sync").await.ok()["next_batch"].clone();
    let since = since.as_str().expect("a token");
    for n in 0..15 {
        let animal = if n % 3 == 0 { "cat" } else { "dog" };
        alice.says(&room, &format!("{animal} {n}")).await;
    }
    let filters = format!("/user/{}/filter", segment(&alice.user_id));
    let shown = async |words: &str, limit: u64| {
        let timeline = json!({"org.example.msc9906.words": [words], "limit": limit});
        let filter = json!({"room": {"timeline": timeline}});
        let id = alice.post(&filters, &filter).await.ok()["filter_id"].clone();
        let id = id.as_str().expect("an id");
        assert_eq!(alice.get(&format!("{filters}/{id}")).await.ok(), filter);
        let asks = format!("filter={id}&org.example.msc9906.count=true");
        let path = format!("/sync?since={since}&timeout=0&{asks}");
        let answer = alice.get(&path).await.ok();
        assert_eq!(answer["org.example.msc9906.count"], 1);
        let timeline = &answer["rooms"]["join"][&room]["timeline"];
        let events = timeline["events"].as_array().cloned().unwrap_or_default();
        let bodies = events.iter().map(|event| event["content"]["body"].clone());
        (bodies.collect::<Vec<_>>(), timeline["limited"].clone())
    };
    let cats = ["cat 0", "cat 3", "cat 6", "cat 9", "cat 12"].map(|cat| json!(cat));
    assert_eq!(shown("cat", 5).await, (cats.to_vec(), json!(false)));
    assert_eq!(shown("cat", 4).await, (cats[1..].to_vec(), json!(true)));
    let answer = alice
        .post(&filters, &json!({"room": {"timeline": {"limit": "x"}}}))
        .await;
    answer.is_refused(400, "M_BAD_JSON");
}

/// What became of something for `irc`.
async fn fate(person: &Person, about: &str) -> serde_json::Value {
    let path = format!("/_understudy/fate?service=irc&{about}");
    person.aside().get(&path).await.ok()
}

#[actix_web::test]
async fn what_a_proposal_keeps_from_an_appservice_is_not_owed_to_it_and_stays_with_its_device() {
    let stage = stage(&[&msc9907::MSC]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let users = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
    let spared = json!(["m.noise", "m.quiet", "key_counts", "device_lists"]);
    let irc = json!({"namespaces": users, "org.example.msc9907.spared": spared});
    let irc = stage.bridge_with("irc", irc).await;
    let xmpp = stage.bridge("xmpp").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    let room = alice.gathers(&[&irc.bot, &xmpp.bot]).await;
    stage.quiet().await;
    let mut events = Vec::new();
    for kind in ["m.noise", "m.news"] {
        let path = format!("/rooms/{}/send/{kind}/1", segment(&room));
        let sent = alice.put(&path, &json!({})).await.ok();
        events.push(segment(sent["event_id"].as_str().expect("an id")));
        let message = json!({"org.matrix.msgid": kind});
        let body = json!({"messages": {&bob.user_id: {"GHOST": message}}});
        let path = format!("/sendToDevice/{}/1", kind.replace("noise", "quiet"));
        alice.put(&path, &body).await.ok();
    }
    let keys = json!({"signed_curve25519:1": {"key": "a2V5", "signatures": {}}});
    let uploaded = json!({"one_time_keys": keys});
    bob.post("/keys/upload", &uploaded).await.ok();
    stage.quiet().await;
    // A message brings no counts of its recipient either.
    let body = json!({"messages": {&bob.user_id: {"GHOST": {}}}});
    alice.put("/sendToDevice/m.news/2", &body).await.ok();
    stage.quiet().await;
    stage.advance(Duration::from_secs(1)).await;
    stage.quiet().await;
    let kinds = |bridge: &Bridge, key: &str| -> Vec<String> {
        let items = bridge.receiver.items(0, key).into_iter();
        let kinds = items.map(|item| item["type"].as_str().unwrap_or_default().to_owned());
        kinds.filter(|kind| !kind.starts_with("m.room.")).collect()
    };
    assert_eq!(kinds(&irc, "events"), ["m.news"]);
    assert_eq!(kinds(&xmpp, "events"), ["m.noise", "m.news"]);
    assert_eq!(kinds(&irc, TO_DEVICE), ["m.news", "m.news"]);
    let sections = |bridge: &Bridge| {
        let taken = bridge.receiver.taken(0);
        let has = |body: &serde_json::Value| body.to_string().contains("org.matrix.msc3202.");
        taken.iter().filter(|body| has(body)).count()
    };
    assert_eq!(sections(&irc), 0);
    assert!(sections(&xmpp) > 0, "the other is told of device lists");
    let synced = bob.get("/sync").await.ok();
    let waiting = synced["to_device"]["events"].as_array().expect("messages");
    assert_eq!(waiting.len(), 1, "{waiting:?}");
    assert_eq!(waiting[0]["type"], "m.quiet");
    for about in [
        format!("event={}", events[0]),
        "to_device=m.noise".to_owned(),
        "user=@irc_bob:test&device=GHOST".to_owned(),
    ] {
        let fate = fate(&alice, &about).await;
        assert_eq!(fate["verdict"], "not interesting", "{about}: {fate}");
        let says = fate["steps"][1]["says"].as_str().unwrap_or_default();
        assert_eq!(says, "The proposal MSC9907 keeps it from irc.", "{fate}");
    }
    let delivered = fate(&alice, &format!("event={}", events[1])).await;
    assert_eq!(delivered["verdict"], "delivered", "{delivered}");
}

#[actix_web::test]
async fn a_proposal_keeps_a_message_from_some_of_the_devices_that_it_is_addressed_to() {
    let stage = stage(&[&msc9908::MSC]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "KEYS").await;
    let created = bob.put("/devices/BARE", &json!({})).await;
    assert_eq!(created.status, 201, "{created:?}");
    let device = json!({"user_id": bob.user_id, "device_id": "KEYS", "algorithms": [], "keys": {}, "signatures": {}});
    let uploaded = json!({"device_keys": device});
    bob.post("/keys/upload", &uploaded).await.ok();
    stage.quiet().await;
    for (kind, txn) in [("m.room.encrypted", "1"), ("m.plain", "2")] {
        let content = json!({"org.matrix.msgid": kind});
        let body = json!({"messages": {&bob.user_id: {"*": content}}});
        let path = format!("/sendToDevice/{kind}/{txn}");
        alice.put(&path, &body).await.ok();
    }
    stage.quiet().await;
    stage.advance(Duration::from_secs(1)).await;
    stage.quiet().await;
    let messages = irc.receiver.items(0, TO_DEVICE);
    let got: Vec<_> = messages
        .iter()
        .map(|message| json!([message["type"], message["to_device_id"]]))
        .collect();
    let expected = [
        json!(["m.room.encrypted", "KEYS"]),
        json!(["m.plain", "BARE"]),
        json!(["m.plain", "KEYS"]),
    ];
    assert_eq!(got, expected);
    let bare = json!({"messages": {&bob.user_id: {"BARE": {"org.matrix.msgid": "lost"}}}});
    let path = "/sendToDevice/m.room.encrypted/3";
    alice.put(path, &bare).await.ok();
    let lost = fate(&alice, "to_device=lost").await;
    assert_eq!(lost["verdict"], "not interesting", "{lost}");
    let says = lost["steps"][1]["says"].as_str().unwrap_or_default();
    let reason = "The proposal MSC9908 kept it from the device: the device has no keys.";
    assert_eq!(says, reason, "{lost}");
    // What the request carries is there also where a proposal has no other hook.
    let forced = "/sendToDevice/m.room.encrypted/4?org.example.msc9908.anyway=true";
    alice.put(forced, &bare).await.ok();
    stage.quiet().await;
    let messages = irc.receiver.items(0, TO_DEVICE);
    let last = messages.last().expect("messages");
    assert_eq!(last["to_device_id"], "BARE", "{last}");
}

#[actix_web::test]
async fn the_answer_to_a_transaction_reaches_the_proposals_that_read_it() {
    let stage = stage(&[&msc9909::MSC]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let room = alice.gathers(&[&irc.bot]).await;
    stage.quiet().await;
    let rejects = async |ids: &[&str], more: &str| {
        let body = json!({"org.example.msc9909.rejected": ids, "more": more});
        irc.receiver.says(body);
        alice.says(&room, "hello").await;
        stage.quiet().await;
    };
    let long = "x".repeat(2_000);
    rejects(&["$one", "$two"], &long).await;
    rejects(&["$three"], &"x".repeat(4_096)).await;
    irc.receiver.at_once(Some(500));
    rejects(&["$four"], "").await;
    let stored = mscs::stored_in(stage.app(), &msc9909::MSC, String::new()).await;
    let stored = stored.expect("what is stored");
    let keys: Vec<&str> = stored.iter().map(|stored| stored.key.as_str()).collect();
    assert_eq!(
        keys,
        ["irc|$one", "irc|$two"],
        "neither a longer answer nor a refusal is read"
    );
}

#[actix_web::test]
async fn a_proposal_learns_when_all_devices_of_a_user_have_seen_something() {
    let stage = stage(&[&msc9910::MSC]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let phone = stage.log_in("alice", "PHONE").await;
    let data = format!("/user/{}/account_data/", segment(&alice.user_id));
    let data = format!("{data}org.example.msc9910.farewell");
    let token = async |device: &Person, since: &str| {
        let answer = device.get(&format!("/sync?timeout=0{since}")).await.ok();
        let next = answer["next_batch"].as_str().expect("a token").to_owned();
        format!("&since={next}")
    };
    let early = token(&phone, "").await;
    let farewell = json!({"n": 1});
    alice.put(&data, &farewell).await.ok();
    // A token that this database never gave, or one up to which no message was sent, says nothing.
    for unknown in ["s999999999", "s999999999_0"] {
        for device in [&alice, &phone] {
            token(device, &format!("&since={unknown}")).await;
        }
    }
    assert_eq!(alice.get(&data).await.ok(), farewell);
    let first = token(&alice, "").await;
    token(&alice, &first).await;
    let seen = token(&phone, &early).await;
    let kept = alice.get(&data).await.ok();
    assert_eq!(kept, farewell, "the phone has it, and has not said so");
    token(&phone, &seen).await;
    assert_eq!(alice.get(&data).await.ok(), json!({}));
}

#[actix_web::test]
async fn a_proposal_sees_which_keys_are_uploaded_and_claimed_and_who_decides_over_the_device() {
    let stage = stage(&[&msc9911::MSC]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let flag = "org.example.msc9911.in_use";
    let exclusive = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
    let irc = json!({"namespaces": exclusive, flag: true});
    let irc = stage.bridge_with("irc", irc).await;
    let shared = json!({"users": [{"exclusive": false, "regex": "@irc_.*"}]});
    let other = json!({"namespaces": shared, flag: true});
    let other = stage.bridge_with("other", other).await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    let key = json!({"key": "a2V5", "signatures": {}});
    let fallback = json!({"key": "a2V5", "fallback": true, "signatures": {}});
    let keys = json!({
        "one_time_keys": {"signed_curve25519:1": key},
        "fallback_keys": {"signed_curve25519:F": fallback},
    });
    // The same key again is not a new one.
    for _ in 0..2 {
        bob.post("/keys/upload", &keys).await.ok();
    }
    let claim = json!({"one_time_keys": {&bob.user_id: {"GHOST": "signed_curve25519"}}});
    for _ in 0..2 {
        alice.post("/keys/claim", &claim).await.ok();
    }
    stage.quiet().await;
    stage.advance(Duration::from_secs(1)).await;
    stage.quiet().await;
    let item = json!({"user_id": bob.user_id, "device_id": "GHOST", "key": "signed_curve25519:F",
        "uploaded": 1, "is_person": false});
    assert_eq!(irc.receiver.items(0, flag), [item]);
    assert!(
        other.receiver.items(0, flag).is_empty(),
        "it does not decide"
    );
}
