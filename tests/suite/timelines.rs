//! A room's events and state in `/sync`, and the ends of pages of its history.

use serde_json::{Value, json};
use tests::person::segment;
use tests::{Person, Stage};

async fn sync(by: &Person, since: Option<&str>, filter: &Value, query: &str) -> Value {
    let since = since.map_or_else(String::new, |since| format!("&since={since}"));
    let filter = segment(&filter.to_string());
    by.get(&format!("/sync?filter={filter}{since}{query}"))
        .await
        .ok()
}

fn next(answer: &Value) -> &str {
    answer["next_batch"].as_str().expect("a token")
}

fn list(events: &Value) -> &[Value] {
    events.as_array().map_or(&[], Vec::as_slice)
}

/// The type of each event, or the text of a message or topic.
fn names(events: &Value) -> Vec<String> {
    let name = |e: &Value| {
        let content = &e["content"];
        let text = content["body"].as_str().or(content["topic"].as_str());
        text.or(e["type"].as_str()).unwrap_or_default().to_owned()
    };
    list(events).iter().map(name).collect()
}

/// Apply a sync to the state that a client holds, in the order that the specification gives.
fn applied(held: &mut std::collections::BTreeMap<(String, String), String>, update: &Value) {
    for part in ["state", "timeline"] {
        for event in list(&update[part]["events"]) {
            if let Some(key) = event["state_key"].as_str() {
                let kind = event["type"].as_str().expect("a type").to_owned();
                let id = event["event_id"].as_str().expect("an id").to_owned();
                held.insert((kind, key.to_owned()), id);
            }
        }
    }
}

#[actix_web::test]
async fn encryption_switched_on_between_two_messages_is_sent_whatever_the_filter() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    // The timeline filter, and whether it lets the encryption event pass.
    let filters = [
        (
            json!({"types": ["m.room.message", "m.room.encrypted"]}),
            false,
        ),
        (json!({"not_types": ["m.room.encryption"]}), false),
        (json!({"senders": ["@bob:test"]}), false),
        (json!({"not_senders": ["@alice:test"]}), false),
        (json!({"contains_url": true}), false),
        (json!({"limit": 0}), false),
        (json!({"limit": 1}), false),
        (json!({"rooms": []}), false),
        (json!({"contains_url": false}), true),
        (json!({"lazy_load_members": true}), true),
        (json!({}), true),
    ];
    for (timeline, is_shown) in filters {
        let hall = alice.creates(json!({"preset": "public_chat"})).await;
        bob.joins(&hall).await;
        let filter = json!({"room": {"timeline": timeline, "state": {"lazy_load_members": true}}});
        let first = sync(&bob, None, &filter, "").await;
        alice.says(&hall, "before").await;
        let algorithm = json!({"algorithm": "m.megolm.v1.aes-sha2"});
        alice.sets(&hall, "m.room.encryption", algorithm).await;
        alice.says(&hall, "after").await;
        let update = sync(&bob, Some(next(&first)), &filter, "").await;
        let update = &update["rooms"]["join"][hall.as_str()];
        let is_in = |part: &str| {
            let events = names(&update[part]["events"]);
            events.contains(&"m.room.encryption".to_owned())
        };
        assert_eq!(
            (is_in("timeline"), is_in("state")),
            (is_shown, !is_shown),
            "{timeline}: {update}"
        );
        for name in ["use_state_after", "org.matrix.msc4222.use_state_after"] {
            let update = sync(&bob, Some(next(&first)), &filter, &format!("&{name}=true")).await;
            let update = &update["rooms"]["join"][hall.as_str()];
            let key = name.replace("use_state_after", "state_after");
            let after = names(&update[key.as_str()]["events"]);
            assert!(
                after.contains(&"m.room.encryption".to_owned()),
                "{timeline}: {update}"
            );
        }
        // An initial sync contains it too.
        let all = sync(&bob, None, &filter, "").await;
        let all = &all["rooms"]["join"][hall.as_str()];
        let count = |part: &str| {
            let events = names(&all[part]["events"]);
            events.iter().filter(|e| *e == "m.room.encryption").count()
        };
        assert_eq!(count("timeline") + count("state"), 1, "{timeline}: {all}");
    }
}

#[actix_web::test]
async fn a_state_event_that_is_left_out_is_not_undone_by_an_older_one() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let hall = alice.creates(json!({"preset": "public_chat"})).await;
    bob.joins(&hall).await;
    let levels = json!({"users": {"@alice:test": 100, "@bob:test": 50}});
    alice.sets(&hall, "m.room.power_levels", levels).await;
    let filter = json!({"room": {"timeline": {"not_senders": ["@bob:test"]}}});
    let mut held = std::collections::BTreeMap::new();
    let first = sync(&alice, None, &filter, "").await;
    applied(&mut held, &first["rooms"]["join"][hall.as_str()]);
    alice
        .sets(&hall, "m.room.topic", json!({"topic": "one"}))
        .await;
    alice.says(&hall, "between").await;
    bob.sets(&hall, "m.room.topic", json!({"topic": "two"}))
        .await;
    alice.says(&hall, "after").await;
    let update = sync(&alice, Some(next(&first)), &filter, "").await;
    let update = &update["rooms"]["join"][hall.as_str()];
    applied(&mut held, update);
    let state = alice
        .get(&format!("/rooms/{}/state", segment(&hall)))
        .await
        .ok();
    for event in list(&state) {
        let key = ["type", "state_key"].map(|k| event[k].as_str().unwrap_or_default().to_owned());
        let id = held.get(&(key[0].clone(), key[1].clone()));
        assert_eq!(
            id.map(String::as_str),
            event["event_id"].as_str(),
            "{key:?}: {update}"
        );
    }
    assert_eq!(names(&update["timeline"]["events"]), ["between", "after"]);
    assert_eq!(
        update["timeline"]["limited"], true,
        "the older topic can be paged to"
    );
}

#[actix_web::test]
async fn state_that_changed_while_a_user_was_away_is_sent_when_it_rejoins() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let hall = alice.creates(json!({"preset": "public_chat"})).await;
    let rule = json!({"history_visibility": "joined"});
    alice.sets(&hall, "m.room.history_visibility", rule).await;
    bob.joins(&hall).await;
    let first = sync(&bob, None, &json!({}), "").await;
    bob.leaves(&hall).await;
    alice.says(&hall, "hidden").await;
    alice
        .sets(&hall, "m.room.topic", json!({"topic": "set meanwhile"}))
        .await;
    bob.joins(&hall).await;
    alice.says(&hall, "seen").await;
    let update = sync(&bob, Some(next(&first)), &json!({}), "").await;
    let update = &update["rooms"]["join"][hall.as_str()];
    assert_eq!(names(&update["state"]["events"]), ["set meanwhile"]);
    let shown = names(&update["timeline"]["events"]);
    assert_eq!(shown, ["m.room.member", "m.room.member", "seen"]);
}

#[actix_web::test]
async fn messages_between_a_join_and_a_leave_are_sent() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let hall = alice.creates(json!({"preset": "public_chat"})).await;
    let rule = json!({"history_visibility": "joined"});
    alice.sets(&hall, "m.room.history_visibility", rule).await;
    alice
        .sets(&hall, "m.room.topic", json!({"topic": "old"}))
        .await;
    let first = sync(&bob, None, &json!({}), "").await;
    alice.says(&hall, "before").await;
    bob.joins(&hall).await;
    alice.says(&hall, "between").await;
    let tag = json!({"tags": {"u.work": {}}});
    let data = format!(
        "/user/@bob:test/rooms/{}/account_data/m.tag",
        segment(&hall)
    );
    bob.put(&data, &tag).await.ok();
    bob.leaves(&hall).await;
    alice.says(&hall, "secret").await;
    alice
        .sets(&hall, "m.room.topic", json!({"topic": "secret"}))
        .await;
    for limit in [1, 3] {
        let filter = json!({"room": {"timeline": {"limit": limit}}});
        let update = sync(&bob, Some(next(&first)), &filter, "").await;
        let left = &update["rooms"]["leave"][hall.as_str()];
        let shown = names(&left["timeline"]["events"]);
        let all = ["m.room.member", "between", "m.room.member"];
        assert_eq!(shown, all[all.len() - limit..]);
        let data = json!([{"type": "m.tag", "content": tag}]);
        assert_eq!(left["account_data"]["events"], data);
        let state = names(&left["state"]["events"]);
        assert!(state.contains(&"m.room.create".to_owned()), "{left}");
        assert!(state.contains(&"old".to_owned()), "{left}");
        assert!(!update.to_string().contains("secret"), "{update}");
        // The same with `use_state_after`.
        let update = sync(&bob, Some(next(&first)), &filter, "&use_state_after=true").await;
        let left = &update["rooms"]["leave"][hall.as_str()];
        let own = list(&left["state_after"]["events"]).iter();
        let own: Vec<&Value> = own.filter(|e| e["state_key"] == "@bob:test").collect();
        assert_eq!(own[0]["content"]["membership"], "leave");
        assert!(!update.to_string().contains("secret"), "{update}");
    }
    // After another leave and a ban, only the ban is new.
    let second = sync(&bob, Some(next(&first)), &json!({}), "").await;
    alice
        .does(&hall, "ban", json!({"user_id": "@bob:test"}))
        .await
        .ok();
    let update = sync(&bob, Some(next(&second)), &json!({}), "").await;
    let left = &update["rooms"]["leave"][hall.as_str()];
    assert_eq!(list(&left["timeline"]["events"]).len(), 1);
    assert_eq!(
        left["timeline"]["events"][0]["content"]["membership"],
        "ban"
    );
    assert!(!update.to_string().contains("secret"), "{update}");
    // In an initial sync, the state is that at the leave.
    let filter = json!({"room": {"include_leave": true}});
    let all = sync(&bob, None, &filter, "").await;
    let left = &all["rooms"]["leave"][hall.as_str()];
    let shown = names(&left["timeline"]["events"]);
    let end = ["m.room.member", "between", "m.room.member", "m.room.member"];
    assert_eq!(shown[shown.len() - 4..], end);
    assert!(!shown.contains(&"before".to_owned()), "{shown:?}");
    assert!(names(&left["state"]["events"]).contains(&"old".to_owned()));
    assert!(!all.to_string().contains("secret"), "{all}");
}

#[actix_web::test]
async fn a_page_that_reaches_the_newest_event_can_be_continued() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let hall = alice.creates(json!({"preset": "public_chat"})).await;
    bob.joins(&hall).await;
    let first = sync(&alice, None, &json!({}), "").await;
    alice.says(&hall, "one").await;
    let path = format!("/rooms/{}/messages?dir=f&from=", segment(&hall));
    let page = alice.get(&format!("{path}{}", next(&first))).await.ok();
    assert_eq!(names(&page["chunk"]), ["one"]);
    let end = page["end"].as_str().expect("a token to continue from");
    let empty = alice.get(&format!("{path}{end}")).await.ok();
    assert_eq!((&empty["chunk"], empty.get("end")), (&json!([]), None));
    alice.says(&hall, "two").await;
    let page = alice.get(&format!("{path}{end}&limit=1")).await.ok();
    assert_eq!(names(&page["chunk"]), ["two"]);

    // For a user that has left, the last page has no `end`.
    bob.leaves(&hall).await;
    alice.says(&hall, "three").await;
    let page = bob.get(&format!("{path}{end}")).await.ok();
    assert_eq!(names(&page["chunk"]), ["two", "m.room.member"]);
    assert_eq!(page.get("end"), None);
    // The values that clients send as `from` if they have no token yet.
    let room = format!("/rooms/{}/messages", segment(&hall));
    let all = alice
        .get(&format!("{room}?from=&to=&dir=b&filter=&limit="))
        .await
        .ok();
    assert_eq!(names(&all["chunk"])[0], "three");
    let start = alice.get(&format!("{room}?dir=b&limit=1000")).await.ok();
    assert_eq!(
        start.get("end"),
        None,
        "a page that reaches the start of the room has no `end`"
    );
    alice.get("/sync?since=&filter=&timeout=0").await.ok();
}

#[actix_web::test]
async fn receipts_for_unknown_events_are_accepted_and_have_no_effect() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let hall = alice.creates(json!({"preset": "private_chat"})).await;
    let path = format!("/rooms/{}", segment(&hall));
    let first = sync(&alice, None, &json!({}), "").await;
    let odd = [
        "$abc:not a host!",
        "$unknown",
        "$",
        "$üñ/?#",
        "$143273582443PhrSn:example.org",
    ];
    for event in odd {
        let marks = json!({"m.fully_read": event, "m.read": event, "m.read.private": event});
        alice
            .post(&format!("{path}/read_markers"), &marks)
            .await
            .ok();
        for kind in ["m.read", "m.read.private", "m.fully_read"] {
            let receipt = format!("{path}/receipt/{kind}/{}", segment(event));
            alice.post(&receipt, &json!({})).await.ok();
        }
    }
    let nothing = json!({"m.read": null});
    alice
        .post(&format!("{path}/read_markers"), &nothing)
        .await
        .ok();
    let update = sync(&alice, Some(next(&first)), &json!({}), "&timeout=0").await;
    assert!(update.get("rooms").is_none(), "{update}");

    let long = format!("${}", "x".repeat(255));
    for bad in [
        json!("abc"),
        json!(""),
        json!(long),
        json!(7),
        json!(["$a"]),
    ] {
        let answer = alice
            .post(&format!("{path}/read_markers"), &json!({"m.read": bad}))
            .await;
        assert_eq!(answer.status, 400, "{bad}");
    }
    for (body, errcode) in [
        ("[]", "M_BAD_JSON"),
        ("null", "M_BAD_JSON"),
        ("7", "M_BAD_JSON"),
        ("{", "M_NOT_JSON"),
    ] {
        for path in [
            format!("{path}/receipt/m.read/$a"),
            format!("{path}/read_markers"),
        ] {
            alice
                .raw("POST", &path, body.into())
                .await
                .is_refused(400, errcode);
        }
    }
    alice
        .raw("POST", &format!("{path}/receipt/m.read/$a"), Vec::new())
        .await
        .ok();
    for thread in [json!(""), json!(7)] {
        let receipt = format!("{path}/receipt/m.read/$a");
        alice
            .post(&receipt, &json!({"thread_id": thread}))
            .await
            .is_refused(400, "M_INVALID_PARAM");
    }
    let bob = stage.person("bob", "PHONE").await;
    bob.post(&format!("{path}/read_markers"), &json!({"m.read": "$a"}))
        .await
        .is_refused(403, "M_FORBIDDEN");
}

#[actix_web::test]
async fn initial_sync_of_a_room_is_for_its_members() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let hall = alice.creates(json!({"preset": "private_chat"})).await;
    alice.says(&hall, "one").await;
    let path = format!("/rooms/{}", segment(&hall));
    let tag = json!({"tags": {"u.work": {}}});
    let data = format!(
        "/user/@alice:test/rooms/{}/account_data/m.tag",
        segment(&hall)
    );
    alice.put(&data, &tag).await.ok();
    let seen = alice.get(&format!("{path}/initialSync")).await.ok();
    assert_eq!(
        (&seen["room_id"], &seen["membership"]),
        (&json!(hall), &json!("join"))
    );
    assert_eq!(
        names(&seen["messages"]["chunk"]).last().map(String::as_str),
        Some("one")
    );
    assert_eq!(seen["visibility"], "private");
    assert_eq!(
        seen["account_data"],
        json!([{"type": "m.tag", "content": tag}])
    );
    let create = list(&seen["state"])
        .iter()
        .any(|e| e["type"] == "m.room.create");
    assert!(create, "{seen}");
    let end = seen["messages"]["end"].as_str().expect("a token");
    alice.says(&hall, "two").await;
    let page = alice
        .get(&format!("{path}/messages?dir=f&from={end}"))
        .await
        .ok();
    assert!(names(&page["chunk"]).contains(&"two".to_owned()));
    bob.get(&format!("{path}/initialSync"))
        .await
        .is_refused(403, "M_FORBIDDEN");
    bob.get("/rooms/!nowhere:test/initialSync")
        .await
        .is_refused(403, "M_FORBIDDEN");

    // A member without a name still has both keys, which older clients require.
    let joined = alice.get(&format!("{path}/joined_members")).await.ok();
    let nobody = json!({"display_name": null, "avatar_url": null});
    assert_eq!(joined, json!({"joined": {"@alice:test": nobody}}));
}
