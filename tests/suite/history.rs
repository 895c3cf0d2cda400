//! Which events and state of a room each user may see, on all endpoints that show them.

use serde_json::{Value, json};
use tests::person::segment;
use tests::{Person, Stage};

const INCLUDE_LEAVE: &str = "/sync?filter=%7B%22room%22:%7B%22include_leave%22:true%7D%7D";
const LAZY: &str = "%7B%22lazy_load_members%22:true%7D";

/// A public room with this history visibility.
async fn public(by: &Person, visibility: &str) -> String {
    let rule = json!({"history_visibility": visibility});
    let wishes = json!({"preset": "public_chat", "initial_state": [
        {"type": "m.room.history_visibility", "content": rule},
    ]});
    by.creates(wishes).await
}

async fn context(by: &Person, room: &str, event: &str, query: &str) -> Value {
    let path = format!(
        "/rooms/{}/context/{}?{query}",
        segment(room),
        segment(event)
    );
    let found = by.get(&path).await.ok();
    for list in ["events_before", "events_after", "state"] {
        assert!(found[list].is_array(), "{list}: {found}");
    }
    found
}

/// The id of a user's current membership event.
async fn own_event(by: &Person, room: &str, user: &str) -> String {
    let path = format!(
        "/rooms/{}/state/m.room.member/{user}?format=event",
        segment(room)
    );
    let event = by.get(&path).await.ok();
    event["event_id"].as_str().expect("an event id").to_owned()
}

fn list(events: &Value) -> &[Value] {
    events.as_array().map_or(&[], Vec::as_slice)
}

/// The type of each event, or the body of a message.
fn names(events: &Value) -> Vec<&str> {
    list(events)
        .iter()
        .map(|e| {
            e["content"]["body"]
                .as_str()
                .or(e["type"].as_str())
                .unwrap_or_default()
        })
        .collect()
}

/// Clause: cs.rooms.visibility
#[actix_web::test]
async fn a_user_that_never_joined_sees_its_own_leave_and_nothing_of_the_room() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let first = bob.get("/sync").await.ok();
    let since = first["next_batch"].as_str().expect("a token");
    for visibility in ["shared", "joined", "invited"] {
        let wishes = json!({"name": "secret", "topic": "secret", "initial_state": [
            {"type": "m.room.join_rules", "content": {"join_rule": "knock"}},
            {"type": "m.room.history_visibility", "content": {"history_visibility": visibility}},
        ]});
        let (knocked, declined, banned) = (
            alice.creates(wishes.clone()).await,
            alice.creates(wishes.clone()).await,
            alice.creates(wishes.clone()).await,
        );
        bob.post(&format!("/knock/{}", segment(&knocked)), &json!({}))
            .await
            .ok();
        let whom = json!({"user_id": "@bob:test"});
        alice.does(&declined, "invite", whom.clone()).await.ok();
        for room in [&knocked, &declined, &banned] {
            alice.says(room, "secret").await;
            alice
                .sets(room, "m.room.topic", json!({"topic": "secret 2"}))
                .await;
        }
        bob.leaves(&knocked).await;
        bob.leaves(&declined).await;
        alice.does(&banned, "ban", whom).await.ok();
        let all = bob.get(INCLUDE_LEAVE).await.ok();
        let new = bob.get(&format!("/sync?since={since}")).await.ok();
        for room in [&knocked, &declined, &banned] {
            for answer in [&all, &new] {
                let left = &answer["rooms"]["leave"][room.as_str()];
                assert_eq!(
                    names(&left["timeline"]["events"]),
                    ["m.room.member"],
                    "{left}"
                );
                assert_eq!(left["timeline"]["events"][0]["state_key"], "@bob:test");
                assert_eq!(left["state"]["events"], json!([]));
                assert!(!left.to_string().contains("secret"), "{left}");
            }
            let path = format!("/rooms/{}", segment(room));
            for ask in [
                "messages?dir=b",
                "messages?dir=f",
                "state",
                "state/m.room.topic",
                "members",
                "initialSync",
                "aliases",
            ] {
                bob.get(&format!("{path}/{ask}"))
                    .await
                    .is_refused(403, "M_FORBIDDEN");
            }
            if visibility == "invited" && room == &declined {
                // Bob may see the messages that were sent while he was invited.
                continue;
            }
            let event = own_event(&alice, room, "@bob:test").await;
            for query in ["limit=20".to_owned(), format!("limit=20&filter={LAZY}")] {
                let around = context(&bob, room, &event, &query).await;
                assert_eq!(names(&around["state"]), ["m.room.member"], "{around}");
                assert_eq!(around["state"][0]["state_key"], "@bob:test");
                assert!(list(&around["events_after"]).is_empty());
            }
        }
    }
}

/// Clause: cs.rooms.visibility
#[actix_web::test]
async fn an_invited_user_sees_no_state_from_before_its_invite() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let hall = public(&alice, "invited").await;
    alice
        .sets(&hall, "m.room.topic", json!({"topic": "secret"}))
        .await;
    alice.invites(&hall, "@bob:test").await;
    let said = alice.says(&hall, "said").await;
    alice
        .sets(&hall, "m.room.name", json!({"name": "open"}))
        .await;
    for query in ["limit=20".to_owned(), format!("limit=20&filter={LAZY}")] {
        let around = context(&bob, &hall, &said, &query).await;
        assert!(!around.to_string().contains("secret"), "{around}");
        let state = names(&around["state"]);
        assert!(state.contains(&"m.room.name"), "{around}");
        assert!(!state.contains(&"m.room.create"), "{around}");
    }
    // Once the user has joined, it may see the state since then.
    bob.joins(&hall).await;
    let here = bob.says(&hall, "here").await;
    let around = context(&bob, &hall, &here, "limit=0").await;
    assert!(around["state"].to_string().contains("secret"), "{around}");
}

#[actix_web::test]
async fn state_that_was_replaced_before_a_user_could_see_it_stays_hidden() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    for visibility in ["invited", "joined"] {
        let hall = public(&alice, visibility).await;
        let path = format!("/rooms/{}", segment(&hall));
        for (kind, content) in [
            ("m.room.topic", json!({"topic": "secret"})),
            ("m.room.name", json!({"name": "known"})),
        ] {
            alice.sets(&hall, kind, content).await;
        }
        // From here on bob may see what happens, but he is not in the room yet.
        if visibility == "invited" {
            alice.invites(&hall, "@bob:test").await;
        } else {
            let rule = json!({"history_visibility": "shared"});
            alice.sets(&hall, "m.room.history_visibility", rule).await;
        }
        alice
            .sets(&hall, "m.room.topic", json!({"topic": "open"}))
            .await;
        bob.joins(&hall).await;
        alice
            .sets(&hall, "m.room.name", json!({"name": "new"}))
            .await;
        for limit in [1, 2, 3, 10, 100] {
            let filter = json!({"room": {"timeline": {"limit": limit}}});
            let query = format!("/sync?filter={}", segment(&filter.to_string()));
            let all = bob.get(&query).await.ok();
            let section = &all["rooms"]["join"][hall.as_str()];
            assert!(!section.to_string().contains("secret"), "{section}");
            // The name was hidden too, but still in force when bob joined.
            let is_known = |e: &Value| e["content"]["name"] == "known";
            let state = list(&section["state"]["events"]);
            assert!(state.iter().any(is_known), "{limit}: {section}");
        }
        for ask in ["messages?dir=b&limit=100", "messages?dir=f&limit=100"] {
            let seen = bob.get(&format!("{path}/{ask}")).await.ok();
            assert!(!seen.to_string().contains("secret"), "{ask}: {seen}");
            let name = list(&seen["chunk"])
                .iter()
                .find(|e| e["content"]["name"] == "new");
            let replaced = &name.expect("the new name")["unsigned"]["prev_content"];
            assert_eq!(replaced, &json!({"name": "known"}), "{ask}");
        }
    }
}

#[actix_web::test]
async fn the_context_of_a_leave_shows_the_state_at_the_leave() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let carol = stage.person("carol", "TABLET").await;
    let hall = public(&alice, "shared").await;
    alice
        .sets(&hall, "m.room.topic", json!({"topic": "then"}))
        .await;
    bob.joins(&hall).await;
    carol.joins(&hall).await;
    let said = alice.says(&hall, "said").await;
    bob.leaves(&hall).await;
    let left = own_event(&alice, &hall, "@bob:test").await;
    alice
        .sets(&hall, "m.room.topic", json!({"topic": "secret"}))
        .await;
    let path = format!("/rooms/{}/state/m.room.member/@alice:test", segment(&hall));
    let renamed = json!({"membership": "join", "displayname": "secret"});
    alice.put(&path, &renamed).await.ok();
    alice.says(&hall, "secret").await;

    for event in [&said, &left] {
        for limit in [0, 1, 2, 100] {
            for lazy in [false, true] {
                let filter = if lazy {
                    format!("&filter={LAZY}")
                } else {
                    String::new()
                };
                let around = context(&bob, &hall, event, &format!("limit={limit}{filter}")).await;
                assert!(!around.to_string().contains("secret"), "{around}");
                let state = list(&around["state"]);
                let topic = state.iter().find(|e| e["type"] == "m.room.topic");
                assert_eq!(topic.expect("the topic")["content"]["topic"], "then");
                // Lazy loading leaves out only the members that sent none of the events.
                let others = |e: &&Value| e["type"] != "m.room.member";
                assert!(state.iter().filter(others).count() > 5);
                let has_carol = state.iter().any(|e| e["state_key"] == "@carol:test");
                let carol_spoke = lazy && limit < 100 && !has_carol;
                assert!(carol_spoke || has_carol, "lazy {lazy}: {around}");
                let own = state.iter().find(|e| e["state_key"] == "@bob:test");
                let last = if event == &left || limit > 0 {
                    "leave"
                } else {
                    "join"
                };
                let membership =
                    own.map_or("", |e| e["content"]["membership"].as_str().unwrap_or(""));
                assert!(
                    membership == last || (lazy && own.is_none()),
                    "{limit}: {membership}"
                );
                let count =
                    list(&around["events_before"]).len() + list(&around["events_after"]).len();
                assert!(count <= limit, "{count} of {limit}");
            }
        }
    }
    // The other endpoints hide it too.
    let room = format!("/rooms/{}", segment(&hall));
    for ask in [
        "messages?dir=b&limit=100".to_owned(),
        format!("messages?dir=f&limit=100&filter={LAZY}"),
        format!("messages?dir=b&filter={LAZY}"),
        "state".to_owned(),
        "members".to_owned(),
        "members?at=s99999".to_owned(),
        "initialSync".to_owned(),
    ] {
        let seen = bob.get(&format!("{room}/{ask}")).await.ok();
        assert!(!seen.to_string().contains("secret"), "{ask}: {seen}");
        assert!(seen.to_string().contains("@bob:test"), "{ask}: {seen}");
    }
    let all = bob.get(INCLUDE_LEAVE).await.ok();
    let section = &all["rooms"]["leave"][hall.as_str()];
    assert!(!all.to_string().contains("secret"), "{all}");
    assert_eq!(list(&section["timeline"]["events"]).len(), 10);
    let state = list(&section["state"]["events"]);
    assert!(state.iter().any(|e| e["type"] == "m.room.create"), "{all}");
}

#[actix_web::test]
async fn past_members_are_shown_as_far_as_history_is_visible() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let carol = stage.person("carol", "TABLET").await;
    for (visibility, sees_carol) in [("shared", true), ("joined", false)] {
        let hall = public(&alice, visibility).await;
        carol.joins(&hall).await;
        let then = alice.get("/sync").await.ok();
        let then = then["next_batch"].as_str().expect("a token").to_owned();
        carol.leaves(&hall).await;
        bob.joins(&hall).await;
        let path = format!("/rooms/{}/members?membership=join&at=", segment(&hall));
        let members = alice.get(&format!("{path}{then}")).await.ok();
        assert!(members.to_string().contains("@carol:test"));
        let members = bob.get(&format!("{path}{then}")).await.ok();
        assert_eq!(
            members.to_string().contains("@carol:test"),
            sees_carol,
            "{visibility}"
        );
        // An empty `at` counts as absent.
        let members = bob.get(&path).await.ok();
        assert_eq!(list(&members["chunk"]).len(), 2);
    }
    // At a time when bob was invited: the members that were still there when he joined.
    let hall = public(&alice, "invited").await;
    carol.joins(&hall).await;
    alice.invites(&hall, "@bob:test").await;
    let then = alice.get("/sync").await.ok();
    let then = then["next_batch"].as_str().expect("a token").to_owned();
    carol.leaves(&hall).await;
    bob.joins(&hall).await;
    let path = format!("/rooms/{}/members?membership=join&at=", segment(&hall));
    for (person, expected) in [(&alice, 2), (&bob, 1)] {
        let members = person.get(&format!("{path}{then}")).await.ok();
        assert!(members.to_string().contains("@alice:test"), "{members}");
        assert_eq!(list(&members["chunk"]).len(), expected, "{members}");
    }
}

#[actix_web::test]
async fn replaced_content_and_redactions_can_be_hidden_from_a_user() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let hall = public(&alice, "joined").await;
    alice
        .sets(&hall, "m.room.topic", json!({"topic": "secret"}))
        .await;
    alice
        .sets(&hall, "m.room.topic", json!({"topic": "known"}))
        .await;
    bob.joins(&hall).await;
    let event = alice
        .sets(&hall, "m.room.topic", json!({"topic": "new"}))
        .await;
    let said = alice.says(&hall, "said").await;
    let path = format!("/rooms/{}/event/{}", segment(&hall), segment(&event));
    let shown = bob.get(&path).await.ok();
    assert_eq!(shown["unsigned"]["prev_content"]["topic"], "known");
    let state = format!("/rooms/{}/state", segment(&hall));
    assert!(!bob.get(&state).await.ok().to_string().contains("secret"));
    let first = bob.get("/sync").await.ok();
    assert!(!first.to_string().contains("secret"), "{first}");

    bob.leaves(&hall).await;
    let redact = format!("/rooms/{}/redact/{}/1", segment(&hall), segment(&said));
    alice.put(&redact, &json!({"reason": "secret"})).await.ok();
    let path = format!("/rooms/{}/event/{}", segment(&hall), segment(&said));
    let shown = bob.get(&path).await.ok();
    assert_eq!(shown["content"], json!({}));
    assert!(!shown.to_string().contains("secret"), "{shown}");
    let shown = alice.get(&path).await.ok();
    assert_eq!(
        shown["unsigned"]["redacted_because"]["content"]["reason"],
        "secret"
    );
}

#[actix_web::test]
async fn a_user_with_a_thousand_renames_still_has_left() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let hall = public(&alice, "joined").await;
    bob.joins(&hall).await;
    let first = alice.says(&hall, "first").await;
    // More membership events of the user than are read at a time.
    let path = format!("/rooms/{}/state/m.room.member/@bob:test", segment(&hall));
    for hundred in 0..11 {
        let renames = (0..100).map(|n| {
            let (bob, path) = (bob.aside(), path.clone());
            let name = format!("{hundred} {n}");
            let renamed = json!({"membership": "join", "displayname": name});
            async move { bob.put(&path, &renamed).await.ok() }
        });
        futures_util::future::join_all(renames).await;
    }
    bob.leaves(&hall).await;
    let secret = alice.says(&hall, "secret").await;
    let path = format!("/rooms/{}/event/", segment(&hall));
    bob.get(&format!("{path}{}", segment(&first))).await.ok();
    bob.get(&format!("{path}{}", segment(&secret)))
        .await
        .is_refused(404, "M_NOT_FOUND");
    let around = context(&bob, &hall, &first, "limit=100").await;
    assert!(!around.to_string().contains("secret"));
}
