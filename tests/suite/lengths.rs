//! Values that are stored in an index have a maximum length. Longer ones are refused, and no other request fails.

use serde_json::{Value, json};
use tests::person::segment;
use tests::{Person, Stage};
use understudy::http::caller::Auth;
use understudy::routes;

/// Pseudo-random letters, which no database engine can compress.
fn letters(count: usize) -> String {
    let mut state = 1_u64;
    let mut letter = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b'a' + u8::try_from(state % 26).expect("a letter"))
    };
    (0..count).map(|_| letter()).collect()
}

/// A value for a path variable, in its grammar, made of these letters.
fn value(variable: &str, letters: &str) -> String {
    match variable {
        "{room_id}" | "{room_id_or_alias}" => format!("!{letters}:test"),
        "{user_id}" => format!("@{letters}:test"),
        "{room_alias}" => format!("#{letters}:test"),
        "{event_id}" => format!("${letters}"),
        _ => letters.to_owned(),
    }
}

struct World {
    alice: Person,
    room: String,
    event: String,
}

impl World {
    async fn new(stage: &Stage) -> World {
        let alice = stage.person("alice", "LAPTOP").await;
        let made = alice.post("/createRoom", &json!({})).await.ok();
        let room = made["room_id"].as_str().expect("a room").to_owned();
        let path = format!("/rooms/{}/send/m.x/0", segment(&room));
        let sent = alice.put(&path, &json!({})).await.ok();
        let event = sent["event_id"].as_str().expect("an event").to_owned();
        World { alice, room, event }
    }

    /// An existing value for a path variable.
    fn known(&self, variable: &str) -> String {
        match variable {
            "{room_id}" | "{room_id_or_alias}" => self.room.clone(),
            "{user_id}" => self.alice.user_id.clone(),
            "{room_alias}" => "#room:test".to_owned(),
            "{event_id}" => self.event.clone(),
            "{device_id}" => "LAPTOP".to_owned(),
            "{receipt_type}" => "m.read".to_owned(),
            _ => "x".to_owned(),
        }
    }

    /// A path with these letters as value of the variable with this number, and existing values for the others.
    fn path(&self, template: &str, number: usize, letters: &str) -> String {
        let mut seen = 0;
        let part = |part: &str| {
            if !part.starts_with('{') {
                return part.to_owned();
            }
            seen += 1;
            segment(&if seen == number + 1 {
                value(part, letters)
            } else {
                self.known(part)
            })
        };
        template.split('/').map(part).collect::<Vec<_>>().join("/")
    }
}

/// A valid body for the endpoints that store something.
fn body(template: &str, world: &World) -> Value {
    let session = json!({"first_message_index": 0, "forwarded_count": 0, "is_verified": true, "session_data": {}});
    if template.contains("/sendToDevice/") {
        json!({"messages": {&world.alice.user_id: {"*": {}}}})
    } else if template.ends_with("/{session_id}") {
        session
    } else if template.contains("/directory/room/") {
        json!({"room_id": world.room})
    } else if template.contains("/pushrules/") {
        json!({"actions": [], "pattern": "x"})
    } else {
        json!({})
    }
}

#[actix_web::test]
async fn a_path_variable_of_any_length_causes_no_internal_error() {
    let stage = Stage::new().await;
    let world = World::new(&stage).await;
    let new = json!({"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {}});
    world.alice.post("/room_keys/version", &new).await.ok();
    let (fits, long) = (letters(240), letters(3_000));
    let all = routes::all(true, &[]);
    let mut asked = 0;
    for (method, template, auth) in all.list() {
        let is_older = template.contains("/r0/") || template.contains("/unstable/");
        if !matches!(auth, Auth::User | Auth::Optional) || is_older {
            continue;
        }
        for number in 0..template.matches('{').count() {
            for letters in [&fits, &long] {
                let mut path = world.path(template, number, letters);
                if template.contains("/room_keys/keys") {
                    path.push_str("?version=1");
                }
                let body = (method != "GET").then(|| body(template, &world));
                let answer = world.alice.ask(method, &path, body.as_ref()).await;
                assert!(answer.status < 500, "{method} {path}: {answer:?}");
                if letters.len() > 255 {
                    assert!(
                        (400..500).contains(&answer.status),
                        "{method} {path}: {answer:?}"
                    );
                }
                asked += 1;
            }
        }
    }
    assert!(asked > 100, "{asked} requests");
}

/// Clause: cs.api.lengths
#[actix_web::test]
async fn transaction_ids_and_event_types_have_at_most_255_bytes() {
    let stage = Stage::new().await;
    let world = World::new(&stage).await;
    let alice = &world.alice;
    let (fits, long) = (letters(255), letters(256));
    let nothing = json!({"messages": {}});
    let to_device = |kind: &str, txn: &str| format!("/sendToDevice/{kind}/{txn}");
    alice.put(&to_device(&fits, &fits), &nothing).await.ok();
    let answer = alice.put(&to_device("m.x", &long), &nothing).await;
    answer.is_refused(400, "M_INVALID_PARAM");
    let answer = alice.put(&to_device(&long, "1"), &nothing).await;
    answer.is_refused(413, "M_TOO_LARGE");
    let room = segment(&world.room);
    let answer = alice
        .put(&format!("/rooms/{room}/send/m.x/{long}"), &json!({}))
        .await;
    answer.is_refused(400, "M_INVALID_PARAM");
    let answer = alice
        .put(&format!("/rooms/{room}/state/m.x/{long}"), &json!({}))
        .await;
    answer.is_refused(413, "M_TOO_LARGE");
    let profile = format!("/profile/{}/{long}", segment(&alice.user_id));
    let answer = alice.put(&profile, &json!({&long: 1})).await;
    answer.is_refused(400, "M_KEY_TOO_LARGE");
}

/// Clause: cs.api.lengths
#[actix_web::test]
async fn a_text_of_any_length_in_a_body_causes_no_internal_error() {
    let stage = Stage::new().await;
    let world = World::new(&stage).await;
    let alice = &world.alice;
    let room = format!("/rooms/{}", segment(&world.room));
    for letters in [letters(240), letters(3_000)] {
        let l = letters.as_str();
        let (user, alias) = (format!("@{l}:test"), format!("#{l}:test"));
        let dummy = json!({"type": "m.login.dummy"});
        let login = json!({"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"},
            "password": "alice-password", "device_id": l});
        let relates = json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": world.event, "key": l}});
        let cases = [
            (
                "POST",
                "/register".to_owned(),
                json!({"username": l, "password": "long-enough-1", "auth": dummy}),
            ),
            (
                "POST",
                "/register".to_owned(),
                json!({"device_id": l, "password": "long-enough-1", "auth": dummy}),
            ),
            ("POST", "/login".to_owned(), login),
            (
                "POST",
                "/createRoom".to_owned(),
                json!({"room_alias_name": l}),
            ),
            ("POST", "/createRoom".to_owned(), json!({"invite": [user]})),
            ("POST", "/createRoom".to_owned(), json!({"room_version": l})),
            (
                "POST",
                "/createRoom".to_owned(),
                json!({"initial_state": [{"type": l, "state_key": l, "content": {}}]}),
            ),
            ("POST", format!("{room}/invite"), json!({"user_id": user})),
            (
                "PUT",
                format!("{room}/send/m.reaction/{}", letters.len()),
                relates,
            ),
            (
                "PUT",
                format!("{room}/state/m.room.canonical_alias"),
                json!({"alias": alias}),
            ),
            (
                "POST",
                format!("{room}/receipt/m.read/{}", segment(&world.event)),
                json!({"thread_id": l}),
            ),
            (
                "POST",
                format!("{room}/read_markers"),
                json!({"m.fully_read": format!("${l}")}),
            ),
            (
                "POST",
                "/keys/claim".to_owned(),
                json!({"one_time_keys": {&alice.user_id: {l: l}}}),
            ),
            (
                "POST",
                "/keys/upload".to_owned(),
                json!({"one_time_keys": {format!("{l}:{l}"): {"key": "x"}}}),
            ),
            (
                "POST",
                "/keys/upload".to_owned(),
                json!({"fallback_keys": {format!("{l}:{l}"): "x"}}),
            ),
            (
                "POST",
                "/keys/signatures/upload".to_owned(),
                json!({&alice.user_id: {l: {}}}),
            ),
            (
                "POST",
                "/delete_devices".to_owned(),
                json!({"devices": [l]}),
            ),
            (
                "PUT",
                format!("/sendToDevice/m.x/b{}", letters.len()),
                json!({"messages": {&alice.user_id: {l: {}}}}),
            ),
        ];
        for (method, path, body) in cases {
            let answer = alice.ask(method, &path, Some(&body)).await;
            assert!(answer.status < 500, "{method} {path} {body}: {answer:?}");
        }
    }
    alice.get("/account/whoami").await.ok();
}
