//! What real clients and bridges send and expect beyond what the types of a library know: the specification lets a client add keys
//! to an object, and clients read lists and members without asking whether they are there.

use serde_json::{Value, json};
use tests::person::segment;
use tests::{Person, Stage};
use understudy::http::limits::RateLimit;

fn room_path(room: &str, rest: &str) -> String {
    format!("/rooms/{}/{rest}", segment(room))
}

async fn scene() -> (Stage, Person, Person) {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    (stage, alice, bob)
}

fn ids(events: &Value) -> Vec<&str> {
    let events = events.as_array().expect("a list").iter();
    events
        .filter_map(|event| event["event_id"].as_str())
        .collect()
}

#[actix_web::test]
async fn a_redaction_keeps_what_its_sender_adds() {
    let (stage, alice, _) = scene().await;
    let irc = stage.bridge("irc").await;
    let room = alice.creates(json!({"invite": ["@irc_bob:test"]})).await;
    irc.ghost("bob").await.joins(&room).await;
    let said = alice.says(&room, "said").await;
    let path = room_path(&room, &format!("redact/{}/t", segment(&said)));
    let added = json!({"a": [1]});
    let body = json!({"reason": "wrong", "com.example.source": added, "redacts": "$other"});
    let id = alice.put(&path, &body).await.ok()["event_id"].clone();
    let id = segment(id.as_str().expect("an id"));
    let event = alice
        .get(&room_path(&room, &format!("event/{id}")))
        .await
        .ok();
    stage.quiet().await;
    let sent = irc.receiver.items(0, "events");
    let sent = sent
        .iter()
        .find(|sent| sent["event_id"] == event["event_id"]);
    for event in [&event, sent.expect("it is sent to the bridge")] {
        let content = json!({"reason": "wrong", "com.example.source": added, "redacts": said});
        assert_eq!(event["content"], content);
    }
    // A body without anything may be absent.
    let path = room_path(&room, &format!("redact/{id}/none"));
    alice.raw("PUT", &path, Vec::new()).await.ok();
    for wrong in [json!([]), json!({"reason": 7}), json!({"a": 1.5})] {
        let path = room_path(&room, &format!("redact/{id}/wrong"));
        alice.put(&path, &wrong).await.is_refused(400, "M_BAD_JSON");
    }
}

#[actix_web::test]
async fn a_tag_keeps_what_its_client_adds() {
    let (_stage, alice, _) = scene().await;
    let room = alice.creates(json!({})).await;
    let tags = format!("/user/@alice:test{}", room_path(&room, "tags"));
    let info = json!({"order": 0.5, "com.example.source": "a bridge"});
    alice.put(&format!("{tags}/m.favourite"), &info).await.ok();
    assert_eq!(
        alice.get(&tags).await.ok(),
        json!({"tags": {"m.favourite": info}})
    );
    let synced = alice.get("/sync").await.ok();
    let data = &synced["rooms"]["join"][room.as_str()]["account_data"]["events"];
    assert_eq!(data[0]["content"]["tags"]["m.favourite"], info);
    let bare = format!("{tags}/u.bare");
    alice.raw("PUT", &bare, Vec::new()).await.ok();
    alice.delete(&bare).await.ok();
    // What is stored as account data can hold anything; one entry that is no tag does not hide the others.
    let stored = json!({"tags": {"u.right": {"order": "text"}, "u.wrong": 7}});
    let path = format!(
        "/user/@alice:test{}",
        room_path(&room, "account_data/m.tag")
    );
    alice.put(&path, &stored).await.ok();
    let right = json!({"tags": {"u.right": {"order": "text"}}});
    assert_eq!(alice.get(&tags).await.ok(), right);
    for wrong in [json!([]), json!({"order": {}})] {
        let put = alice.put(&format!("{tags}/u.other"), &wrong).await;
        put.is_refused(400, "M_BAD_JSON");
    }
}

#[actix_web::test]
async fn a_field_of_a_profile_may_come_with_others() {
    let (_stage, alice, _) = scene().await;
    let path = "/profile/@alice:test/displayname";
    for body in [
        json!({"a.b": 1, "displayname": "A"}),
        json!({"displayname": "B", "x.y": {"z": []}}),
    ] {
        alice.put(path, &body).await.ok();
        let now = alice.get("/profile/@alice:test").await.ok();
        assert_eq!(now, json!({"displayname": body["displayname"]}));
    }
    let escaped = br#"{"displayname": "C", "x.\u00e9": 1}"#.to_vec();
    alice.raw("PUT", path, escaped).await.ok();
    for (body, code) in [
        (json!({"other": "A"}), "M_MISSING_PARAM"),
        (json!({"displayname": 7}), "M_BAD_JSON"),
        (json!("A"), "M_BAD_JSON"),
    ] {
        alice.put(path, &body).await.is_refused(400, code);
    }
}

#[actix_web::test]
async fn the_context_of_an_event_always_has_its_lists() {
    let (_stage, alice, _) = scene().await;
    let room = alice.creates(json!({})).await;
    let said = alice.says(&room, "said").await;
    for limit in [0, 10] {
        let path = format!("context/{}?limit={limit}", segment(&said));
        let found = alice.get(&room_path(&room, &path)).await.ok();
        assert_eq!(found["events_after"], json!([]), "{found}");
        for list in ["events_before", "state"] {
            assert!(found[list].is_array(), "{list}: {found}");
        }
    }
}

#[actix_web::test]
async fn a_device_has_every_member_also_if_it_was_never_used() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    let devices = bob.get("/devices").await.ok();
    let one = bob.get("/devices/GHOST").await.ok();
    for device in [&devices["devices"][0], &one] {
        let members = device.as_object().expect("a device").keys();
        let members: Vec<&str> = members.map(String::as_str).collect();
        assert_eq!(
            members,
            ["device_id", "display_name", "last_seen_ip", "last_seen_ts"]
        );
    }
}

#[actix_web::test]
async fn an_event_id_of_any_form_is_unknown_and_not_wrong() {
    let (_stage, alice, _) = scene().await;
    let room = alice.creates(json!({})).await;
    for event in ["$remote:not a host!", "$a:b:c", "$"] {
        let id = segment(event);
        for path in [format!("event/{id}"), format!("context/{id}")] {
            let answer = alice.get(&room_path(&room, &path)).await;
            answer.is_refused(404, "M_NOT_FOUND");
        }
        let path = format!(
            "/_matrix/client/v1{}",
            room_path(&room, &format!("relations/{id}"))
        );
        alice.get(&path).await.is_refused(404, "M_NOT_FOUND");
        let redact = room_path(&room, &format!("redact/{id}/t"));
        alice
            .put(&redact, &json!({}))
            .await
            .is_refused(404, "M_NOT_FOUND");
    }
    let wrong = alice.get(&room_path(&room, "event/no")).await;
    wrong.is_refused(400, "M_INVALID_PARAM");
}

/// Clause: cs.relations.recurse
#[actix_web::test]
async fn relations_of_relations_are_found_if_they_are_asked_for() {
    let (_stage, alice, _) = scene().await;
    let room = alice.creates(json!({})).await;
    let relates = async |kind: &str, to: &str, rel_type: &str, txn: &str| {
        let relation = json!({"event_id": to, "rel_type": rel_type, "key": "x"});
        let content = json!({"body": "b", "msgtype": "m.text", "m.relates_to": relation});
        alice.sends(&room, kind, txn, content).await
    };
    let root = alice.says(&room, "root").await;
    let reply = relates("m.room.message", &root, "m.thread", "1").await;
    let liked = relates("m.reaction", &reply, "m.annotation", "2").await;
    let third = relates("m.x", &liked, "m.x", "3").await;
    let fourth = relates("m.x", &third, "m.x", "4").await;
    let find = async |rest: &str| {
        let path = format!("relations/{}{rest}", segment(&root));
        let path = format!("/_matrix/client/v1{}", room_path(&room, &path));
        alice.get(&path).await.ok()
    };
    let direct = find("").await;
    assert_eq!(ids(&direct["chunk"]), [reply.as_str()]);
    assert!(direct.get("recursion_depth").is_none(), "{direct}");
    let all = find("?recurse=true").await;
    assert_eq!(ids(&all["chunk"]), [&*third, &*liked, &*reply]);
    assert_eq!(all["recursion_depth"], 3);
    assert!(!ids(&all["chunk"]).contains(&fourth.as_str()));
    let forwards = find("?recurse=true&dir=f&limit=2").await;
    assert_eq!(ids(&forwards["chunk"]), [&*reply, &*liked]);
    let next = forwards["next_batch"].as_str().expect("a token");
    let rest = find(&format!("?recurse=true&dir=f&from={next}")).await;
    assert_eq!(ids(&rest["chunk"]), [third.as_str()]);
    let end = "s9223372036854775807";
    let beyond = find(&format!("?recurse=true&dir=f&from={end}")).await;
    assert!(ids(&beyond["chunk"]).is_empty(), "{beyond}");
    let older = find("?recurse=true&limit=1").await;
    let next = older["next_batch"].as_str().expect("a token");
    let older = find(&format!("?recurse=true&from={next}")).await;
    assert_eq!(ids(&older["chunk"]), [&*liked, &*reply]);
    // A filter is for the events that are found, and not for those between.
    let annotations = find("/m.annotation?recurse=true").await;
    assert_eq!(ids(&annotations["chunk"]), [liked.as_str()]);
    let reactions = find("/m.annotation/m.reaction?recurse=true").await;
    assert_eq!(ids(&reactions["chunk"]), [liked.as_str()]);
    assert_eq!(reactions["recursion_depth"], 3);
}

/// Clause: cs.sync.heroes
#[actix_web::test]
async fn a_room_without_a_name_is_named_after_its_oldest_members_or_those_that_left() {
    let (stage, alice, bob) = scene().await;
    let room = alice.creates(json!({"preset": "public_chat"})).await;
    let names = ["zoe", "yan", "xia", "wim", "vic", "uma", "tom"];
    for name in names {
        stage.person(name, "D").await.joins(&room).await;
    }
    let summary = async |by: &Person| {
        let synced = by.get("/sync").await.ok();
        synced["rooms"]["join"][room.as_str()]["summary"].clone()
    };
    let oldest: Vec<String> = names[..5]
        .iter()
        .map(|name| format!("@{name}:test"))
        .collect();
    assert_eq!(summary(&alice).await["m.heroes"], json!(oldest));
    // A name or an alias that is empty names nothing; a client that has the room is told so.
    alice
        .sets(&room, "m.room.name", json!({"name": "Hall"}))
        .await;
    let named = alice.get("/sync").await.ok();
    let shown = &named["rooms"]["join"][room.as_str()]["summary"];
    assert!(shown.get("m.heroes").is_none(), "{shown}");
    let since = named["next_batch"].as_str().expect("a token");
    alice.sets(&room, "m.room.name", json!({"name": ""})).await;
    alice.sets(&room, "m.room.canonical_alias", json!({})).await;
    let news = alice.get(&format!("/sync?since={since}")).await.ok();
    let shown = &news["rooms"]["join"][room.as_str()]["summary"];
    assert_eq!(shown["m.heroes"], json!(oldest), "{news}");

    let room = alice.creates(json!({"invite": ["@bob:test"]})).await;
    bob.joins(&room).await;
    bob.leaves(&room).await;
    let synced = alice.get("/sync").await.ok();
    let shown = &synced["rooms"]["join"][room.as_str()]["summary"];
    assert_eq!(shown["m.heroes"], json!(["@bob:test"]));
}

/// Bridges know these two refusals by their texts, and go on.
#[actix_web::test]
async fn an_invite_of_a_member_and_a_second_leave_are_refused_in_words_that_bridges_know() {
    let (stage, alice, bob) = scene().await;
    let room = alice.creates(json!({"invite": ["@bob:test"]})).await;
    bob.joins(&room).await;
    let invite = room_path(&room, "invite");
    let answer = alice.post(&invite, &json!({"user_id": "@bob:test"})).await;
    answer.is_refused(403, "M_FORBIDDEN");
    let why = answer.body["error"].as_str().expect("a text");
    assert!(why.contains("is already in the room"), "{why}");
    // A user outside of the room is not told that Bob is a member.
    let eve = stage.person("eve", "D").await;
    let answer = eve.post(&invite, &json!({"user_id": "@bob:test"})).await;
    answer.is_refused(403, "M_FORBIDDEN");
    assert!(!answer.body.to_string().contains("already"), "{answer:?}");
    bob.leaves(&room).await;
    let answer = bob.post(&room_path(&room, "leave"), &json!({})).await;
    answer.is_refused(403, "M_FORBIDDEN");
    let why = answer.body["error"].as_str().expect("a text");
    assert!(why.contains("not in room"), "{why}");
}

/// Clause: as.txn.interest-room
#[actix_web::test]
async fn a_service_with_an_interest_in_an_alias_is_sent_the_room_from_its_first_event() {
    let (stage, alice, _) = scene().await;
    let aliases = json!({"aliases": [{"exclusive": false, "regex": "#tea_.*"}]});
    let tea = stage
        .bridge_with("tea", json!({"namespaces": aliases}))
        .await;
    for version in ["11", "12"] {
        let name = format!("tea_{version}");
        let room = json!({"room_alias_name": name, "room_version": version});
        let room = alice.creates(room).await;
        stage.quiet().await;
        let sent = tea.receiver.items(0, "events");
        let kinds = sent
            .iter()
            .filter(|event| event["room_id"] == room.as_str());
        let kinds: Vec<_> = kinds.filter_map(|event| event["type"].as_str()).collect();
        assert_eq!(kinds[..2], ["m.room.create", "m.room.member"], "{version}");
    }
}

/// A service may name the user that it is about to register. Clause: as.registration.sender-not-limited
#[actix_web::test]
async fn a_service_registers_as_many_users_as_it_wants() {
    for limited in [false, true] {
        let limit = RateLimit {
            per_second: 0.001,
            burst: 2.0,
        };
        let stage = Stage::with(&[], |options| options.door.rate_limit = Some(limit)).await;
        let users = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
        let keys = json!({"namespaces": users, "rate_limited": limited});
        let irc = stage.bridge_with("irc", keys).await;
        for n in 0..4 {
            let (name, kind) = (format!("irc_{n}"), "m.login.application_service");
            let path = format!("/register?user_id=@{name}:test");
            let body = json!({"type": kind, "username": name, "inhibit_login": true});
            irc.bot.post(&path, &body).await.ok();
        }
    }
}

/// Clients log in again while they still send a token that they lost; some send one that they never had.
#[actix_web::test]
async fn an_unknown_token_hinders_no_log_in_and_no_registration() {
    let stage = Stage::new().await;
    stage.person("alice", "LAPTOP").await;
    let lost = Person::at(&stage.base(), "@alice:test", None, "not-a-token");
    let user = json!({"type": "m.id.user", "user": "alice"});
    let body =
        json!({"type": "m.login.password", "identifier": user, "password": "alice-password"});
    lost.post("/login", &body).await.ok();
    let auth = json!({"type": "m.login.dummy"});
    let body = json!({"username": "new", "password": "new-password", "auth": auth});
    lost.post("/register", &body).await.ok();
    // A service is known by its token alone.
    let kind = "m.login.application_service";
    let body = json!({"type": kind, "identifier": user});
    let answer = lost.post("/login", &body).await;
    answer.is_refused(401, "M_UNKNOWN_TOKEN");
    let body = json!({"type": kind, "username": "irc_bob"});
    let answer = lost.post("/register", &body).await;
    answer.is_refused(401, "M_UNKNOWN_TOKEN");
    let whoami = lost.get("/account/whoami").await;
    whoami.is_refused(401, "M_UNKNOWN_TOKEN");
}

/// A bot that logs in has a token of its own, and is its service all the same.
#[actix_web::test]
async fn a_bot_with_its_own_token_uses_the_aliases_of_its_service() {
    let (stage, alice, _) = scene().await;
    let aliases = json!({"aliases": [{"exclusive": true, "regex": "#tea_.*"}]});
    let tea = stage
        .bridge_with("tea", json!({"namespaces": aliases}))
        .await;
    let user = json!({"type": "m.id.user", "user": "teabot"});
    let body = json!({"type": "m.login.application_service", "identifier": user});
    let login = tea.bot.post("/login", &body).await.ok();
    let token = login["access_token"].as_str().expect("a token");
    let bot = Person::at(&stage.base(), "@teabot:test", None, token);
    let room = bot.creates(json!({"room_alias_name": "tea_a"})).await;
    let path = format!("/directory/room/{}", segment("#tea_b:test"));
    bot.put(&path, &json!({"room_id": room})).await.ok();
    let hers = alice.delete(&path).await;
    hers.is_refused(400, "M_EXCLUSIVE");
    bot.delete(&path).await.ok();
    let hers = alice.put(&path, &json!({"room_id": room})).await;
    hers.is_refused(403, "M_FORBIDDEN");
}
