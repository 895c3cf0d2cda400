//! On every endpoint, an appservice that acts as a user is answered as the user's own client would be.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tests::person::segment;
use tests::signing::Key;
use tests::{Person, Stage};
use understudy::http::caller::Auth;
use understudy::routes;

#[actix_web::test]
async fn a_service_does_for_its_user_what_a_client_does() {
    let stage = Stage::new().await;
    let users = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
    // Without a URL, so that the transcript holds only the requests of the appservice.
    let irc = stage
        .bridge_with("irc", json!({"url": null, "namespaces": users}))
        .await;
    let alice = stage.person("alice", "LAPTOP").await;
    let ghost = irc.ghost("bob").await;
    let me = ghost.user_id.clone();
    let room = alice
        .post("/createRoom", &json!({"invite": [&me]}))
        .await
        .ok();
    let room = room["room_id"].as_str().expect("a room").to_owned();
    let at = format!("/rooms/{}", segment(&room));
    let of_me = format!("/user/{}", segment(&me));

    stage.step("a device, and its keys").await;
    ghost
        .put("/devices/GHOST", &json!({"display_name": "bridge"}))
        .await
        .ok();
    let bob = irc.bot.playing(&me, Some("GHOST"));
    bob.get("/account/whoami").await.ok();
    let device = Key::of_device(1, "GHOST");
    let keys = device.device_keys(&me, "GHOST");
    let one_time = json!({"signed_curve25519:A": device.one_time_key(&me, "a")});
    let upload = json!({"device_keys": keys, "one_time_keys": one_time});
    bob.post("/keys/upload", &upload).await.ok();

    stage
        .step("cross-signing keys, and the device signed by them")
        .await;
    let (master, own) = (Key::cross_signing(2), Key::cross_signing(3));
    let of_others = Key::cross_signing(4);
    let signed = |key: &Key, usage| master.signs(&me, key.as_cross_signing_key(&me, usage));
    let body = json!({
        "master_key": master.as_cross_signing_key(&me, "master"),
        "self_signing_key": signed(&own, "self_signing"),
        "user_signing_key": signed(&of_others, "user_signing"),
    });
    bob.post("/keys/device_signing/upload", &body).await.ok();
    let body = json!({&me: {"GHOST": own.signs(&me, keys)}});
    let answer = bob.post("/keys/signatures/upload", &body).await.ok();
    assert_eq!(answer, json!({"failures": {}}));
    let known = bob
        .post("/keys/query", &json!({"device_keys": {&me: []}}))
        .await
        .ok();
    let signatures = &known["device_keys"][&me]["GHOST"]["signatures"][&me];
    assert_eq!(signatures.as_object().map(|all| all.len()), Some(2));
    assert!(
        known["user_signing_keys"][&me].is_object(),
        "a user sees its own user-signing key: {known}"
    );

    stage
        .step("a key backup: a version, a session, and back again")
        .await;
    let backup = json!({"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "p"}});
    let version = bob.post("/room_keys/version", &backup).await.ok();
    let version = version["version"].as_str().expect("a version").to_owned();
    let session = format!(
        "/room_keys/keys/{}/SESSION?version={version}",
        segment(&room)
    );
    let key = json!({"first_message_index": 0, "forwarded_count": 0, "is_verified": true, "session_data": {"ciphertext": "c"}});
    bob.put(&session, &key).await.ok();
    assert_eq!(bob.get(&session).await.ok(), key);
    bob.get("/room_keys/version").await.ok();

    stage.step("account data, tags, a filter, push rules").await;
    let data = format!("{of_me}/account_data/org.example.state");
    bob.put(&data, &json!({"last": 7})).await.ok();
    assert_eq!(bob.get(&data).await.ok(), json!({"last": 7}));
    let in_room = format!("{of_me}{at}/account_data/org.example.portal");
    bob.put(&in_room, &json!({"channel": "#rust"})).await.ok();
    bob.put(
        &format!("{of_me}{at}/tags/m.favourite"),
        &json!({"order": 0.5}),
    )
    .await
    .ok();
    let filter = json!({"room": {"timeline": {"limit": 3}}});
    let filter = bob.post(&format!("{of_me}/filter"), &filter).await.ok();
    let filter = filter["filter_id"].as_str().expect("an id").to_owned();
    bob.get(&format!("{of_me}/filter/{filter}")).await.ok();
    let rule = json!({"actions": ["notify"], "pattern": "bob"});
    bob.put("/pushrules/global/content/bob", &rule).await.ok();
    bob.get("/pushrules/global/content/bob").await.ok();

    stage.step("a profile, presence, typing, a receipt").await;
    bob.post(&format!("{at}/join"), &json!({})).await.ok();
    let profile = format!("/profile/{}", segment(&me));
    bob.put(
        &format!("{profile}/displayname"),
        &json!({"displayname": "Bob (IRC)"}),
    )
    .await
    .ok();
    let presence = format!("/presence/{}/status", segment(&me));
    bob.put(
        &presence,
        &json!({"presence": "online", "status_msg": "on IRC"}),
    )
    .await
    .ok();
    let typing = format!("{at}/typing/{}", segment(&me));
    bob.put(&typing, &json!({"typing": true, "timeout": 5000}))
        .await
        .ok();
    let message = json!({"msgtype": "m.text", "body": "hello"});
    let sent = alice
        .put(&format!("{at}/send/m.room.message/1"), &message)
        .await
        .ok();
    let event = segment(sent["event_id"].as_str().expect("an event"));
    bob.post(&format!("{at}/receipt/m.read/{event}"), &json!({}))
        .await
        .ok();

    stage
        .step("a message to a device, one from a device, and a sync")
        .await;
    let body = json!({"messages": {"@alice:test": {"LAPTOP": {"n": 1}}}});
    bob.put("/sendToDevice/org.example.ping/1", &body)
        .await
        .ok();
    let body = json!({"messages": {&me: {"GHOST": {"n": 2}}}});
    alice
        .put("/sendToDevice/org.example.pong/1", &body)
        .await
        .ok();
    let sync = bob.get(&format!("/sync?filter={filter}")).await.ok();
    assert_eq!(sync["to_device"]["events"][0]["content"], json!({"n": 2}));
    assert_eq!(sync["device_one_time_keys_count"]["signed_curve25519"], 1);
    let kept = sync["account_data"]["events"].as_array();
    let kinds: Vec<_> = kept.into_iter().flatten().map(|e| &e["type"]).collect();
    assert!(kinds.contains(&&json!("org.example.state")), "{kinds:?}");
    assert!(sync["rooms"]["join"][&room]["account_data"]["events"].is_array());
    stage
        .transcript("a_service_does_for_its_user_what_a_client_does")
        .await;
}

/// A server on which every endpoint can be called, and the ids that the requests use.
struct World {
    stage: Stage,
    /// The sender of the requests: bob with his own token, or the appservice acting as bob.
    bob: Person,
    room: String,
    event: String,
}

/// Create a server by the same requests in the same order: an appservice, alice with a room, and bob with two devices,
/// cross-signing keys and a backup.
async fn world(by_service: bool) -> World {
    let stage = Stage::new().await;
    // With an alias namespace, because an appservice may create aliases only in one, whichever user it acts as. (`M_EXCLUSIVE`)
    let namespaces = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}], "aliases": [{"exclusive": false, "regex": "#.*"}]});
    let irc = stage
        .bridge_with("irc", json!({"url": null, "namespaces": namespaces}))
        .await;
    let alice = stage.person("alice", "LAPTOP").await;
    irc.ghost("carol").await;
    let played = irc.ghost_with_device("bob", "GHOST").await;
    played.put("/devices/OTHER", &json!({})).await.ok();
    let login = json!({"type": "m.login.application_service", "device_id": "GHOST",
        "identifier": {"type": "m.id.user", "user": "irc_bob"}});
    let login = irc.bot.post("/login", &login).await.ok();
    let token = login["access_token"].as_str().expect("a token");
    let own = Person::at(&stage.base(), &played.user_id, Some("GHOST"), token);
    let bob = if by_service { played } else { own };

    let body = json!({"invite": [&bob.user_id], "power_level_content_override": {"users": {"@alice:test": 100, &bob.user_id: 100}}});
    let room = alice.post("/createRoom", &body).await.ok();
    let room = room["room_id"].as_str().expect("a room").to_owned();
    let at = format!("/rooms/{}", segment(&room));
    bob.post(&format!("{at}/join"), &json!({})).await.ok();
    let event = bob
        .put(&format!("{at}/send/m.test/first"), &json!({}))
        .await
        .ok();
    let event = event["event_id"].as_str().expect("an event").to_owned();
    let backup = json!({"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "p"}});
    bob.post("/room_keys/version", &backup).await.ok();
    let master = Key::cross_signing(2).as_cross_signing_key(&bob.user_id, "master");
    let body = json!({"master_key": master});
    bob.post("/keys/device_signing/upload", &body).await.ok();
    stage.quiet().await;
    World {
        stage,
        bob,
        room,
        event,
    }
}

/// Endpoints that remove what others need. They are called last, in this order.
const LAST: [&str; 8] = [
    "/device_signing/upload",
    "/redact/",
    "/kick",
    "/ban",
    "/unban",
    "/leave",
    "/forget",
    "/delete_devices",
];

/// Endpoints that end the session or the account. Each is called on a new server.
const ENDS: [&str; 3] = ["/logout", "/logout/all", "/deactivate"];

impl World {
    /// Fill in the variables of a path template.
    fn path(&self, template: &str) -> String {
        let me = segment(&self.bob.user_id);
        let part = |part: &str| match part {
            "{room_id}" | "{room_id_or_alias}" => segment(&self.room),
            "{user_id}" => me.clone(),
            "{event_id}" => segment(&self.event),
            "{device_id}" => "OTHER".to_owned(),
            "{room_alias}" => segment("#room:test"),
            "{receipt_type}" => "m.read".to_owned(),
            "{kind}" => "content".to_owned(),
            "{field}" | "{key_name}" => "displayname".to_owned(),
            "{filter_id}" => "0".to_owned(),
            "{version}" => "1".to_owned(),
            variable if variable.starts_with('{') => "x".to_owned(),
            fixed => fixed.to_owned(),
        };
        let path = template.split('/').map(part).collect::<Vec<_>>().join("/");
        if template.contains("/room_keys/keys") {
            return format!("{path}?version=1");
        }
        match template.rsplit('/').next() {
            Some("messages" | "{dir}") => format!("{path}?dir=b"),
            _ => path,
        }
    }

    /// A valid body for an endpoint, if it takes one.
    fn body(&self, method: &str, template: &str) -> Option<Value> {
        let session = json!({"first_message_index": 0, "forwarded_count": 0, "is_verified": true, "session_data": {}});
        let master = Key::cross_signing(9).as_cross_signing_key(&self.bob.user_id, "master");
        let bodies: BTreeMap<&str, Value> = BTreeMap::from([
            ("/invite", json!({"user_id": "@irc_carol:test"})),
            ("/ban", json!({"user_id": "@irc_carol:test"})),
            ("/unban", json!({"user_id": "@irc_carol:test"})),
            ("/kick", json!({"user_id": "@irc_carol:test"})),
            (
                "/keys/query",
                json!({"device_keys": {&self.bob.user_id: []}}),
            ),
            (
                "/keys/claim",
                json!({"one_time_keys": {&self.bob.user_id: {"OTHER": "signed_curve25519"}}}),
            ),
            ("/device_signing/upload", json!({"master_key": master})),
            (
                "/room_keys/version",
                json!({"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {}}),
            ),
            (
                "/version/{version}",
                json!({"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {}}),
            ),
            (
                "/room_keys/keys",
                json!({"rooms": {&self.room: {"sessions": {"x": session}}}}),
            ),
            (
                "/room_keys/keys/{room_id}",
                json!({"sessions": {"y": session}}),
            ),
            ("/room_keys/keys/{room_id}/{session_id}", session.clone()),
            (
                "/sendToDevice/{event_type}/{txn_id}",
                json!({"messages": {&self.bob.user_id: {"*": {}}}}),
            ),
            ("/status", json!({"presence": "online"})),
            (
                "/typing/{user_id}",
                json!({"typing": true, "timeout": 1000}),
            ),
            ("/delete_devices", json!({"devices": ["OTHER"]})),
            ("/password", json!({"new_password": "long-enough-1"})),
            ("/displayname", json!({"displayname": "Bob"})),
            ("/avatar_url", json!({"avatar_url": "mxc://test/a"})),
            (
                "/directory/room/{room_alias}",
                json!({"room_id": self.room}),
            ),
            ("/list/room/{room_id}", json!({"visibility": "public"})),
            ("/enabled", json!({"enabled": true})),
            ("/actions", json!({"actions": []})),
            (
                "/pushrules/global/{kind}/{rule_id}",
                json!({"actions": [], "pattern": "x"}),
            ),
            ("/user_directory/search", json!({"search_term": "x"})),
            ("/search", json!({"search_categories": {}})),
        ]);
        let body = bodies.iter().find(|(end, _)| template.ends_with(*end));
        (method != "GET").then(|| body.map_or_else(|| json!({}), |(_, body)| body.clone()))
    }
}

/// Every endpoint that takes a user's token, without the older paths to the same handler.
fn endpoints() -> Vec<(String, String)> {
    let all = routes::all(true, &[]);
    let mut endpoints: Vec<(String, String)> = all
        .list()
        .filter(|(_, path, auth)| {
            matches!(auth, Auth::User | Auth::Optional)
                && !path.contains("/r0/")
                && !path.contains("/unstable/")
        })
        .map(|(method, path, _)| (method.to_owned(), path.to_owned()))
        .collect();
    // First endpoints that create something, then those that read it, then those that remove it.
    let rank = |(method, path): &(String, String)| {
        let ends = ENDS.iter().any(|end| path.ends_with(end));
        let last = LAST.iter().rposition(|end| path.contains(end));
        let verb = match method.as_str() {
            "GET" => 1,
            "DELETE" => 2,
            _ => 0,
        };
        (ends, last.map_or(0, |n| n + 1), verb)
    };
    endpoints.sort_by_key(rank);
    endpoints
}

/// The statuses for the appservice and for the user, on endpoints where they are meant to differ.
fn differs(method: &str, path: &str) -> Option<(u16, u16)> {
    match (method, path) {
        // A user confirms these by interactive authentication, an appservice does not. (MSC4190; a ghost has no password that could
        // confirm a deactivation.)
        ("DELETE", "/_matrix/client/v3/devices/{device_id}")
        | (
            "POST",
            "/_matrix/client/v3/delete_devices"
            | "/_matrix/client/v3/keys/device_signing/upload"
            | "/_matrix/client/v3/account/deactivate",
        ) => Some((200, 401)),
        _ => None,
    }
}

/// Clause: as.acting.user
#[actix_web::test]
async fn on_every_endpoint_a_service_is_answered_as_its_user_would_be() {
    let (mut played, mut own) = (world(true).await, world(false).await);
    let (mut wrong, mut done) = (Vec::new(), 0);
    let endpoints = endpoints();
    for (method, template) in &endpoints {
        if ENDS.iter().any(|end| template.ends_with(end)) {
            (played, own) = (world(true).await, world(false).await);
        }
        let mut answers = Vec::new();
        for world in [&played, &own] {
            let (path, body) = (world.path(template), world.body(method, template));
            answers.push(world.bob.ask(method, &path, body.as_ref()).await);
            world.stage.quiet().await;
        }
        let [by_service, by_user] = &answers[..] else {
            unreachable!("two worlds")
        };
        let statuses = (by_service.status, by_user.status);
        done += usize::from(by_service.status == 200);
        let as_it_should = match differs(method, template) {
            Some(expected) => statuses == expected,
            None => (by_service.status, &by_service.body) == (by_user.status, &by_user.body),
        };
        if !as_it_should {
            wrong.push(format!(
                "{method} {template}: by the service {by_service:?}, by the user {by_user:?}"
            ));
        }
        println!("{} {method} {template}", by_service.status);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        done * 10 >= endpoints.len() * 8,
        "only {done} of {} endpoints succeeded, too few for the comparison to mean much",
        endpoints.len()
    );
}
