//! Bad input is answered with the right error and changes nothing.

use serde_json::json;
use tests::Stage;
use tests::person::segment;

/// Clause: cs.api.errors, cs.api.unknown-path, cs.api.unknown-method, cs.api.missing-token, cs.api.unknown-token
#[actix_web::test]
async fn unknown_paths_and_methods_and_tokens_are_refused() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    alice
        .get("/nothing/here")
        .await
        .is_refused(404, "M_UNRECOGNIZED");
    alice
        .delete("/account/whoami")
        .await
        .is_refused(405, "M_UNRECOGNIZED");
    alice
        .anonymous()
        .get("/account/whoami")
        .await
        .is_refused(401, "M_MISSING_TOKEN");
    let stranger = tests::Person::at(&stage.base(), "@x:test", None, "not-a-token");
    stranger
        .get("/account/whoami")
        .await
        .is_refused(401, "M_UNKNOWN_TOKEN");
    // The token is checked before the request.
    let bad = stranger
        .raw("PUT", "/sendToDevice/m.x/1", b"{".to_vec())
        .await;
    bad.is_refused(401, "M_UNKNOWN_TOKEN");
}

/// Clause: cs.api.not-json, cs.api.bad-json
#[actix_web::test]
async fn bodies_that_are_not_json_or_the_wrong_json_are_refused() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let put = |body: Vec<u8>| {
        let alice = alice.clone();
        async move { alice.raw("PUT", "/sendToDevice/m.x/1", body).await }
    };
    put(b"{".to_vec()).await.is_refused(400, "M_NOT_JSON");
    put(b"not json".to_vec())
        .await
        .is_refused(400, "M_NOT_JSON");
    put(b"[]".to_vec()).await.is_refused(400, "M_BAD_JSON");
    put(b"{}".to_vec()).await.is_refused(400, "M_MISSING_PARAM");
    put(br#"{"messages": 1}"#.to_vec())
        .await
        .is_refused(400, "M_BAD_JSON");
    let deep = format!(
        r#"{{"messages":{{"@a:test":{{"*":{}{}}}}}}}"#,
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    assert!((400..500).contains(&put(deep.into_bytes()).await.status));
    let huge = put(vec![b' '; 9 << 20]).await;
    huge.is_refused(413, "M_TOO_LARGE");
    assert_eq!(
        alice.get("/account/whoami").await.status,
        200,
        "the server still works"
    );
}

#[actix_web::test]
async fn impossible_names_are_refused() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    alice
        .get("/profile/%00")
        .await
        .is_refused(400, "M_INVALID_PARAM");
    alice
        .get("/profile/%FF")
        .await
        .is_refused(400, "M_INVALID_PARAM");
    let long = format!("/devices/{}", "d".repeat(300));
    let answer = alice.put(&long, &json!({})).await;
    assert!((400..500).contains(&answer.status), "{answer:?}");
    let nul = br#"{"messages":{"@a\u0000:test":{"*":{}}}}"#.to_vec();
    alice
        .raw("PUT", "/sendToDevice/m.x/1", nul)
        .await
        .is_refused(400, "M_BAD_JSON");
    let irc = stage.bridge("irc").await;
    let ghost = irc.ghost("bob").await;
    let answer = ghost.put(&long, &json!({})).await;
    assert!(
        (400..500).contains(&answer.status),
        "a device id of 300 bytes: {answer:?}"
    );
    let made = alice.post("/createRoom", &json!({})).await.ok();
    let room = segment(made["room_id"].as_str().expect("a room"));
    let state = alice
        .put(
            &format!("/rooms/{room}/state/m.x/{}", "k".repeat(300)),
            &json!({}),
        )
        .await;
    assert!((400..=413).contains(&state.status), "{state:?}");
    let float = alice
        .raw(
            "PUT",
            &format!("/rooms/{room}/send/m.x/1"),
            br#"{"n": 1.5}"#.to_vec(),
        )
        .await;
    float.is_refused(400, "M_BAD_JSON");
    let large = alice
        .put(
            &format!("/rooms/{room}/send/m.x/2"),
            &json!({"body": "x".repeat(66_000)}),
        )
        .await;
    large.is_refused(413, "M_TOO_LARGE");
}

/// Clause: cs.api.cors
#[actix_web::test]
async fn web_clients_of_any_origin_are_allowed() {
    let stage = Stage::new().await;
    let client = tests::person::client();
    for path in ["/_matrix/client/versions", "/_matrix/nothing"] {
        let answer = client
            .get(format!("{}{path}", stage.base()))
            .send()
            .await
            .expect("an answer");
        assert_eq!(
            answer
                .headers()
                .get("access-control-allow-origin")
                .expect("CORS"),
            "*",
            "{path}"
        );
    }
    let url = format!("{}/_matrix/client/v3/sync", stage.base());
    let preflight = client
        .request(reqwest::Method::OPTIONS, url)
        .send()
        .await
        .expect("an answer");
    assert_eq!(preflight.status(), 200);
}

#[actix_web::test]
async fn a_type_with_two_names_keeps_the_one_that_was_sent() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let room = alice.post("/createRoom", &json!({})).await.ok()["room_id"].clone();
    let room = segment(room.as_str().expect("a room"));
    let (content, me) = (json!({"n": 1}), segment("@alice:test"));
    // Each type has a second name, from before or after its proposal was accepted.
    for kind in ["m.beacon", "org.matrix.msc3672.beacon"] {
        let path = format!("/rooms/{room}/send/{kind}/{kind}");
        let id = alice.put(&path, &content).await.ok()["event_id"].clone();
        let id = segment(id.as_str().expect("an event"));
        let event = alice.get(&format!("/rooms/{room}/event/{id}")).await.ok();
        assert_eq!(event["type"], kind);
    }
    for (n, kind) in ["m.call.member", "org.matrix.msc3401.call.member"]
        .iter()
        .enumerate()
    {
        let path = format!("/rooms/{room}/state/{kind}/");
        alice.put(&path, &json!({"n": n})).await.ok();
        assert_eq!(alice.get(&path).await.ok(), json!({"n": n}), "{kind}");
    }
    for path in [
        format!("/user/{me}/account_data"),
        format!("/user/{me}/rooms/{room}/account_data"),
    ] {
        for kind in ["m.space_order", "org.matrix.msc3230.space_order"] {
            let path = format!("{path}/{kind}");
            alice.put(&path, &json!({"kind": kind})).await.ok();
        }
        for kind in ["m.space_order", "org.matrix.msc3230.space_order"] {
            let got = alice.get(&format!("{path}/{kind}")).await.ok();
            assert_eq!(got, json!({"kind": kind}), "{path}");
        }
    }
}
