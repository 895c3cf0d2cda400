//! Search in messages, threads, spaces, the room directory and the user directory; versions and capabilities.

use serde_json::{Value, json};
use tests::person::segment;
use tests::{Person, Stage};

/// Search. Returns the bodies that were found, the token of the next page, and the whole answer.
async fn finds(
    by: &Person,
    criteria: Value,
    from: Option<&str>,
) -> (Vec<String>, Option<String>, Value) {
    let from = from.map_or(String::new(), |from| format!("?next_batch={from}"));
    let body = json!({"search_categories": {"room_events": criteria}});
    let answer = by.post(&format!("/search{from}"), &body).await.ok();
    let found = answer["search_categories"]["room_events"].clone();
    let results = found["results"].as_array().expect("results");
    let bodies = results.iter().map(|r| {
        r["result"]["content"]["body"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    });
    (
        bodies.collect(),
        found["next_batch"].as_str().map(str::to_owned),
        found,
    )
}

#[actix_web::test]
async fn messages_in_the_users_own_rooms_can_be_searched() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let kitchen = alice
        .creates(json!({"preset": "public_chat", "name": "Tea kitchen"}))
        .await;
    let cellar = alice.creates(json!({})).await;
    alice.says(&kitchen, "Green tea").await;
    alice.says(&cellar, "tea, tea and more TEA").await;
    alice.says(&kitchen, "coffee").await;
    let gone = alice.says(&kitchen, "black tea").await;
    let redact = format!("/rooms/{}/redact/{}/4", segment(&kitchen), segment(&gone));
    alice.put(&redact, &json!({})).await.ok();
    alice.says(&kitchen, "white tea").await;

    let recent = json!({"search_term": "tea", "keys": ["content.body"], "order_by": "recent"});
    let (found, _, whole) = finds(&alice, recent.clone(), None).await;
    assert_eq!(found, ["white tea", "tea, tea and more TEA", "Green tea"]);
    assert_eq!(
        (&whole["count"], &whole["highlights"]),
        (&json!(3), &json!(["tea"]))
    );
    let (found, ..) = finds(
        &alice,
        json!({"search_term": "tea", "keys": ["content.body"]}),
        None,
    )
    .await;
    assert_eq!(found[0], "tea, tea and more TEA", "the best match");
    let (found, ..) = finds(&alice, json!({"search_term": "tea green"}), None).await;
    assert_eq!(found, ["Green tea"], "all words must match");
    let (_, _, by_name) = finds(&alice, json!({"search_term": "kitchen"}), None).await;
    assert_eq!(by_name["results"][0]["result"]["type"], "m.room.name");
    let (found, ..) = finds(&bob, recent.clone(), None).await;
    assert!(found.is_empty(), "bob is in none of these rooms");

    // Page by page, in one room, with context.
    let mut narrow = recent;
    narrow["filter"] = json!({"limit": 1, "rooms": [kitchen]});
    narrow["event_context"] = json!({"before_limit": 1, "after_limit": 1, "include_profile": true});
    narrow["groupings"] = json!({"group_by": [{"key": "room_id"}]});
    narrow["include_state"] = json!(true);
    let (found, next, whole) = finds(&alice, narrow.clone(), None).await;
    assert_eq!(found, ["white tea"]);
    let around = &whole["results"][0]["context"];
    assert_eq!(around["events_before"][0]["type"], "m.room.redaction");
    assert_eq!(around["events_after"], json!([]));
    assert!(around["profile_info"]["@alice:test"].is_object());
    assert_eq!(
        whole["groups"]["room_id"][&kitchen]["results"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
    assert!(whole["state"][&kitchen].is_array());
    let (found, next, _) = finds(&alice, narrow.clone(), next.as_deref()).await;
    assert_eq!(found, ["Green tea"]);
    let (found, next, _) = finds(&alice, narrow, next.as_deref()).await;
    assert_eq!((found.len(), next), (0, None));
    let odd =
        json!({"search_categories": {"room_events": {"search_term": "x", "order_by": "taste"}}});
    alice
        .post("/search", &odd)
        .await
        .is_refused(400, "M_INVALID_PARAM");
    assert_eq!(
        alice
            .post("/search", &json!({"search_categories": {}}))
            .await
            .ok(),
        json!({"search_categories": {}})
    );
}

#[actix_web::test]
async fn threads_are_listed_by_their_last_reply() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let room = alice.creates(json!({"preset": "public_chat"})).await;
    bob.post(&format!("/rooms/{}/join", segment(&room)), &json!({}))
        .await
        .ok();
    let reply = |root: &str, text: &str| json!({"msgtype": "m.text", "body": text, "m.relates_to": {"rel_type": "m.thread", "event_id": root}});
    let first = alice.says(&room, "first").await;
    let second = alice.says(&room, "second").await;
    alice.says(&room, "no thread").await;
    let gone = bob
        .sends(&room, "m.room.message", "1", reply(&first, "a"))
        .await;
    alice
        .sends(&room, "m.room.message", "4", reply(&second, "b"))
        .await;
    bob.sends(&room, "m.room.message", "2", reply(&first, "c"))
        .await;
    let path = format!("/_matrix/client/v1/rooms/{}/threads", segment(&room));
    let page = bob.get(&path).await.ok();
    let roots = |page: &Value| {
        page["chunk"]
            .as_array()
            .expect("threads")
            .iter()
            .map(|e| e["event_id"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(roots(&page), [json!(first), json!(second)]);
    let bundle = &page["chunk"][0]["unsigned"]["m.relations"]["m.thread"];
    assert_eq!(
        (&bundle["count"], &bundle["current_user_participated"]),
        (&json!(2), &json!(true))
    );
    assert_eq!(bundle["latest_event"]["content"]["body"], "c");
    let own = bob.get(&format!("{path}?include=participated")).await.ok();
    assert_eq!(roots(&own), [json!(first)]);
    let page = bob.get(&format!("{path}?limit=1")).await.ok();
    assert_eq!(roots(&page), [json!(first)]);
    let next = page["next_batch"].as_str().expect("there is more");
    let page = bob.get(&format!("{path}?limit=1&from={next}")).await.ok();
    assert_eq!(
        (roots(&page), &page["next_batch"]),
        (vec![json!(second)], &Value::Null)
    );
    // A redacted reply is not counted.
    let redact = format!("/rooms/{}/redact/{}/9", segment(&room), segment(&gone));
    bob.put(&redact, &json!({})).await.ok();
    let page = bob.get(&path).await.ok();
    assert_eq!(
        page["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["count"],
        1
    );
    let carol = stage.person("carol", "DESK").await;
    carol.get(&path).await.is_refused(403, "M_FORBIDDEN");
}

#[actix_web::test]
async fn the_event_nearest_to_a_time_is_found() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let room = alice.creates(json!({})).await;
    stage.advance(std::time::Duration::from_secs(100)).await;
    let early = alice.says(&room, "early").await;
    stage.advance(std::time::Duration::from_secs(100)).await;
    let late = alice.says(&room, "late").await;
    let at = |seconds: i64, dir: &str| {
        let ts = tests::stage::START + seconds * 1000;
        format!(
            "/_matrix/client/v1/rooms/{}/timestamp_to_event?ts={ts}&dir={dir}",
            segment(&room)
        )
    };
    let found = alice.get(&at(150, "f")).await.ok();
    assert_eq!(
        found,
        json!({"event_id": late, "origin_server_ts": tests::stage::START + 200_000})
    );
    assert_eq!(
        alice.get(&at(150, "b")).await.ok()["event_id"],
        json!(early)
    );
    alice
        .get(&at(201, "f"))
        .await
        .is_refused(404, "M_NOT_FOUND");
    let bob = stage.person("bob", "PHONE").await;
    bob.get(&at(150, "f")).await.is_refused(403, "M_FORBIDDEN");
}

#[actix_web::test]
async fn a_space_shows_the_rooms_that_the_user_may_see() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let space =
        json!({"preset": "public_chat", "name": "House", "creation_content": {"type": "m.space"}});
    let space = alice.creates(space).await;
    let open = alice
        .creates(json!({"preset": "public_chat", "name": "Garden", "topic": "Roses"}))
        .await;
    let closed = alice.creates(json!({"name": "Safe"})).await;
    let allow = json!({"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": space}]});
    let members = json!({"initial_state": [{"type": "m.room.join_rules", "state_key": "", "content": allow}]});
    let members = alice.creates(members).await;
    for (n, child) in [&open, &closed, &members].into_iter().enumerate() {
        let path = format!(
            "/rooms/{}/state/m.space.child/{}",
            segment(&space),
            segment(child)
        );
        let content = json!({"via": ["test"], "order": format!("{n}"), "suggested": n == 0});
        alice.put(&path, &content).await.ok();
    }
    let path = format!("/_matrix/client/v1/rooms/{}/hierarchy", segment(&space));
    let ids = |page: &Value| {
        page["rooms"]
            .as_array()
            .expect("rooms")
            .iter()
            .map(|r| r["room_id"].clone())
            .collect::<Vec<_>>()
    };
    let page = bob.get(&path).await.ok();
    assert_eq!(ids(&page), [json!(space), json!(open)]);
    assert_eq!(
        page["rooms"][0]["children_state"].as_array().map(Vec::len),
        Some(3)
    );
    assert_eq!(
        (&page["rooms"][1]["join_rule"], &page["rooms"][1]["topic"]),
        (&json!("public"), &json!("Roses"))
    );
    bob.post(&format!("/rooms/{}/join", segment(&space)), &json!({}))
        .await
        .ok();
    let page = bob.get(&path).await.ok();
    assert_eq!(ids(&page), [json!(space), json!(open), json!(members)]);
    assert_eq!(page["rooms"][2]["allowed_room_ids"], json!([space]));
    let page = bob.get(&format!("{path}?limit=2")).await.ok();
    let next = page["next_batch"].as_str().expect("there is more");
    let page = bob.get(&format!("{path}?limit=2&from={next}")).await.ok();
    assert_eq!(
        (ids(&page), &page["next_batch"]),
        (vec![json!(members)], &Value::Null)
    );
    let page = bob.get(&format!("{path}?suggested_only=true")).await.ok();
    assert_eq!(ids(&page), [json!(space), json!(open)]);
    let page = bob.get(&format!("{path}?max_depth=0")).await.ok();
    assert_eq!(ids(&page), [json!(space)]);
    bob.get(&format!("{path}?from=7_-_true"))
        .await
        .is_refused(400, "M_INVALID_PARAM");

    let summary = |room: &str| format!("/_matrix/client/v1/room_summary/{}", segment(room));
    let found = bob.get(&summary(&space)).await.ok();
    assert_eq!(
        (&found["name"], &found["membership"], &found["room_type"]),
        (&json!("House"), &json!("join"), &json!("m.space"))
    );
    bob.get(&summary(&closed))
        .await
        .is_refused(404, "M_NOT_FOUND");
    assert_eq!(
        bob.anonymous().get(&summary(&open)).await.ok()["num_joined_members"],
        1
    );
    let secret = format!("/_matrix/client/v1/rooms/{}/hierarchy", segment(&closed));
    bob.get(&secret).await.is_refused(403, "M_FORBIDDEN");
}

#[actix_web::test]
async fn the_room_directory_can_be_asked_for_types_of_rooms() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let plain = alice.creates(json!({"visibility": "public"})).await;
    let space = json!({"visibility": "public", "creation_content": {"type": "m.space"}});
    let space = alice.creates(space).await;
    for (types, expected) in [
        (json!(["m.space"]), vec![&space]),
        (json!([null]), vec![&plain]),
        (json!(["org.example.other"]), vec![]),
    ] {
        let body = json!({"filter": {"room_types": types}});
        let page = alice.post("/publicRooms", &body).await.ok();
        let found = page["chunk"].as_array().expect("rooms").iter();
        let found: Vec<&Value> = found.map(|r| &r["room_id"]).collect();
        assert_eq!(found, expected, "{types}");
    }
}

#[actix_web::test]
async fn users_that_share_a_room_or_are_in_a_public_one_are_found() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let carol = stage.person("carol", "DESK").await;
    let dave = stage.person("dave", "DESK").await;
    let name = format!("/profile/{}/displayname", segment("@bob:test"));
    bob.put(&name, &json!({"displayname": "Robert the Carpenter"}))
        .await
        .ok();
    let shared = alice.creates(json!({"invite": ["@bob:test"]})).await;
    bob.post(&format!("/rooms/{}/join", segment(&shared)), &json!({}))
        .await
        .ok();
    carol.creates(json!({"visibility": "public"})).await;
    dave.creates(json!({})).await;
    let find = |term: &'static str, limit: u64| {
        let alice = alice.clone();
        async move {
            let body = json!({"search_term": term, "limit": limit});
            let answer = alice.post("/user_directory/search", &body).await.ok();
            let users = answer["results"].as_array().expect("users").clone();
            let ids: Vec<String> = users
                .iter()
                .map(|u| u["user_id"].as_str().expect("an id").to_owned())
                .collect();
            (ids, answer["limited"] == json!(true))
        }
    };
    assert_eq!(
        find("CAR", 10).await,
        (
            vec!["@carol:test".to_owned(), "@bob:test".to_owned()],
            false
        )
    );
    assert_eq!(find("car", 1).await, (vec!["@carol:test".to_owned()], true));
    assert_eq!(
        find("@bob:test", 10).await,
        (vec!["@bob:test".to_owned()], false)
    );
    assert_eq!(
        find("dave", 10).await.0,
        [""; 0],
        "dave shares no room with alice"
    );
    assert_eq!(
        find("alice", 10).await.0,
        [""; 0],
        "the requesting user is left out"
    );
    assert_eq!(find("", 10).await.0, [""; 0]);
}

/// Clause: cs.api.versions
#[actix_web::test]
async fn versions_and_capabilities_list_what_the_server_implements() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let versions = alice.get("/_matrix/client/versions").await.ok();
    for flag in ["org.matrix.e2e_cross_signing", "org.matrix.msc3827.stable"] {
        assert_eq!(versions["unstable_features"][flag], true, "{flag}");
    }
    let can = alice.get("/capabilities").await.ok()["capabilities"].clone();
    for (what, expected) in [
        ("m.change_password", true),
        ("m.set_displayname", true),
        ("m.set_avatar_url", false),
        ("m.3pid_changes", false),
        ("m.get_login_token", false),
    ] {
        assert_eq!(can[what]["enabled"], expected, "{what}");
    }
    assert_eq!(can["m.profile_fields"]["disallowed"], json!(["avatar_url"]));
    for (method, path) in [
        ("GET", "/_matrix/media/v3/config"),
        ("GET", "/_matrix/client/v1/media/config"),
        ("POST", "/_matrix/media/v3/upload"),
        ("GET", "/_matrix/client/v1/media/download/test/x"),
        ("GET", "/notifications"),
    ] {
        let answer = alice.ask(method, path, None).await;
        answer.is_refused(404, "M_UNRECOGNIZED");
    }
}
