//! Made-up proposals, each one file, and what they do: a proposal needs nothing outside its folder.

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

#[actix_web::test]
async fn code_around_an_endpoint_is_around_every_spelling_of_its_path() {
    let stage = Stage::with(&[], |options| {
        let numbers = mscs::with_specified(&[4140]);
        let mut enabled = mscs::enabled(&numbers).expect("known proposals");
        enabled.push(&msc9904::MSC);
        options.enable(enabled, Naming::Unstable);
    })
    .await;
    let alice = stage.person("alice", "LAPTOP").await;
    let room = alice.creates(json!({"topic": "now"})).await;
    for version in ["v3", "r0"] {
        for end in ["m.room.topic", "m.room.topic/"] {
            let path = format!(
                "/_matrix/client/{version}/rooms/{}/state/{end}",
                segment(&room)
            );
            let later = format!("{path}?org.matrix.msc4140.delay=60000");
            let answer = alice.put(&later, &json!({"topic": "later"})).await.ok();
            assert!(answer["delay_id"].is_string(), "{path}: {answer}");
            let shown = alice
                .get(&format!("{path}?org.example.msc9904.show=1"))
                .await
                .ok();
            assert_eq!(shown["topic"], "now");
            let read = format!("{room}|m.room.topic|");
            assert_eq!(shown["org.example.msc9904.read"], read);
        }
    }
}

#[actix_web::test]
async fn an_answer_that_is_not_changed_keeps_its_bytes() {
    let stage = stage(&[&msc9904::MSC]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let data = format!("/user/{}/account_data/m.example", alice.user_id);
    let text = r#"{"n":  123456789012345678901234567890, "m": 1e2}"#;
    let stored = alice.raw("PUT", &data, text.into()).await;
    stored.ok();
    assert_eq!(alice.text(&data).await, text);
    let shown = alice
        .get(&format!("{data}?org.example.msc9904.show=1"))
        .await;
    let read = format!("{}|m.example", alice.user_id);
    let expected =
        json!({"n": 1.234_567_890_123_456_8e29, "m": 100.0, "org.example.msc9904.read": read});
    assert_eq!(shown.ok(), expected);
}

#[actix_web::test]
async fn a_parameter_of_an_endpoint_reaches_the_event_and_what_its_write_finds_reaches_the_answer()
{
    let stage = stage(&[&msc9905::MSC]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let room = alice.gathers(&[&irc.bot]).await;
    stage.quiet().await;
    let since = alice.get("/sync").await.ok()["next_batch"].clone();
    let path = format!("/rooms/{}/send/m.example", segment(&room));
    let (lasts, until) = ("org.example.msc9905.lasts", "org.example.msc9905.until");
    let plain = alice.put(&format!("{path}/0"), &json!({})).await.ok();
    assert!(plain[until].is_null(), "{plain}");
    let url = format!("{path}/1?{lasts}=1000");
    let sent = alice.put(&url, &json!({})).await.ok();
    let due = sent[until].as_i64().expect("a time");
    let stored = mscs::stored_in(stage.app(), &msc9905::MSC, String::new()).await;
    let stored = stored.expect("what is stored");
    assert_eq!(stored[0].key, sent["event_id"]);
    assert_eq!(stored[0].due, Some(due));
    assert_eq!(stored[0].value::<String>().expect("a device"), "LAPTOP");
    let again = alice.put(&url, &json!({})).await.ok();
    assert_eq!(again["event_id"], sent["event_id"]);
    assert!(
        again[until].is_null(),
        "a repeated request writes nothing: {again}"
    );

    let own = "/_matrix/client/unstable/org.example.msc9905/rooms";
    let own = format!("{own}/{}/announce/1", segment(&room));
    let first = alice.put(&own, &json!({"n": 1})).await.ok();
    assert_eq!(alice.put(&own, &json!({"n": 1})).await.ok(), first);
    let since = since.as_str().expect("a token");
    let answer = alice
        .get(&format!("/sync?since={since}&timeout=0"))
        .await
        .ok();
    let events = answer["rooms"]["join"][&room]["timeline"]["events"].clone();
    let shown: Vec<_> = events
        .as_array()
        .expect("a timeline")
        .iter()
        .map(|event| json!([event[lasts], event["unsigned"]["transaction_id"]]))
        .collect();
    let expected = [
        json!([null, "0"]),
        json!([1000, "1"]),
        json!([3_600_000, "1"]),
    ];
    assert_eq!(shown, expected, "{events}");
    assert_eq!(events[2]["origin_server_ts"], 0);
    stage.quiet().await;
    let sent = irc.receiver.items(0, "events");
    assert_eq!(sent.last().expect("events")[lasts], 3_600_000);
    let id = events[1]["event_id"].as_str().expect("an id");
    let redact = format!("/rooms/{}/redact/{}/1", segment(&room), segment(id));
    alice.put(&redact, &json!({})).await.ok();
    let event = format!("/rooms/{}/event/{}", segment(&room), segment(id));
    let redacted = alice.get(&event).await.ok();
    assert!(redacted[lasts].is_null(), "{redacted}");

    // The same state is stored once; that with another key beside its content is another state.
    let state = format!("/rooms/{}/state/m.example/", segment(&room));
    let mut ids = Vec::new();
    for url in [
        format!("{state}?{lasts}=1000"),
        format!("{state}?{lasts}=1000"),
        state,
    ] {
        let set = alice.put(&url, &json!({"n": 1})).await.ok();
        ids.push(set["event_id"].clone());
    }
    assert_eq!(ids[0], ids[1]);
    assert_ne!(ids[1], ids[2]);
}

#[actix_web::test]
async fn a_delayed_event_is_sent_once_for_a_transaction_id_and_is_the_devices_own() {
    let stage = Stage::with_mscs(&[4140]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let room = alice.creates(json!({})).await;
    let path = format!("/rooms/{}/send/m.example/1", segment(&room));
    let later = format!("{path}?org.matrix.msc4140.delay=1000");
    let first = alice.put(&later, &json!({})).await.ok();
    assert_eq!(alice.put(&later, &json!({})).await.ok(), first);
    let list = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events";
    let listed = alice.get(list).await.ok()["delayed_events"].clone();
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert!(listed[0]["origin"].is_null(), "{listed}");
    // Newer clients name the action in the path.
    let one = format!("{list}/{}", first["delay_id"].as_str().expect("an id"));
    assert_eq!(alice.get(&one).await.ok(), listed[0]);
    let restart = format!("{one}/restart");
    alice.post(&restart, &json!({})).await.ok();
    let dance = alice.post(&format!("{one}/dance"), &json!({})).await;
    dance.is_refused(404, "M_NOT_FOUND");
    let bob = stage.person("bob", "PHONE").await;
    bob.get(&one).await.is_refused(404, "M_NOT_FOUND");
    let not_his = bob.post(&restart, &json!({})).await;
    not_his.is_refused(404, "M_NOT_FOUND");
    stage.advance(Duration::from_secs(2)).await;
    stage.quiet().await;
    let answer = alice.get("/sync").await.ok();
    let events = &answer["rooms"]["join"][&room]["timeline"]["events"];
    let events = events.as_array().expect("a timeline").iter();
    let sent: Vec<_> = events
        .filter(|event| event["type"] == "m.example")
        .collect();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["unsigned"]["transaction_id"], "1");
}

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
