//! A server for the tests of another program: its database in memory is put back between tests, while bridges and clients stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tests::{Person, Stage, TO_DEVICE, until};
use understudy::http::limits::RateLimit;

async fn in_memory() -> Stage {
    Stage::with(&understudy::mscs::by_default(), |options| {
        options.database = ":memory:".to_owned();
    })
    .await
}

async fn order(person: &Person, path: &str, body: Value) -> Value {
    let path = format!("/_understudy/{path}");
    person.aside().post(&path, &body).await.ok()
}

async fn sends(alice: &Person, txn: &str) {
    let messages = json!({"messages": {"@irc_bob:test": {"GHOST": {"body": txn}}}});
    let path = format!("/sendToDevice/m.example/{txn}");
    alice.put(&path, &messages).await.ok();
}

/// The bodies of the messages in each transaction, by its id, once there are this many.
async fn transactions(irc: &tests::Bridge, number: usize) -> Vec<(i64, Vec<String>)> {
    let taken = || {
        let all = irc.receiver.received().into_iter();
        let with_messages = all.filter_map(|received| {
            let json = received.json();
            let messages = json[TO_DEVICE].as_array()?;
            let bodies = messages.iter().map(|m| m["content"]["body"].to_string());
            Some((received.id().parse().ok()?, bodies.collect()))
        });
        with_messages.collect::<Vec<(i64, Vec<String>)>>()
    };
    until("the bridge has its messages", || taken().len() >= number).await;
    taken()
}

#[actix_web::test]
async fn a_restore_undoes_what_was_done_since_and_delivery_goes_on() {
    let stage = in_memory().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    let room = alice.creates(json!({})).await;
    let kept = order(&alice, "snapshot", json!({})).await;

    for round in 0..3 {
        sends(&alice, &format!("one{round}")).await;
        alice
            .put(
                &format!("/rooms/{room}/state/m.room.topic"),
                &json!({"topic": "t"}),
            )
            .await
            .ok();
        transactions(&irc, 2 * round + 1).await;
        let waits = {
            let alice = alice.aside();
            let since = alice.get("/sync").await.ok()["next_batch"].clone();
            let since = since.as_str().expect("a token").to_owned();
            actix_rt::spawn(async move {
                let path = format!("/sync?timeout=30000&since={since}");
                alice.get(&path).await.status
            })
        };
        let is_waiting = async || {
            let messages = alice.aside().get("/_understudy/messages").await.ok();
            let messages = messages.as_array().cloned().unwrap_or_default();
            messages.iter().any(|message| message["what"] == "Watch")
        };
        while !is_waiting().await {}
        assert_eq!(order(&alice, "restore", kept.clone()).await, json!({}));
        assert_eq!(waits.await.expect("an answer"), 200, "a long-poll ends");

        // The person, the room and the device are there, and the topic is not.
        let topic = format!("/rooms/{room}/state/m.room.topic");
        alice.get(&topic).await.is_refused(404, "M_NOT_FOUND");
        sends(&alice, &format!("two{round}")).await;
        transactions(&irc, 2 * round + 2).await;
    }
    let sent = transactions(&irc, 6).await;
    let bodies: Vec<&str> = sent
        .iter()
        .flat_map(|(_, b)| b.iter().map(String::as_str))
        .collect();
    assert_eq!(bodies.len(), 6, "nothing is sent twice: {bodies:?}");
    let ids: Vec<i64> = sent.iter().map(|(id, _)| *id).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "ids only grow: {ids:?}");

    order(&alice, "reset", json!({})).await;
    let whoami = alice.get("/account/whoami").await;
    whoami.is_refused(401, "M_UNKNOWN_TOKEN");
    // The folder of registrations is as it was, so the bridge can go on.
    irc.ghost_with_device("bob", "GHOST").await;
    let none = json!({"id": "7"});
    let unknown = irc.bot.aside().post("/_understudy/restore", &none).await;
    unknown.is_refused(404, "M_NOT_FOUND");
}

#[actix_web::test]
async fn a_reset_runs_the_clock_and_forgets_what_was_counted_for_limits() {
    let stage = Stage::with(&understudy::mscs::by_default(), |options| {
        options.database = ":memory:".to_owned();
        options.clock = actors::Clock::adjustable();
        options.door.login_limit = Some(RateLimit {
            per_second: 0.001,
            burst: 2.0,
        });
    })
    .await;
    let send = async |method: reqwest::Method, path: &str, body: Value| {
        let request = tests::person::client()
            .request(method, format!("{}/{path}", stage.base()))
            .header("content-type", "application/json")
            .body(body.to_string());
        let answer = request.send().await.expect("an answer");
        let (status, text) = (answer.status().as_u16(), answer.text().await);
        (status, text.expect("a body"))
    };
    let order = async |path: &str| {
        let path = format!("_understudy/{path}");
        let (status, answer) = send(reqwest::Method::POST, &path, json!({})).await;
        assert_eq!(status, 200, "{answer}");
    };
    let log_in = async || {
        let user = json!({"type": "m.id.user", "user": "nobody"});
        let body = json!({"type": "m.login.password", "identifier": user, "password": "no"});
        let path = "_matrix/client/v3/login";
        send(reqwest::Method::POST, path, body).await.0
    };
    let mut statuses = Vec::new();
    while statuses.last() != Some(&429) {
        statuses.push(log_in().await);
    }
    assert_eq!(statuses, [403, 403, 429]);
    order("clock/freeze").await;
    order("reset").await;
    assert_eq!(log_in().await, 403);
    let (_, clock) = send(reqwest::Method::GET, "_understudy/clock", json!({})).await;
    let clock: Value = serde_json::from_str(&clock).expect("JSON");
    assert_eq!(clock["frozen"], false);
}

#[actix_web::test]
async fn requests_during_a_reset_wait_or_are_refused_and_the_server_goes_on() {
    let stage = in_memory().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    let kept = order(&alice, "snapshot", json!({})).await;
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..6)
        .map(|client| {
            let (alice, over) = (alice.aside(), Arc::clone(&over));
            actix_rt::spawn(async move {
                let mut answers = 0;
                while !over.load(Ordering::Acquire) {
                    let path = format!("/sendToDevice/m.example/{client}-{answers}");
                    let body = json!({"messages": {"@irc_bob:test": {"GHOST": {"body": &path}}}});
                    let status = alice.put(&path, &body).await.status;
                    assert!(matches!(status, 200 | 503), "{status}");
                    answers += 1;
                }
                answers
            })
        })
        .collect();
    for _ in 0..20 {
        order(&alice, "restore", kept.clone()).await;
    }
    over.store(true, Ordering::Release);
    for client in clients {
        assert!(client.await.expect("no panic") > 0);
    }
    alice.get("/account/whoami").await.ok();
}

#[actix_web::test]
async fn a_database_on_a_disk_cannot_be_reset() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    for path in ["reset", "snapshot", "restore"] {
        let path = format!("/_understudy/{path}");
        let refused = alice.aside().post(&path, &json!({"id": "1"})).await;
        refused.is_refused(403, "M_FORBIDDEN");
    }
    alice.get("/account/whoami").await.ok();
}
