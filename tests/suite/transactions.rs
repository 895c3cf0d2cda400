//! Transactions: their bytes are frozen, one is sent at a time, their ids never repeat, and the next one takes all that waits.

use std::time::Duration;

use serde_json::{Value, json};
use tests::Stage;

fn count(transaction: &Value, key: &str) -> usize {
    transaction[key].as_array().map_or(0, Vec::len)
}

/// Clause: as.txn.queue, as.txn.order
#[actix_web::test]
async fn the_backlog_of_an_outage_is_sent_in_few_transactions_in_order() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    let before = irc.receiver.count();

    irc.receiver.at_once(Some(500));
    for n in 0..260 {
        let body = json!({"messages": {&bob.user_id: {"GHOST": {"n": n}}}});
        alice
            .put(&format!("/sendToDevice/m.example/{n}"), &body)
            .await
            .ok();
    }
    for _ in 0..6 {
        stage.advance(Duration::from_secs(400)).await;
    }
    irc.receiver.at_once(Some(200));
    stage.advance(Duration::from_secs(400)).await;

    let tries = irc.receiver.received();
    let failed: Vec<_> = tries[before..]
        .iter()
        .filter(|r| r.answered == 500)
        .collect();
    assert!(failed.len() >= 6, "{}", failed.len());
    assert!(
        failed
            .iter()
            .all(|r| r.path == failed[0].path && r.body == failed[0].body),
        "each retry is the same to the byte"
    );
    let taken = irc.receiver.taken(before);
    assert!(
        taken.len() <= 4,
        "{} transactions for 260 messages",
        taken.len()
    );
    let numbers: Vec<u64> = taken
        .iter()
        .flat_map(|t| {
            t["de.sorunome.msc2409.to_device"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        })
        .filter_map(|e| e["content"]["n"].as_u64())
        .collect();
    assert_eq!(
        numbers,
        (0..260).collect::<Vec<_>>(),
        "all of them, once, in order"
    );
    assert!(
        taken
            .iter()
            .all(|t| count(t, "de.sorunome.msc2409.to_device") <= 100)
    );
}

/// Clause: as.txn.unique-id
/// Clause: own.txn.same-bytes
#[actix_web::test]
async fn transaction_ids_grow_over_a_restart_and_what_was_frozen_is_sent_again() {
    let mut stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    let send = |txn: &'static str| json!({"messages": {&bob.user_id: {"GHOST": {"txn": txn}}}});
    alice
        .put("/sendToDevice/m.example/1", &send("1"))
        .await
        .ok();
    stage.quiet().await;
    irc.receiver.at_once(Some(500));
    alice
        .put("/sendToDevice/m.example/2", &send("2"))
        .await
        .ok();
    stage.quiet().await;

    stage.restart().await;
    let alice = stage.again(&alice);
    stage.advance(Duration::from_secs(400)).await;
    irc.receiver.at_once(Some(200));
    stage.advance(Duration::from_secs(400)).await;
    alice
        .put("/sendToDevice/m.example/3", &send("3"))
        .await
        .ok();
    stage.quiet().await;

    let received = irc.receiver.received();
    let second: Vec<_> = received
        .iter()
        .filter(|r| r.body.contains(r#""txn":"2""#))
        .collect();
    assert!(
        second.len() >= 2
            && second
                .iter()
                .all(|r| r.path == second[0].path && r.body == second[0].body)
    );
    let mut ids: Vec<u64> = received
        .iter()
        .filter(|r| r.path.contains("/transactions/"))
        .map(|r| r.id().parse().expect("digits only"))
        .collect();
    ids.dedup();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    let taken: Vec<_> = irc
        .receiver
        .taken(0)
        .into_iter()
        .flat_map(|t| {
            t["de.sorunome.msc2409.to_device"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        })
        .collect();
    let order: Vec<_> = taken.iter().map(|e| e["content"]["txn"].clone()).collect();
    assert_eq!(order, ["1", "2", "3"]);
}

/// Clause: as.ping.own
#[actix_web::test]
async fn a_ping_that_succeeds_ends_the_back_off() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    irc.receiver.at_once(Some(500));
    stage.step("the bridge is down").await;
    alice
        .put(
            "/sendToDevice/m.example/1",
            &json!({"messages": {&bob.user_id: {"GHOST": {}}}}),
        )
        .await
        .ok();
    for _ in 0..5 {
        stage.advance(Duration::from_secs(400)).await;
    }
    let before = irc.receiver.count();
    let ping = "/_matrix/client/v1/appservice/irc/ping";
    irc.bot
        .post(ping, &json!({"transaction_id": "p"}))
        .await
        .is_refused(502, "M_BAD_STATUS");
    irc.receiver.at_once(Some(200));
    let pong = irc
        .bot
        .post(ping, &json!({"transaction_id": "p"}))
        .await
        .ok();
    assert!(pong["duration_ms"].is_u64());
    stage.quiet().await;
    assert_eq!(
        irc.receiver.taken(before).len(),
        1,
        "it was sent although no time has passed"
    );
    alice
        .post(ping, &json!({}))
        .await
        .is_refused(403, "M_FORBIDDEN");
    irc.bot
        .post("/_matrix/client/v1/appservice/other/ping", &json!({}))
        .await
        .is_refused(403, "M_FORBIDDEN");
}

/// Clause: cs.to-device.order
#[actix_web::test]
async fn many_senders_to_many_users_of_one_bridge_lose_nothing() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let mut people = Vec::new();
    for n in 0..20 {
        let ghost = irc.ghost_with_device(&format!("g{n}"), "GHOST").await;
        people.push((stage.person(&format!("p{n}"), "D").await, ghost.user_id));
    }
    stage.quiet().await;
    let before = irc.receiver.count();
    let sending = people
        .iter()
        .enumerate()
        .map(|(who, (person, ghost))| async move {
            for n in 0..25 {
                let body = json!({"messages": {ghost: {"GHOST": {"who": who, "n": n}}}});
                person
                    .put(&format!("/sendToDevice/m.example/{n}"), &body)
                    .await
                    .ok();
            }
        });
    futures_util::future::join_all(sending).await;
    stage.quiet().await;
    let mut next = vec![0u64; people.len()];
    for transaction in irc.receiver.taken(before) {
        for event in transaction["de.sorunome.msc2409.to_device"]
            .as_array()
            .cloned()
            .unwrap_or_default()
        {
            let who =
                usize::try_from(event["content"]["who"].as_u64().expect("who")).expect("small");
            assert_eq!(
                event["content"]["n"].as_u64(),
                Some(next[who]),
                "in order, once, for each sender"
            );
            next[who] += 1;
        }
    }
    assert!(next.iter().all(|n| *n == 25), "{next:?}");
}

/// Clause: as.registration.url-null
#[actix_web::test]
async fn a_service_without_a_url_is_sent_nothing_and_nothing_piles_up() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let users = json!({"users": [{"exclusive": true, "regex": "@mute_.*"}]});
    let mute = stage
        .bridge_with("mute", json!({"url": null, "namespaces": users}))
        .await;
    let ghost = mute.ghost_with_device("a", "GHOST").await;
    alice
        .put(
            "/sendToDevice/m.example/1",
            &json!({"messages": {&ghost.user_id: {"GHOST": {"n": 1}}}}),
        )
        .await
        .ok();
    stage.quiet().await;
    assert_eq!(mute.receiver.count(), 0);
    let sync = ghost.get("/sync?timeout=0").await.ok();
    assert_eq!(
        sync["to_device"]["events"][0]["content"]["n"], 1,
        "the device's inbox is unchanged"
    );
    mute.bot
        .post("/_matrix/client/v1/appservice/mute/ping", &json!({}))
        .await
        .is_refused(400, "M_URL_NOT_SET");
}
