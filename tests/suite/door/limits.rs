//! Rate limits of callers by account and address, and of the queries to appservices that requests cause.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Person, Stage};
use understudy::http::limits::RateLimit;

use super::ask;

const LOGIN: &str = "/_matrix/client/v3/login";
const REGISTER: &str = "/_matrix/client/v3/register";

const fn at_once(burst: f64) -> Option<RateLimit> {
    Some(RateLimit {
        per_second: 0.1,
        burst,
    })
}

/// A server that trusts a proxy at the loopback address.
async fn behind_a_proxy() -> Stage {
    Stage::with(&[], |options| {
        options.door.rate_limit = at_once(2.0);
        options.door.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    })
    .await
}

#[actix_web::test]
async fn behind_a_trusted_proxy_each_address_has_a_limit_of_its_own() {
    let stage = behind_a_proxy().await;
    let from = async |headers: &[(&str, &str)]| {
        let (answer, sent) = ask(&stage, "POST", REGISTER, headers, Some(&json!({}))).await;
        assert_eq!(answer.status == 429, sent.contains_key("retry-after"));
        answer.status
    };
    let plain = [("x-forwarded-for", "198.51.100.7, 203.0.113.1")];
    assert_eq!([from(&plain).await, from(&plain).await], [401, 401]);
    assert_eq!(from(&plain).await, 429);
    // Only the last address is from the proxy. The ones before it were sent by the client.
    let disguised = [("x-forwarded-for", "198.51.100.8, 203.0.113.1")];
    assert_eq!(from(&disguised).await, 429);
    let standard = [("forwarded", "for=203.0.113.1;proto=https")];
    assert_eq!(from(&standard).await, 429);
    let other = [("forwarded", "for=\"[2001:db8:1:2::1]:4711\"")];
    assert_eq!([from(&other).await, from(&other).await], [401, 401]);
    // Another address of the same network.
    let neighbour = [("x-forwarded-for", "2001:db8:1:2::2")];
    assert_eq!(from(&neighbour).await, 429);
    let elsewhere = [("x-forwarded-for", "2001:db8:1:3::1")];
    assert_eq!(from(&elsewhere).await, 401);
}

#[actix_web::test]
async fn without_a_trusted_proxy_the_forwarding_headers_are_ignored() {
    let stage = Stage::with(&[], |options| options.door.rate_limit = at_once(2.0)).await;
    let mut statuses = Vec::new();
    for n in 0..3 {
        let address = format!("203.0.113.{n}");
        let headers = [
            ("x-forwarded-for", &*address),
            ("forwarded", "for=192.0.2.1"),
        ];
        let (answer, _) = ask(&stage, "POST", REGISTER, &headers, Some(&json!({}))).await;
        statuses.push(answer.status);
    }
    assert_eq!(statuses, [401, 401, 429]);
}

#[actix_web::test]
async fn a_device_was_last_seen_at_the_address_of_its_client() {
    let stage = behind_a_proxy().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let token = format!("Bearer {}", alice.token());
    let headers = [
        ("authorization", &*token),
        ("x-forwarded-for", "2001:db8:1:2::1"),
    ];
    let whoami = "/_matrix/client/v3/account/whoami";
    ask(&stage, "GET", whoami, &headers, None).await.0.ok();
    stage.quiet().await;
    let device = alice.get("/devices/LAPTOP").await.ok();
    assert_eq!(device["last_seen_ip"], "2001:db8:1:2::1");
}

fn password(user: &str, password: &str) -> Value {
    let identifier = json!({"type": "m.id.user", "user": user});
    json!({"type": "m.login.password", "identifier": identifier, "password": password})
}

async fn with_login_limit(burst: f64) -> Stage {
    Stage::with(&[], |options| {
        options.door.login_limit = at_once(burst);
        options.door.trusted_proxies = vec!["127.0.0.1".parse().expect("an address")];
    })
    .await
}

/// Clause: cs.api.rate-limit
#[actix_web::test]
async fn wrong_passwords_are_limited_by_account_and_by_address() {
    let stage = with_login_limit(2.0).await;
    stage.person("alice", "LAPTOP").await;
    let log_in = async |user: &str, secret: &str, from: &str| {
        let headers = [("x-forwarded-for", from)];
        let body = password(user, secret);
        let (answer, headers) = ask(&stage, "POST", LOGIN, &headers, Some(&body)).await;
        if answer.status == 429 {
            answer.is_refused(429, "M_LIMIT_EXCEEDED");
            let millis = answer.body["retry_after_ms"].as_u64().expect("a wait");
            assert!([2_000, 10_000].contains(&millis), "{millis}");
            assert_eq!(headers["retry-after"], (millis / 1000).to_string().as_str());
        }
        answer.status
    };
    let (here, there) = ("203.0.113.1", "203.0.113.2");
    for _ in 0..5 {
        assert_eq!(log_in("alice", "alice-password", here).await, 200);
    }
    // The limit counts all spellings of an account and all addresses together, whether the account exists or not.
    for users in [
        ["alice", "@ALICE:test", "Alice"],
        ["eve", "@eve:test", "Eve"],
    ] {
        assert_eq!(log_in(users[0], "guess", here).await, 403);
        assert_eq!(log_in(users[1], "guess", there).await, 403);
        assert_eq!(log_in(users[2], "guess", "203.0.113.3").await, 429);
    }
    assert_eq!(log_in("alice", "alice-password", here).await, 429);
    stage.advance(Duration::from_secs(10)).await;
    assert_eq!(log_in("alice", "alice-password", here).await, 200);
    // Guesses at many accounts from one address. It has guessed twice before, and ten seconds allow five more guesses.
    let mut statuses = Vec::new();
    for n in 0..11 {
        statuses.push(log_in(&format!("user{n}"), "guess", here).await);
    }
    assert_eq!(statuses.iter().filter(|status| **status == 403).count(), 10);
    assert_eq!(statuses[10], 429);
    assert_eq!(log_in("alice", "alice-password", "203.0.113.4").await, 200);
}

#[actix_web::test]
async fn the_password_that_confirms_a_request_is_limited_like_a_log_in() {
    let stage = with_login_limit(2.0).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let confirm = |secret: &str| {
        let mut auth = password("alice", secret);
        auth["session"] = Value::Null;
        json!({"devices": ["OTHER"], "auth": auth})
    };
    for (secret, status) in [
        ("alice-password", 200),
        ("guess", 401),
        ("guess", 401),
        ("guess", 429),
        ("alice-password", 429),
    ] {
        let answer = alice.post("/delete_devices", &confirm(secret)).await;
        assert_eq!(answer.status, status, "{secret}: {answer:?}");
    }
    // Requesting the flows, or logging in to another account, does not count as a guess.
    let flows = alice
        .post("/delete_devices", &json!({"devices": ["OTHER"]}))
        .await;
    assert_eq!(flows.status, 401);
    stage.person("bob", "PHONE").await;
    let log_in = ask(
        &stage,
        "POST",
        LOGIN,
        &[],
        Some(&password("bob", "bob-password")),
    )
    .await;
    assert_eq!(log_in.0.status, 200);
}

#[actix_web::test]
async fn an_address_that_guesses_tokens_is_limited_and_the_tokens_in_use_there_are_not() {
    let stage = with_login_limit(1.0).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    for somebody in [&alice, &irc.bot] {
        somebody.get("/account/whoami").await.ok();
    }
    let late = stage.person("bob", "PHONE").await;
    let guess = |n: usize| Person::at(&stage.base(), "@x:test", None, &format!("guess{n}"));
    for n in 0..10 {
        let answer = guess(n).get("/account/whoami").await;
        answer.is_refused(401, "M_UNKNOWN_TOKEN");
    }
    // The limit also holds on endpoints where the token is optional.
    for path in ["/account/whoami", "/profile/@alice:test"] {
        guess(10)
            .get(path)
            .await
            .is_refused(429, "M_LIMIT_EXCEEDED");
    }
    // A log-in with a password needs no token; one of a service does.
    let mut log_in = password("alice", "alice-password");
    guess(10).post("/login", &log_in).await.ok();
    log_in["type"] = json!("m.login.application_service");
    let of_service = guess(10).post("/login", &log_in).await;
    of_service.is_refused(429, "M_LIMIT_EXCEEDED");
    let unseen = late.get("/account/whoami").await;
    unseen.is_refused(429, "M_LIMIT_EXCEEDED");
    for somebody in [&alice, &irc.bot, &irc.ghost("bob").await] {
        somebody.get("/account/whoami").await.ok();
    }
    stage.advance(Duration::from_secs(1)).await;
    late.get("/account/whoami").await.ok();
}

#[actix_web::test]
async fn a_limit_belongs_to_the_endpoint_and_not_to_the_spelling_of_a_path() {
    let stage = Stage::with(&[], |options| {
        options.door.rate_limit = at_once(2.0);
        options.door.read_limit = at_once(4.0);
    })
    .await;
    let alice = stage.person("alice", "LAPTOP").await;
    let room = alice.post("/createRoom", &json!({})).await.ok()["room_id"].clone();
    let room = tests::person::segment(room.as_str().expect("a room"));
    let state = format!("/rooms/{room}/state/m.x/keys%2Fquery");
    alice.put(&state, &json!({})).await.ok();
    for path in [
        format!("/rooms/{room}/state/keys/query"),
        format!("/rooms/{room}/send/keys/query"),
        "/user/@alice:test/account_data/keys%2Fquery".to_owned(),
    ] {
        alice
            .put(&path, &json!({}))
            .await
            .is_refused(429, "M_LIMIT_EXCEEDED");
    }
    let other_spelling = "/_matrix/client/r0/rooms/x/leave";
    alice
        .post(other_spelling, &json!({}))
        .await
        .is_refused(429, "M_LIMIT_EXCEEDED");
    // Reads have a separate limit, and a query by POST counts as a read.
    let query = json!({"device_keys": {"@alice:test": []}});
    for path in ["/keys/query", "/_matrix/client/r0/keys/query"] {
        alice.post(path, &query).await.ok();
    }
    alice.get("/sync").await.ok();
    alice.get("/joined_rooms").await.ok();
    alice.get("/sync").await.is_refused(429, "M_LIMIT_EXCEEDED");
    alice
        .post("/keys/query", &query)
        .await
        .is_refused(429, "M_LIMIT_EXCEEDED");
}

/// A bridge that answers each query that the user or alias does not exist.
async fn asked_bridge(stage: &Stage) -> tests::Bridge {
    let users = json!([{"exclusive": true, "regex": "@irc_.*"}]);
    let aliases = json!([{"exclusive": true, "regex": "#irc_.*"}]);
    let namespaces = json!({"users": users, "aliases": aliases});
    stage
        .bridge_with("irc", json!({"namespaces": namespaces}))
        .await
}

#[actix_web::test]
async fn no_service_is_queried_for_a_caller_without_a_token() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = asked_bridge(&stage).await;
    let stranger = alice.anonymous();
    let guess = Person::at(&stage.base(), "@x:test", None, "guess");
    for somebody in [&stranger, &guess] {
        for path in [
            "/profile/@irc_bob:test",
            "/profile/@irc_bob:test/displayname",
            "/directory/room/%23irc_rust:test",
        ] {
            somebody.get(path).await.is_refused(404, "M_NOT_FOUND");
        }
    }
    assert_eq!(irc.receiver.questions().len(), 0);
    alice
        .get("/profile/@irc_bob:test")
        .await
        .is_refused(404, "M_NOT_FOUND");
    assert_eq!(irc.receiver.questions().len(), 1);

    let open = Stage::with(&[], |options| options.door.anonymous_questions = true).await;
    let irc = asked_bridge(&open).await;
    let stranger = irc.bot.anonymous();
    stranger
        .get("/profile/@irc_bob:test")
        .await
        .is_refused(404, "M_NOT_FOUND");
    assert_eq!(
        irc.receiver.questions().len(),
        1,
        "queries without a token are enabled in this server's options"
    );
}

#[actix_web::test]
async fn queries_to_services_are_limited_for_each_caller() {
    let stage = Stage::with(&[], |options| options.door.question_limit = at_once(3.0)).await;
    let (alice, bob) = (
        stage.person("alice", "LAPTOP").await,
        stage.person("bob", "PHONE").await,
    );
    let irc = asked_bridge(&stage).await;
    let asked = || irc.receiver.questions().len();
    alice
        .get("/profile/@irc_a:test")
        .await
        .is_refused(404, "M_NOT_FOUND");
    // Of several users, as many are queried as the limit allows.
    let names = json!({"device_keys": {"@irc_b:test": [], "@irc_c:test": [], "@irc_d:test": []}});
    alice.post("/keys/query", &names).await.ok();
    assert_eq!(asked(), 3);
    let none = alice.get("/directory/room/%23irc_e:test").await;
    none.is_refused(429, "M_LIMIT_EXCEEDED");
    assert_eq!(
        (none.body["retry_after_ms"].as_u64(), asked()),
        (Some(10_000), 3)
    );
    // A request that is also about other users is not refused.
    let both = json!({"device_keys": {"@irc_e:test": [], "@bob:test": []}});
    alice.post("/keys/query", &both).await.ok();
    let networks = alice.get("/thirdparty/protocols").await;
    networks.is_refused(429, "M_LIMIT_EXCEEDED");
    assert_eq!(asked(), 3);
    // An existing user causes no query.
    alice.get("/profile/@bob:test").await.ok();
    bob.get("/profile/@irc_f:test")
        .await
        .is_refused(404, "M_NOT_FOUND");
    assert_eq!(asked(), 4);
}
