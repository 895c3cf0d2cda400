//! On every endpoint, a body must be a JSON object. It may be absent where all of its keys are optional.

use serde_json::{Value, json};
use tests::person::segment;
use tests::{Person, Stage};

/// Endpoints of every kind with a valid body, and whether the body may be absent.
async fn endpoints(stage: &Stage) -> (Person, Vec<(&'static str, String, Value, bool)>) {
    let alice = stage.person("alice", "LAPTOP").await;
    let made = alice.post("/createRoom", &json!({})).await.ok();
    let room = segment(made["room_id"].as_str().expect("a room"));
    let sent = alice
        .put(&format!("/rooms/{room}/send/m.x/0"), &json!({}))
        .await
        .ok();
    let event = segment(sent["event_id"].as_str().expect("an event"));
    let (here, me) = (format!("/rooms/{room}"), segment(&alice.user_id));
    let list = vec![
        (
            "POST",
            format!("{here}/receipt/m.read/{event}"),
            json!({}),
            true,
        ),
        ("POST", format!("{here}/read_markers"), json!({}), true),
        ("POST", format!("{here}/join"), json!({}), true),
        ("POST", format!("/join/{room}"), json!({}), true),
        ("POST", "/createRoom".to_owned(), json!({}), true),
        ("POST", "/keys/upload".to_owned(), json!({}), true),
        ("POST", "/publicRooms".to_owned(), json!({}), true),
        ("POST", format!("/user/{me}/filter"), json!({}), true),
        (
            "PUT",
            "/devices/LAPTOP".to_owned(),
            json!({"display_name": "new"}),
            true,
        ),
        ("PUT", format!("{here}/send/m.x/1"), json!({"a": 1}), false),
        ("PUT", format!("{here}/state/m.x/"), json!({"a": 1}), false),
        (
            "PUT",
            format!("/user/{me}/account_data/m.x"),
            json!({"a": 1}),
            false,
        ),
        (
            "PUT",
            format!("/profile/{me}/displayname"),
            json!({"displayname": "A"}),
            false,
        ),
        (
            "PUT",
            "/sendToDevice/m.x/1".to_owned(),
            json!({"messages": {}}),
            false,
        ),
        (
            "POST",
            "/keys/query".to_owned(),
            json!({"device_keys": {}}),
            false,
        ),
        (
            "POST",
            format!("{here}/invite"),
            json!({"user_id": "@bob:test"}),
            false,
        ),
    ];
    (alice, list)
}

/// Clause: cs.api.bad-json
#[actix_web::test]
async fn a_body_that_is_not_an_object_is_refused_on_every_endpoint() {
    let stage = Stage::new().await;
    let (alice, endpoints) = endpoints(&stage).await;
    let wrong: [(&[u8], &str); 10] = [
        (b"[]", "M_BAD_JSON"),
        (b"\"a\"", "M_BAD_JSON"),
        (b"1", "M_BAD_JSON"),
        (b"null", "M_BAD_JSON"),
        (br#"{"a":1,"a":2}"#, "M_BAD_JSON"),
        (b"{", "M_NOT_JSON"),
        (b"{} {}", "M_NOT_JSON"),
        (b"a=b", "M_NOT_JSON"),
        (b"{\"a\":\"\xff\"}", "M_NOT_JSON"),
        (b" ", "M_NOT_JSON"),
    ];
    for (method, path, body, optional) in &endpoints {
        for (bytes, code) in wrong {
            let answer = alice.raw(method, path, bytes.to_vec()).await;
            let what = String::from_utf8_lossy(bytes);
            assert_eq!(
                (answer.status, answer.body["errcode"].as_str()),
                (400, Some(code)),
                "{method} {path} {what}"
            );
        }
        // The content type makes no difference.
        let taken = alice.raw(method, path, body.to_string().into_bytes()).await;
        assert_eq!(taken.status, 200, "{method} {path}: {taken:?}");
        let empty = alice.raw(method, path, Vec::new()).await;
        let expected = if *optional { 200 } else { 400 };
        assert_eq!(
            empty.status, expected,
            "{method} {path} without a body: {empty:?}"
        );
    }
}

#[actix_web::test]
async fn an_endpoint_without_a_body_refuses_one_that_is_not_an_object() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    alice
        .raw("POST", "/logout", b"[]".to_vec())
        .await
        .is_refused(400, "M_BAD_JSON");
    alice.get("/account/whoami").await.ok();
    assert_eq!(alice.raw("POST", "/logout", Vec::new()).await.status, 200);
}
