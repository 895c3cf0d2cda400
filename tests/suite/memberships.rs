//! Ways into rooms and out of them: each passes the same check, and none shows more of a room than the next.

use serde_json::{Value, json};
use tests::person::segment;
use tests::{Answer, Person, Stage};

/// A room of this version whose join rule is that.
async fn room(by: &Person, version: &str, join_rules: Value) -> String {
    let wishes = json!({"room_version": version, "initial_state": [
        {"type": "m.room.join_rules", "content": join_rules},
    ]});
    by.creates(wishes).await
}

/// Set a user's membership by its state event.
async fn set_member(by: &Person, room: &str, user: &str, content: &Value) -> Answer {
    let path = format!("/rooms/{}/state/m.room.member/{user}", segment(room));
    by.put(&path, content).await
}

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

            // Bob is of the club: each way lets him in, and it is the server that says who admits him.
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

            // A client that sends back what it knows sets its name and admits nobody.
            let renamed = json!({"membership": "join", "displayname": "B", "join_authorised_via_users_server": "@alice:test"});
            set_member(&bob, &hall, "@bob:test", &renamed).await.ok();
            let renamed = bob.membership(&hall, "@bob:test").await;
            assert_eq!(renamed, json!({"membership": "join", "displayname": "B"}));
        }
    }
}

#[actix_web::test]
async fn every_way_to_a_membership_is_judged_alike() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let club = room(&alice, "11", json!({"join_rule": "invite"})).await;
    let restricted = json!({"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": club}]});
    // The rule, bob's membership before, whether he may join, whether he may knock.
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
async fn a_membership_that_cannot_be_is_refused_and_changes_nothing() {
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
        // Nothing to make her leave.
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
    // A member event that is no state is none.
    let sent = format!("/rooms/{}/send/m.room.member/t1", segment(&hall));
    let carol = stage.person("carol", "TABLET").await;
    let join = json!({"membership": "join"});
    assert_eq!(alice.put(&sent, &join).await.status / 100, 4);
    assert_eq!(carol.put(&sent, &join).await.status / 100, 4);
    let count = |members: &Value| members["chunk"].as_array().map(Vec::len);
    let after = alice.get(&members).await.ok();
    assert_eq!(count(&before), count(&after));

    // By the state event one makes leave, bans and lets back in whom one could by the other ways.
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
async fn a_new_room_has_no_members_that_did_not_come_by_themselves() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    stage.person("bob", "PHONE").await;
    let wishes = |membership: &str| {
        json!({"initial_state": [{"type": "m.room.member", "state_key": "@bob:test",
            "content": {"membership": membership, "join_authorised_via_users_server": "@alice:test"}}]})
    };
    for membership in ["join", "knock", "leave", "x"] {
        let answer = alice.post("/createRoom", &wishes(membership)).await;
        assert_eq!(answer.status, 400, "{membership}: {answer:?}");
    }
    let made = alice.post("/createRoom", &wishes("invite")).await.ok();
    let room = made["room_id"].as_str().expect("a room id");
    let invited = alice.membership(room, "@bob:test").await;
    assert_eq!(invited, json!({"membership": "invite"}));
    // Levels that leave the creator without the one to invite make no room with invites.
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

    // One left and one declined, both forgotten before the other device asks.
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

    // One that the other device knows to be left, and that is forgotten while it waits.
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
    // Again is no news.
    bob.does(&hall, "forget", json!({})).await.ok();
    let fourth = tablet.get(&format!("/sync?since={}", since(&woken))).await;
    assert!(fourth.ok().get("rooms").is_none());
    let all = "/sync?filter=%7B%22room%22:%7B%22include_leave%22:true%7D%7D";
    assert!(tablet.get(all).await.ok().get("rooms").is_none());

    // Nothing of it can be read any more, until bob joins again.
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
async fn two_rooms_that_are_made_alike_in_one_millisecond_are_two() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let wishes = json!({"room_version": "12", "preset": "private_chat"});
    for _ in 0..3 {
        alice.post("/createRoom", &wishes).await.ok();
    }
    let rooms = alice.get("/joined_rooms").await.ok();
    assert_eq!(rooms["joined_rooms"].as_array().map(Vec::len), Some(3));
}
