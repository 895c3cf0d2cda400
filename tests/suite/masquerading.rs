//! An appservice acts as its users, on their devices, and manages those devices. (MSC4326, MSC4190)

use std::time::Duration;

use serde_json::{Value, json};
use tests::stage::START;
use tests::{Person, Stage};

/// Clause: as.acting.user, as.acting.outside, as.acting.not-registered, as.acting.device, as.acting.unknown-device
/// Clause: as.acting.other-tokens
#[actix_web::test]
async fn a_service_acts_as_its_users_on_their_devices() {
    let stage = Stage::new().await;
    stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    let whoami = |query: &str| {
        let (bot, query) = (irc.bot.clone(), query.to_owned());
        async move { bot.get(&format!("/account/whoami?{query}")).await }
    };
    let is = |answer: Value, user: &str, device: Option<&str>| {
        assert_eq!(
            (answer["user_id"].as_str(), answer["device_id"].as_str()),
            (Some(user), device),
            "{answer}"
        );
    };

    is(whoami("").await.ok(), "@ircbot:test", None);
    is(
        whoami("user_id=@irc_bob:test").await.ok(),
        "@irc_bob:test",
        None,
    );
    is(
        whoami("user_id=@irc_bob:test&device_id=GHOST").await.ok(),
        "@irc_bob:test",
        Some("GHOST"),
    );
    is(
        whoami("user_id=@irc_bob:test&org.matrix.msc3202.device_id=GHOST")
            .await
            .ok(),
        "@irc_bob:test",
        Some("GHOST"),
    );
    is(
        whoami("user_id=@irc_bob:test&org.matrix.msc3202.device_id=NONE&device_id=GHOST")
            .await
            .ok(),
        "@irc_bob:test",
        Some("GHOST"),
    );
    whoami("user_id=@irc_bob:test&device_id=NONE")
        .await
        .is_refused(400, "M_UNKNOWN_DEVICE");
    whoami("user_id=@irc_nobody:test")
        .await
        .is_refused(403, "M_FORBIDDEN");
    whoami("user_id=@alice:test")
        .await
        .is_refused(403, "M_FORBIDDEN");

    // With a user's token, the parameters of masquerading have no effect.
    let alice = stage.log_in("alice", "PHONE").await;
    is(
        alice
            .get("/account/whoami?user_id=@irc_bob:test&device_id=GHOST")
            .await
            .ok(),
        "@alice:test",
        Some("PHONE"),
    );
    let _ = bob;
}

/// Clause: as.devices.create, as.devices.rename, as.devices.delete, as.devices.delete-many
#[actix_web::test]
async fn a_service_makes_and_deletes_devices_without_confirming() {
    let stage = Stage::new().await;
    let users = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
    // Without a URL, so that the transcript holds only the requests of the appservice.
    let irc = stage
        .bridge_with("irc", json!({"url": null, "namespaces": users}))
        .await;
    let bob = irc.ghost("bob").await;
    let alice = stage.person("alice", "LAPTOP").await;
    stage
        .step("a device is made, renamed, looked at and deleted")
        .await;
    assert_eq!(
        bob.put("/devices/D", &json!({"display_name": "one"}))
            .await
            .status,
        201
    );
    assert_eq!(
        bob.put("/devices/D", &json!({"display_name": "two"}))
            .await
            .status,
        200
    );
    assert_eq!(bob.get("/devices/D").await.ok()["display_name"], "two");
    bob.put("/devices/E", &json!({})).await.ok();
    assert_eq!(bob.delete("/devices/D").await.status, 200);
    assert_eq!(
        bob.delete("/devices/D").await.status,
        200,
        "deleting a deleted device succeeds"
    );
    bob.post("/delete_devices", &json!({"devices": ["E", "NONE"]}))
        .await
        .ok();
    assert_eq!(bob.get("/devices").await.ok()["devices"], json!([]));

    stage.step("a person can do neither without more").await;
    alice
        .put("/devices/NEW", &json!({"display_name": "x"}))
        .await
        .is_refused(404, "M_NOT_FOUND");
    let answer = alice.delete("/devices/LAPTOP").await;
    assert_eq!(answer.status, 401);
    assert!(
        answer.body["flows"].is_array() && answer.body["session"].is_string(),
        "a user must confirm the deletion: {answer:?}"
    );
    stage
        .transcript("a_service_makes_and_deletes_devices_without_confirming")
        .await;
}

/// Clause: as.users.register, as.users.namespace, as.users.in-use, as.users.inhibit-login, as.users.login
/// Clause: as.users.login-unsupported, as.users.login-flow
#[actix_web::test]
async fn how_a_service_registers_and_logs_in() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let kind = "m.login.application_service";
    let register = |username: &str, more: Value| {
        let mut body = json!({"type": kind, "username": username});
        body.as_object_mut()
            .expect("an object")
            .extend(more.as_object().cloned().unwrap_or_default());
        body
    };
    let flows = irc.bot.get("/login").await.ok();
    assert!(
        flows["flows"]
            .as_array()
            .is_some_and(|all| all.iter().any(|f| f["type"] == kind))
    );

    let made = irc
        .bot
        .post("/register", &register("irc_a", json!({"device_id": "D"})))
        .await
        .ok();
    assert_eq!(
        (made["user_id"].as_str(), made["device_id"].as_str()),
        (Some("@irc_a:test"), Some("D"))
    );
    assert!(made["access_token"].is_string());
    irc.bot
        .post("/register", &register("irc_a", json!({})))
        .await
        .is_refused(400, "M_USER_IN_USE");
    irc.bot
        .post("/register", &register("ircbot", json!({})))
        .await
        .is_refused(400, "M_USER_IN_USE");
    irc.bot
        .post("/register", &register("carol", json!({})))
        .await
        .is_refused(400, "M_EXCLUSIVE");
    let quiet = irc
        .bot
        .post(
            "/register",
            &register("irc_b", json!({"inhibit_login": true})),
        )
        .await
        .ok();
    assert!(quiet.get("access_token").is_none());

    let login = |user: &str| json!({"type": kind, "identifier": {"type": "m.id.user", "user": user}, "device_id": "BOT"});
    let logged_in = irc.bot.post("/login", &login("@irc_b:test")).await.ok();
    assert_eq!(logged_in["device_id"], "BOT");
    assert_eq!(
        irc.bot
            .anonymous()
            .post("/login", &login("irc_b"))
            .await
            .status,
        401
    );

    let users = json!({"users": [{"exclusive": true, "regex": "@new_.*"}]});
    let modern = stage
        .bridge_with(
            "new",
            json!({"io.element.msc4190": true, "namespaces": users}),
        )
        .await;
    modern
        .bot
        .post("/register", &register("new_a", json!({})))
        .await
        .is_refused(400, "M_APPSERVICE_LOGIN_UNSUPPORTED");
    modern
        .bot
        .post(
            "/register",
            &register("new_a", json!({"inhibit_login": true})),
        )
        .await
        .ok();
    modern
        .bot
        .post("/login", &login("new_a"))
        .await
        .is_refused(400, "M_APPSERVICE_LOGIN_UNSUPPORTED");

    // A user cannot register a name in an exclusive namespace.
    let person = irc.bot.anonymous();
    person
        .post(
            "/register",
            &json!({"username": "irc_x", "password": "long-enough-1"}),
        )
        .await
        .is_refused(400, "M_EXCLUSIVE");
}

/// Clause: as.acting.unknown-device, as.users.login-unsupported
#[actix_web::test]
async fn a_request_with_unstable_names_is_refused_with_unstable_names() {
    let stage = Stage::new().await;
    let irc = stage
        .bridge_with("irc", json!({"io.element.msc4190": true}))
        .await;
    let old = "org.matrix.msc3202.device_id";
    let login = json!({"type": "m.login.application_service", "identifier": {"type": "m.id.user", "user": "ircbot"}});
    let cases = [
        ("device_id=NONE".to_owned(), "M_UNKNOWN_DEVICE"),
        (format!("{old}=NONE"), "ORG.MATRIX.MSC4326.M_UNKNOWN_DEVICE"),
        (format!("{old}=NONE&device_id=NONE"), "M_UNKNOWN_DEVICE"),
    ];
    for (query, errcode) in cases {
        let path = format!("/account/whoami?{query}");
        irc.bot.get(&path).await.is_refused(400, errcode);
    }
    let cases = [
        ("/login".to_owned(), "M_APPSERVICE_LOGIN_UNSUPPORTED"),
        (
            format!("/login?{old}=NONE"),
            "IO.ELEMENT.MSC4190.M_APPSERVICE_LOGIN_UNSUPPORTED",
        ),
    ];
    for (path, errcode) in cases {
        irc.bot.post(&path, &login).await.is_refused(400, errcode);
    }
}

#[actix_web::test]
async fn without_its_proposals_a_service_logs_in_confirms_and_names_no_device() {
    let mut stage = Stage::new().await;
    let users = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
    let modern = json!({"io.element.msc4190": true, "namespaces": users});
    let irc = stage.bridge_with("irc", modern).await;
    irc.ghost_with_device("bob", "GHOST").await;
    let calls = async |bot: Person| {
        let bob = bot.playing("@irc_bob:test", None);
        let whoami = "/account/whoami?user_id=@irc_bob:test&device_id=GHOST";
        let whoami = bot.get(whoami).await;
        let new = bob.put("/devices/NEW", &json!({})).await;
        let delete = bob.delete("/devices/NEW").await;
        let login = json!({"type": "m.login.application_service", "identifier": {"type": "m.id.user", "user": "irc_bob"}});
        let login = bot.post("/login", &login).await;
        let statuses = [new.status, delete.status, login.status];
        (whoami.ok()["device_id"].clone(), statuses)
    };
    assert_eq!(
        calls(stage.again(&irc.bot)).await,
        (json!("GHOST"), [201, 200, 400])
    );
    stage
        .restart_with(|options| {
            let numbers: Vec<u16> = understudy::mscs::by_default()
                .into_iter()
                .filter(|number| ![4190, 4326].contains(number))
                .collect();
            let enabled = understudy::mscs::enabled(&numbers).expect("known proposals");
            options.enable(enabled, actors::wire::Naming::Unstable);
        })
        .await;
    assert_eq!(
        calls(stage.again(&irc.bot)).await,
        (json!(null), [404, 401, 200])
    );
}

/// Clause: as.acting.last-seen
#[actix_web::test]
async fn the_devices_of_a_service_are_seen_when_it_uses_them() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    let seen = || {
        let asker = irc.bot.playing(&bob.user_id, None);
        async move {
            let device = asker.get("/devices/GHOST").await.ok();
            (
                device["last_seen_ts"].as_i64(),
                device["last_seen_ip"].as_str().map(str::to_owned),
            )
        }
    };
    let here = || Some("127.0.0.1".to_owned());
    assert_eq!(
        seen().await,
        (None, None),
        "creating a device does not count as using it"
    );

    bob.get("/account/whoami").await.ok();
    stage.quiet().await;
    assert_eq!(seen().await, (Some(START), here()));

    // The time is written at most every five minutes. Clients show it as "a few minutes ago" anyway.
    stage.advance(Duration::from_secs(299)).await;
    bob.get("/account/whoami").await.ok();
    stage.quiet().await;
    assert_eq!(seen().await, (Some(START), here()));
    stage.advance(Duration::from_secs(1)).await;
    bob.get("/account/whoami").await.ok();
    stage.quiet().await;
    assert_eq!(seen().await, (Some(START + 300_000), here()));

    // A device that is created again has not been used.
    bob.delete("/devices/GHOST").await.ok();
    let again = irc.bot.playing(&bob.user_id, None);
    again.put("/devices/GHOST", &json!({})).await.ok();
    assert_eq!(seen().await, (None, None));
}

/// Clause: cs.keys.device
#[actix_web::test]
async fn keys_need_a_device() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost("bob").await;
    assert_eq!(
        bob.post("/keys/upload", &json!({"one_time_keys": {}}))
            .await
            .status,
        400
    );
}
