//! Interactive authentication as clients use it, and the grammar of user names.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Answer, Person, Stage};

use super::ask;

const REGISTER: &str = "/_matrix/client/v3/register";

/// Check that an answer is a 401 with this single stage. Returns the session.
fn challenge(answer: &Answer, stage: &str) -> String {
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(
        answer.body["flows"],
        json!([{"stages": [stage]}]),
        "{answer:?}"
    );
    assert!(answer.body["params"].is_object(), "{answer:?}");
    let session = answer.body["session"].as_str().expect("a session");
    session.to_owned()
}

/// Every endpoint that a user confirms with the password.
fn confirmed(person: &Person) -> Vec<(&'static str, String, Value)> {
    let key = tests::signing::Key::cross_signing(9).as_cross_signing_key(&person.user_id, "master");
    vec![
        (
            "POST",
            "/keys/device_signing/upload".to_owned(),
            json!({"master_key": key}),
        ),
        ("DELETE", "/devices/OTHER".to_owned(), json!({})),
        (
            "POST",
            "/delete_devices".to_owned(),
            json!({"devices": ["OTHER"]}),
        ),
        (
            "POST",
            "/account/password".to_owned(),
            json!({"new_password": "better", "logout_devices": false}),
        ),
        ("POST", "/account/deactivate".to_owned(), json!({})),
    ]
}

async fn alice(stage: &Stage) -> Person {
    let alice = stage.person("alice", "LAPTOP").await;
    stage.log_in("alice", "OTHER").await;
    let key = tests::signing::Key::cross_signing(2).as_cross_signing_key(&alice.user_id, "master");
    // The first cross-signing keys need no confirmation. An empty `auth` counts as none.
    let first = json!({"master_key": key, "auth": {}});
    alice.post("/keys/device_signing/upload", &first).await.ok();
    alice
}

fn with(body: &Value, auth: Value) -> Value {
    let mut body = body.clone();
    body["auth"] = auth;
    body
}

/// Clause: cs.api.interactive
#[actix_web::test]
async fn an_empty_auth_counts_as_none_and_one_with_only_a_session_returns_its_progress() {
    let stage = Stage::new().await;
    let alice = alice(&stage).await;
    for (method, path, body) in confirmed(&alice) {
        let send = async |body: Value| alice.ask(method, &path, Some(&body)).await;
        let bare = send(body.clone()).await;
        challenge(&bare, "m.login.password");
        assert!(bare.body.get("completed").is_none(), "{bare:?}");
        for nothing in [json!({}), Value::Null, json!({"session": null})] {
            let empty = send(with(&body, nothing)).await;
            challenge(&empty, "m.login.password");
            assert!(empty.body.get("errcode").is_none(), "{path}: {empty:?}");
        }
        let session = challenge(&bare, "m.login.password");
        let poll = send(with(&body, json!({"session": session}))).await;
        assert_eq!(challenge(&poll, "m.login.password"), session, "{path}");
        assert_eq!(poll.body["completed"], json!([]), "{path}");
        assert!(poll.body.get("errcode").is_none(), "{path}: {poll:?}");
        let unknown = send(with(&body, json!({"session": "made up"}))).await;
        assert_ne!(challenge(&unknown, "m.login.password"), "made up");
        assert_eq!(unknown.body["errcode"], "M_FORBIDDEN", "{path}");
        for wrong in [json!([]), json!("x"), json!({"session": 1})] {
            send(with(&body, wrong)).await.is_refused(400, "M_BAD_JSON");
        }
    }
}

#[actix_web::test]
async fn a_password_confirms_with_the_user_in_an_identifier_or_at_the_top_level() {
    let stage = Stage::new().await;
    let password = |who: &Value, secret: &str, session: &str| {
        let mut auth = json!({"type": "m.login.password", "password": secret, "session": session});
        for (key, value) in who.as_object().expect("an object") {
            auth[key] = value.clone();
        }
        auth
    };
    let right = [
        json!({"user": "alice"}),
        json!({"user": "@Alice:test"}),
        json!({"identifier": {"type": "m.id.user", "user": "ALICE"}}),
        json!({"identifier": {"type": "m.id.user", "user": "@alice:test"}, "user": "bob"}),
    ];
    let alice = alice(&stage).await;
    for (method, path, body) in confirmed(&alice) {
        let send = async |body: Value| alice.ask(method, &path, Some(&body)).await;
        let session = challenge(&send(body.clone()).await, "m.login.password");
        for who in &right {
            let wrong = send(with(&body, password(who, "guess", &session))).await;
            assert_eq!(
                challenge(&wrong, "m.login.password"),
                session,
                "{path} {who}"
            );
            assert_eq!(wrong.body["errcode"], "M_FORBIDDEN", "{path}");
        }
        let third_party = json!({"identifier": {"type": "m.id.thirdparty", "medium": "email", "address": "a@example.org"}});
        let wrong = send(with(
            &body,
            password(&third_party, "alice-password", &session),
        ))
        .await;
        challenge(&wrong, "m.login.password");
        let why = wrong.body["error"].as_str().expect("a text");
        assert!(why.contains("m.id.user"), "{why}");
        let nobody = send(with(
            &body,
            password(&json!({}), "alice-password", &session),
        ))
        .await;
        nobody.is_refused(400, "M_MISSING_PARAM");
        let other = json!({"user": "bob"});
        let wrong = send(with(&body, password(&other, "alice-password", &session))).await;
        challenge(&wrong, "m.login.password");
    }
    // Each form with the right password. Deleting a device can be repeated.
    for who in &right {
        let path = "/delete_devices";
        let body = json!({"devices": ["OTHER"]});
        let session = challenge(&alice.post(path, &body).await, "m.login.password");
        let auth = password(who, "alice-password", &session);
        alice.post(path, &with(&body, auth.clone())).await.ok();
        // Repeat the request, as if its answer had been lost.
        alice.post(path, &with(&body, auth.clone())).await.ok();
        // A session is for one user and one operation.
        let others = alice
            .post(path, &with(&json!({"devices": ["LAPTOP"]}), auth.clone()))
            .await;
        challenge(&others, "m.login.password");
        let elsewhere = alice
            .ask("DELETE", "/devices/LAPTOP", Some(&json!({"auth": auth})))
            .await;
        assert_ne!(challenge(&elsewhere, "m.login.password"), session);
    }
    assert_eq!(alice.get("/account/whoami").await.status, 200);
}

#[actix_web::test]
async fn a_registration_whose_answer_was_lost_is_answered_again() {
    let stage = Stage::new().await;
    let register = async |body: Value| {
        let (answer, _) = ask(&stage, "POST", REGISTER, &[], Some(&body)).await;
        answer
    };
    for (name, inhibit) in [(Some("carol"), false), (Some("dave"), true), (None, false)] {
        let mut wanted = json!({"password": "secret", "inhibit_login": inhibit});
        if let Some(name) = name {
            wanted["username"] = name.into();
        }
        let session = challenge(&register(with(&wanted, json!({}))).await, "m.login.dummy");
        let poll = register(with(&wanted, json!({"session": session}))).await;
        assert_eq!(challenge(&poll, "m.login.dummy"), session);
        let dummy = json!({"type": "m.login.dummy", "session": session});
        let done = register(with(&wanted, dummy.clone())).await.ok();
        assert_eq!(done.get("access_token").is_none(), inhibit, "{done}");
        let again = register(with(&wanted, dummy.clone())).await.ok();
        assert_eq!(again, done, "the same user, device and token");
        // A different request in this session does not get the stored answer.
        if name.is_some() {
            let mut other = wanted.clone();
            other["password"] = "guess".into();
            let other = register(with(&other, dummy.clone())).await;
            other.is_refused(400, "M_USER_IN_USE");
        }
    }
    // A registration without a password is refused, and its session stays valid.
    let wanted = json!({"username": "erin"});
    let session = challenge(&register(wanted.clone()).await, "m.login.dummy");
    let dummy = json!({"type": "m.login.dummy", "session": session});
    let refused = register(with(&wanted, dummy.clone())).await;
    refused.is_refused(400, "M_MISSING_PARAM");
    let complete = json!({"username": "erin", "password": "secret"});
    register(with(&complete, dummy.clone())).await.ok();
    stage.advance(Duration::from_secs(15 * 60)).await;
    let late = register(with(&complete, dummy)).await;
    late.is_refused(400, "M_USER_IN_USE");
}

#[actix_web::test]
async fn an_address_that_opens_many_sessions_does_not_end_those_of_others() {
    let stage = Stage::with(&[], |options| {
        options.door.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    })
    .await;
    let alice = alice(&stage).await;
    let body = json!({"devices": ["OTHER"]});
    let mine = challenge(
        &alice.post("/delete_devices", &body).await,
        "m.login.password",
    );
    let from = async |address: &str, body: Value| {
        let headers = [("x-forwarded-for", address)];
        ask(&stage, "POST", REGISTER, &headers, Some(&body)).await.0
    };
    let theirs = challenge(&from("203.0.113.1", json!({})).await, "m.login.dummy");
    let first = challenge(&from("203.0.113.2", json!({})).await, "m.login.dummy");
    for _ in 0..100 {
        from("203.0.113.2", json!({})).await;
    }
    let poll = |session: &str| json!({"auth": {"session": session}});
    let answer = from("203.0.113.2", poll(&first)).await;
    assert_ne!(
        challenge(&answer, "m.login.dummy"),
        first,
        "the address's oldest session was dropped"
    );
    let answer = from("203.0.113.1", poll(&theirs)).await;
    assert_eq!(challenge(&answer, "m.login.dummy"), theirs);
    let auth = json!({"type": "m.login.password", "user": "alice", "password": "alice-password", "session": mine});
    alice.post("/delete_devices", &with(&body, auth)).await.ok();
}

#[actix_web::test]
async fn only_the_right_password_shows_that_an_account_is_deactivated() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let auth = json!({"type": "m.login.password", "user": "alice", "password": "alice-password"});
    alice
        .post("/account/deactivate", &json!({"auth": auth}))
        .await
        .ok();
    let log_in = async |user: &str, secret: &str| {
        let body = json!({"type": "m.login.password", "user": user, "password": secret});
        alice.anonymous().post("/login", &body).await
    };
    let (given_up, unknown) = (log_in("alice", "guess").await, log_in("eve", "guess").await);
    given_up.is_refused(403, "M_FORBIDDEN");
    assert_eq!(given_up, unknown);
    let right = log_in("alice", "alice-password").await;
    right.is_refused(403, "M_USER_DEACTIVATED");
}

#[actix_web::test]
async fn new_users_of_a_service_need_valid_names_and_existing_ones_keep_theirs() {
    let stage = Stage::new().await;
    let users = json!({"users": [{"exclusive": true, "regex": "@_gh_.*"}]});
    let gh = stage.bridge_with("gh", json!({"namespaces": users})).await;
    let register = async |name: &str| {
        let body =
            json!({"type": "m.login.application_service", "username": name, "inhibit_login": true});
        gh.bot.post("/register", &body).await
    };
    let long = format!("_gh_{}", "x".repeat(250));
    for name in [
        "_gh_[z]",
        "_gh_ü",
        "_gh_a b",
        "_gh_a@b",
        "_gh_a:b",
        "_gh_a\u{7f}",
        "_gh_~",
        "",
        &long,
    ] {
        register(name).await.is_refused(400, "M_INVALID_USERNAME");
    }
    for name in ["_gh_z", "_gh_Zoe", "_gh_a.b_c=d-e/f+0"] {
        let made = register(name).await.ok();
        assert_eq!(made["user_id"], format!("@{name}:test"));
    }
    // An existing user whose name does not match the grammar keeps working, and its name counts as taken.
    let old = "@_gh_[old]:test";
    let store = &stage.app().actors.env.store;
    let row = schema::accounts::UserRow {
        appservice_id: Some("gh".to_owned()),
        ..schema::accounts::UserRow::new(old, 0)
    };
    let made = store.write(move |tx| Ok::<_, actors::Error>(schema::accounts::register(tx, &row)?));
    assert!(made.await.expect("a user from before"));
    register("_gh_[old]").await.is_refused(400, "M_USER_IN_USE");
    let body = json!({"type": "m.login.application_service", "identifier": {"type": "m.id.user", "user": "_gh_[old]"}, "device_id": "OLD"});
    gh.bot.post("/login", &body).await.ok();
    let played = gh.bot.playing(old, Some("OLD"));
    assert_eq!(played.get("/account/whoami").await.ok()["user_id"], old);
    played.post("/createRoom", &json!({})).await.ok();
    let query = json!({"device_keys": {old: []}});
    assert!(
        gh.bot.post("/keys/query", &query).await.ok()["device_keys"]
            .get(old)
            .is_some()
    );
}
