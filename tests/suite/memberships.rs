//! All ways to join and leave rooms pass the same checks, and none shows more of a room than the others.

use serde_json::{Value, json};
use tests::person::segment;
use tests::{Answer, Person, Stage};

/// A room with this version and these join rules.
async fn room(by: &Person, version: &str, join_rules: Value) -> String {
    let options = json!({"room_version": version, "initial_state": [
        {"type": "m.room.join_rules", "content": join_rules},
    ]});
    by.creates(options).await
}

/// Set a user's membership by its state event.
async fn set_member(by: &Person, room: &str, user: &str, content: &Value) -> Answer {
    let path = format!("/rooms/{}/state/m.room.member/{user}", segment(room));
    by.put(&path, content).await
}

/// Clause: cs.rooms.join-rules
#[actix_web::test]
async fn naming_a_member_does_not_open_a_restricted_room() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let mallory = stage.person("mallory", "EVIL").await;
    let forged = json!({"membership": "join", "join_authorised_via_users_server": "@alice:test"});
    for version in ["11", "12"] {
        for rule in ["restricted", "knock_restricted"] {
            let club = room(&alice, version, json!({"join_rule": "public"})).await;
            let rules = json!({"join_rule": rule, "allow": [{"type": "m.room_membership", "room_id": club}]});
            let hall = room(&alice, version, rules).await;
            set_member(&mallory, &hall, "@mallory:test", &forged)
                .await
                .is_refused(403, "M_FORBIDDEN");
            let service =
                json!({"membership": "join", "join_authorised_via_users_server": "@nobody:test"});
            set_member(&mallory, &hall, "@mallory:test", &service)
                .await
                .is_refused(403, "M_FORBIDDEN");
            let state = format!("/rooms/{}/state", segment(&hall));
            mallory.get(&state).await.is_refused(403, "M_FORBIDDEN");

            // Bob is a member of the club, so both ways let him join, and the server chooses the authorising user.
            bob.joins(&club).await;
            let lie =
                json!({"membership": "join", "join_authorised_via_users_server": "@mallory:test"});
            set_member(&bob, &hall, "@bob:test", &lie).await.ok();
            let admitted = bob.membership(&hall, "@bob:test").await;
            assert_eq!(admitted["join_authorised_via_users_server"], "@alice:test");
            bob.leaves(&hall).await;
            bob.joins(&hall).await;
            let admitted = bob.membership(&hall, "@bob:test").await;
            assert_eq!(admitted["join_authorised_via_users_server"], "@alice:test");

            // Sending the current member event back with a new name changes the name, and drops the authorising user.
            let renamed = json!({"membership": "join", "displayname": "B", "join_authorised_via_users_server": "@alice:test"});
            set_member(&bob, &hall, "@bob:test", &renamed).await.ok();
            let renamed = bob.membership(&hall, "@bob:test").await;
            assert_eq!(renamed, json!({"membership": "join", "displayname": "B"}));
        }
    }
}

/// Clause: cs.rooms.join-rules
#[actix_web::test]
async fn every_way_to_a_membership_passes_the_same_checks() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let club = room(&alice, "11", json!({"join_rule": "invite"})).await;
    let restricted = json!({"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": club}]});
    // Join rule, bob's membership before, whether he may join, whether he may knock.
    let cases = [
        (json!({"join_rule": "public"}), "", true, false),
        (json!({"join_rule": "public"}), "ban", false, false),
        (json!({"join_rule": "invite"}), "", false, false),
        (json!({"join_rule": "invite"}), "invite", true, false),
        (json!({"join_rule": "invite"}), "leave", false, false),
        (json!({"join_rule": "knock"}), "", false, true),
        (json!({"join_rule": "knock"}), "ban", false, false),
        (json!({"join_rule": "knock"}), "invite", true, false),
        (json!({"join_rule": "private"}), "", false, false),
        (restricted.clone(), "", false, false),
        (restricted, "invite", true, false),
    ];
    for (rule, before, may_join, may_knock) in cases {
        for (way, may) in [("join", may_join), ("knock", may_knock)] {
            let (one, two) = (
                room(&alice, "11", rule.clone()).await,
                room(&alice, "11", rule.clone()).await,
            );
            for room in [&one, &two] {
                match before {
                    "ban" => {
                        let whom = json!({"user_id": "@bob:test"});
                        alice.does(room, "ban", whom).await.ok();
                    }
                    "invite" => alice.invites(room, "@bob:test").await,
                    "leave" => {
                        alice.invites(room, "@bob:test").await;
                        bob.leaves(room).await;
                    }
                    _ => {}
                }
            }
            let asked = bob
                .post(&format!("/{way}/{}", segment(&one)), &json!({}))
                .await;
            let set = set_member(&bob, &two, "@bob:test", &json!({"membership": way})).await;
            let what = format!("{rule} {before:?} {way}");
            assert_eq!(
                (asked.status == 200, set.status == 200),
                (may, may),
                "{what}"
            );
        }
    }
}

#[actix_web::test]
async fn an_impossible_membership_is_refused_and_changes_nothing() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let hall = room(&alice, "11", json!({"join_rule": "public"})).await;
    bob.joins(&hall).await;
    let cases = [
        (
            "@bob:test",
            json!({"membership": "owner"}),
            400,
            "M_INVALID_PARAM",
        ),
        ("@bob:test", json!({}), 400, "M_BAD_JSON"),
        ("@bob:test", json!({"membership": 7}), 400, "M_BAD_JSON"),
        ("bob", json!({"membership": "join"}), 400, "M_INVALID_PARAM"),
        ("", json!({"membership": "join"}), 400, "M_INVALID_PARAM"),
        (
            "@bob:elsewhere",
            json!({"membership": "invite"}),
            403,
            "M_FORBIDDEN",
        ),
        (
            "@bob:test",
            json!({"membership": "join"}),
            403,
            "M_FORBIDDEN",
        ),
        (
            "@bob:test",
            json!({"membership": "invite"}),
            403,
            "M_FORBIDDEN",
        ),
        (
            "@carol:test",
            json!({"membership": "join"}),
            403,
            "M_FORBIDDEN",
        ),
        (
            "@carol:test",
            json!({"membership": "knock"}),
            403,
            "M_FORBIDDEN",
        ),
        // A user that is not in the room cannot be made to leave.
        (
            "@carol:test",
            json!({"membership": "leave"}),
            403,
            "M_FORBIDDEN",
        ),
        (
            "@carol:test",
            json!({"membership": "invite", "third_party_invite": {"display_name": "c",
            "signed": {"mxid": "@carol:test", "token": "t", "signatures": {}}}}),
            403,
            "M_FORBIDDEN",
        ),
    ];
    let members = format!("/rooms/{}/members", segment(&hall));
    let before = alice.get(&members).await.ok();
    for (user, content, status, errcode) in cases {
        let answer = set_member(&alice, &hall, user, &content).await;
        assert_eq!(
            (answer.status, answer.body["errcode"].as_str()),
            (status, Some(errcode)),
            "{user} {content}: {answer:?}"
        );
    }
    // `m.room.member` cannot be sent as a message event.
    let sent = format!("/rooms/{}/send/m.room.member/t1", segment(&hall));
    let carol = stage.person("carol", "TABLET").await;
    let join = json!({"membership": "join"});
    assert_eq!(alice.put(&sent, &join).await.status / 100, 4);
    assert_eq!(carol.put(&sent, &join).await.status / 100, 4);
    let count = |members: &Value| members["chunk"].as_array().map(Vec::len);
    let after = alice.get(&members).await.ok();
    assert_eq!(count(&before), count(&after));

    // Kick, ban and unban by state event follow the same rules as their endpoints.
    set_member(&bob, &hall, "@alice:test", &json!({"membership": "leave"}))
        .await
        .is_refused(403, "M_FORBIDDEN");
    for membership in ["leave", "ban", "leave"] {
        let content = json!({ "membership": membership });
        set_member(&alice, &hall, "@bob:test", &content).await.ok();
    }
    set_member(&alice, &hall, "@bob:test", &json!({"membership": "leave"}))
        .await
        .is_refused(403, "M_FORBIDDEN");
}

#[actix_web::test]
async fn a_new_room_has_no_members_that_did_not_join() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    stage.person("bob", "PHONE").await;
    let options = |membership: &str| {
        json!({"initial_state": [{"type": "m.room.member", "state_key": "@bob:test",
            "content": {"membership": membership, "join_authorised_via_users_server": "@alice:test"}}]})
    };
    for membership in ["join", "knock", "leave", "x"] {
        let answer = alice.post("/createRoom", &options(membership)).await;
        assert_eq!(answer.status, 400, "{membership}: {answer:?}");
    }
    let made = alice.post("/createRoom", &options("invite")).await.ok();
    let room = made["room_id"].as_str().expect("a room id");
    let invited = alice.membership(room, "@bob:test").await;
    assert_eq!(invited, json!({"membership": "invite"}));
    // If the power levels do not allow the creator to invite, a room with invites is not created.
    let powerless =
        json!({"invite": ["@bob:test"], "power_level_content_override": {"invite": 101}});
    alice
        .post("/createRoom", &powerless)
        .await
        .is_refused(403, "M_FORBIDDEN");
    let rooms = alice.get("/joined_rooms").await.ok();
    assert_eq!(rooms["joined_rooms"].as_array().map(Vec::len), Some(1));
}

#[actix_web::test]
async fn a_room_that_is_forgotten_on_one_device_is_left_on_all() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let tablet = stage.log_in("bob", "TABLET").await;
    let hall = room(&alice, "11", json!({"join_rule": "public"})).await;
    bob.joins(&hall).await;
    let other = room(&alice, "11", json!({"join_rule": "invite"})).await;
    alice.invites(&other, "@bob:test").await;
    let first = tablet.get("/sync").await.ok();
    let since = |answer: &Value| answer["next_batch"].as_str().expect("a token").to_owned();
    bob.does(&hall, "forget", json!({}))
        .await
        .is_refused(400, "M_UNKNOWN");
    bob.does(&other, "forget", json!({}))
        .await
        .is_refused(400, "M_UNKNOWN");
    let text = json!({"msgtype": "m.text", "body": "last words"});
    let path = format!("/rooms/{}/send/m.room.message/1", segment(&hall));
    alice.put(&path, &text).await.ok();

    // One room is left and one invite declined, and both are forgotten before the other device syncs.
    for room in [&hall, &other] {
        bob.leaves(room).await;
        bob.does(room, "forget", json!({})).await.ok();
    }
    let second = tablet.get(&format!("/sync?since={}", since(&first))).await;
    let second = second.ok();
    for room in [&hall, &other] {
        let left = &second["rooms"]["leave"][room.as_str()];
        let timeline = left["timeline"]["events"].as_array().expect("events");
        assert_eq!(timeline.len(), 1, "{left}");
        assert_eq!(timeline[0]["content"]["membership"], "leave");
        assert_eq!(left["state"]["events"], json!([]));
    }

    // A room that the other device knows to be left is forgotten while that device's sync waits.
    bob.joins(&hall).await;
    bob.leaves(&hall).await;
    let third = tablet.get(&format!("/sync?since={}", since(&second))).await;
    let third = third.ok();
    assert!(third["rooms"]["leave"].get(&hall).is_some());
    stage.quiet().await;
    let path = format!("/sync?timeout=30000&since={}", since(&third));
    let (woken, ()) = futures_util::join!(tablet.get(&path), async {
        stage.quiet().await;
        bob.does(&hall, "forget", json!({})).await.ok();
    });
    let woken = woken.ok();
    let left = &woken["rooms"]["leave"][hall.as_str()];
    assert_eq!(left["timeline"]["events"], json!([]), "{woken}");
    // Forgetting it again wakes no sync.
    bob.does(&hall, "forget", json!({})).await.ok();
    let fourth = tablet.get(&format!("/sync?since={}", since(&woken))).await;
    assert!(fourth.ok().get("rooms").is_none());
    let all = "/sync?filter=%7B%22room%22:%7B%22include_leave%22:true%7D%7D";
    assert!(tablet.get(all).await.ok().get("rooms").is_none());

    // A forgotten room cannot be read until bob joins again.
    let room = format!("/rooms/{}", segment(&hall));
    for path in [
        "messages?dir=b",
        "state",
        "members",
        "initialSync",
        "joined_members",
        "aliases",
    ] {
        bob.get(&format!("{room}/{path}"))
            .await
            .is_refused(403, "M_FORBIDDEN");
    }
    bob.joins(&hall).await;
    let page = bob.get(&format!("{room}/messages?dir=b")).await.ok();
    assert!(page.to_string().contains("last words"));
}

#[actix_web::test]
async fn equal_rooms_that_are_created_in_one_millisecond_are_distinct() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let options = json!({"room_version": "12", "preset": "private_chat"});
    for _ in 0..3 {
        alice.post("/createRoom", &options).await.ok();
    }
    let rooms = alice.get("/joined_rooms").await.ok();
    assert_eq!(rooms["joined_rooms"].as_array().map(Vec::len), Some(3));
}
