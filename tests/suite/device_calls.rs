//! All requests by which an appservice creates, renames and deletes devices or logs in on them, with each possible error.
//! (MSC4326, MSC4190)

use serde_json::{Value, json};
use tests::{Person, Stage};

/// The expected status, and the expected error code.
type Expected = (u16, Option<&'static str>);

#[actix_web::test]
async fn each_call_for_devices_refuses_what_is_wrong_and_changes_nothing() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let users = json!({"users": [{"exclusive": true, "regex": "@new_.*"}]});
    let modern = json!({"io.element.msc4190": true, "namespaces": users});
    let modern = stage.bridge_with("new", modern).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    let nobody = irc.bot.playing("@irc_nobody:test", None);
    let foreign = irc.bot.playing("@new_x:test", None);
    let anonymous = irc.bot.anonymous();

    let fine: Expected = (200, None);
    let bad = |errcode: &'static str| -> Expected { (400, Some(errcode)) };
    let long = "x".repeat(101);
    let fits = "x".repeat(100);
    let long_id = format!("/devices/{}", "D".repeat(256));
    let kind = "m.login.application_service";
    let register = |more: Value| {
        let mut body = json!({"type": kind, "username": "new_y"});
        let object = body.as_object_mut().expect("an object");
        object.extend(more.as_object().cloned().unwrap_or_default());
        body
    };
    let login =
        |user: &str| json!({"type": kind, "identifier": {"type": "m.id.user", "user": user}});
    let master = json!({"master_key": {"user_id": "@irc_bob:test", "usage": ["master"], "keys": {"ed25519:x": "x"}}});

    let cases: Vec<(&Person, &str, &str, Value, Expected)> = vec![
        // Creating and renaming.
        (
            &bob,
            "PUT",
            "/devices/GHOST",
            json!({"display_name": fits}),
            fine,
        ),
        (
            &bob,
            "PUT",
            "/devices/GHOST",
            json!({"display_name": long}),
            bad("M_TOO_LARGE"),
        ),
        (
            &bob,
            "PUT",
            "/devices/NEW",
            json!({"display_name": long}),
            bad("M_TOO_LARGE"),
        ),
        (
            &bob,
            "PUT",
            "/devices/NEW",
            json!({"display_name": 1}),
            bad("M_BAD_JSON"),
        ),
        (&bob, "PUT", &long_id, json!({}), bad("M_INVALID_PARAM")),
        (
            &nobody,
            "PUT",
            "/devices/NEW",
            json!({}),
            (403, Some("M_FORBIDDEN")),
        ),
        (
            &foreign,
            "PUT",
            "/devices/NEW",
            json!({}),
            (403, Some("M_FORBIDDEN")),
        ),
        (
            &anonymous,
            "PUT",
            "/devices/NEW",
            json!({}),
            (401, Some("M_MISSING_TOKEN")),
        ),
        (
            &alice,
            "PUT",
            "/devices/NEW",
            json!({}),
            (404, Some("M_NOT_FOUND")),
        ),
        (
            &bob,
            "GET",
            "/devices/NEW",
            Value::Null,
            (404, Some("M_NOT_FOUND")),
        ),
        // Deleting. A user must confirm it, an appservice need not.
        (
            &nobody,
            "DELETE",
            "/devices/GHOST",
            Value::Null,
            (403, Some("M_FORBIDDEN")),
        ),
        (&bob, "DELETE", "/devices/NEW", Value::Null, fine),
        (
            &alice,
            "DELETE",
            "/devices/LAPTOP",
            Value::Null,
            (401, None),
        ),
        (
            &bob,
            "POST",
            "/delete_devices",
            json!({"devices": "GHOST"}),
            bad("M_BAD_JSON"),
        ),
        (
            &bob,
            "POST",
            "/delete_devices",
            json!({}),
            bad("M_MISSING_PARAM"),
        ),
        (
            &bob,
            "POST",
            "/delete_devices",
            json!({"devices": ["NEW"]}),
            fine,
        ),
        (
            &alice,
            "POST",
            "/delete_devices",
            json!({"devices": ["LAPTOP"]}),
            (401, None),
        ),
        // Cross-signing keys.
        (
            &bob,
            "POST",
            "/keys/device_signing/upload",
            master,
            bad("M_INVALID_PARAM"),
        ),
        // Registering and logging in, for an appservice that has opted in to MSC4190 and so must not log in for devices.
        (
            &modern.bot,
            "POST",
            "/register",
            register(json!({})),
            bad("M_APPSERVICE_LOGIN_UNSUPPORTED"),
        ),
        (
            &modern.bot,
            "POST",
            "/register",
            register(json!({"inhibit_login": false})),
            bad("M_APPSERVICE_LOGIN_UNSUPPORTED"),
        ),
        (
            &modern.bot,
            "POST",
            "/register",
            register(json!({"inhibit_login": 1})),
            bad("M_BAD_JSON"),
        ),
        (
            &modern.bot,
            "POST",
            "/login",
            login("newbot"),
            bad("M_APPSERVICE_LOGIN_UNSUPPORTED"),
        ),
        (
            &modern.bot,
            "POST",
            "/login",
            login("irc_bob"),
            bad("M_EXCLUSIVE"),
        ),
        (
            &irc.bot,
            "POST",
            "/login",
            login("irc_nobody"),
            (403, Some("M_FORBIDDEN")),
        ),
        (
            &alice,
            "POST",
            "/login",
            login("alice"),
            (401, Some("M_UNKNOWN_TOKEN")),
        ),
        (
            &anonymous,
            "POST",
            "/register",
            register(json!({})),
            (401, Some("M_MISSING_TOKEN")),
        ),
    ];
    for (who, method, path, body, (status, errcode)) in cases {
        let body = Some(&body).filter(|b| !b.is_null());
        let answer = who.ask(method, path, body).await;
        let code = answer.body["errcode"].as_str();
        assert_eq!(
            (answer.status, code),
            (status, errcode),
            "{method} {path} {body:?}"
        );
    }

    // A masqueraded device must exist. This is checked in every call, before anything else.
    for device in ["NEW", ""] {
        let gone = irc.bot.playing(&bob.user_id, Some(device));
        for (method, path) in [
            ("GET", "/account/whoami"),
            ("GET", "/sync"),
            ("POST", "/keys/upload"),
            ("PUT", "/devices/GHOST"),
            ("PUT", "/sendToDevice/m.dummy/1"),
        ] {
            let answer = gone.ask(method, path, Some(&json!({}))).await;
            answer.is_refused(400, "M_UNKNOWN_DEVICE");
        }
    }
    let devices = bob.get("/devices").await.ok();
    assert_eq!(devices["devices"].as_array().map(Vec::len), Some(1));
    assert_eq!(devices["devices"][0]["display_name"], fits);
    let laptop = alice.get("/devices/LAPTOP").await.ok();
    assert_eq!(laptop["device_id"], "LAPTOP");
}
