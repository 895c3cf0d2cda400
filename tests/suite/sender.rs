//! What a sender does with unrelated lines of the device-list log, rows that cannot be sent, and appservices that hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use schema::ServiceId;
use schema::faults::{Fault, Faults, Point};
use schema::inbox::{self, InboxRow};
use schema::owed::{self, Owed};
use schema::{Tx, device_log};
use serde_json::{Value, json};
use tests::{Person, Stage, TO_DEVICE, numbers};

use crate::authority::change_registration;
use crate::to_device::inbox_of;
use actors::hooks::ProposalHooks;
use actors::services::CarriesInterests;

const PING: &str = "/_matrix/client/v1/appservice/irc/ping";

/// The state of an appservice's sender, from the development routes.
async fn view(person: &Person, service: &str) -> Value {
    let all = person.aside().get("/_understudy/appservices").await.ok();
    let all = all.as_array().cloned().unwrap_or_default();
    let of = all.into_iter().find(|view| view["service"] == service);
    of.expect("the service is registered")
}

/// Store a message to irc's ghost that irc is owed, without checking the content.
fn store_message(tx: &mut Tx<'_>, content: &str) -> schema::Result<()> {
    let position = tx.next_position();
    let row = InboxRow {
        position: position.0,
        user_id: "@irc_bob:test".to_owned(),
        device_id: "GHOST".to_owned(),
        sender: "@alice:test".to_owned(),
        kind: "m.example".to_owned(),
        content: content.to_owned(),
        decided_by: "irc".to_owned(),
        ..InboxRow::default()
    };
    inbox::append(tx, vec![row]);
    let interests = tx.interests();
    let irc = interests.service(&"irc".into()).expect("in force");
    owed::owe(tx, &irc.owed(position, owed::TO_DEVICE))
}

/// Clause: as.txn.no-interest
#[actix_web::test]
async fn joins_that_do_not_concern_a_service_cause_it_no_work() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    for id in ["a", "b", "c"] {
        stage.bridge(id).await;
    }
    let made = alice
        .post("/createRoom", &json!({"preset": "public_chat"}))
        .await
        .ok();
    let room = tests::person::segment(made["room_id"].as_str().expect("a room"));
    stage.quiet().await;
    let gathered = async || {
        let mut all = Vec::new();
        for id in ["irc", "a", "b", "c"] {
            all.push(
                view(&alice, id).await["gathered"]
                    .as_u64()
                    .expect("a number"),
            );
        }
        all
    };
    let before = gathered().await;
    let joins = async {
        for _ in 0..20 {
            for way in ["join", "leave"] {
                bob.post(&format!("/rooms/{room}/{way}"), &json!({}))
                    .await
                    .ok();
            }
        }
    };
    let messages = async {
        for n in 0..20 {
            alice.sends_number("@irc_bob:test", "GHOST", n).await;
        }
    };
    tokio::join!(joins, messages);
    stage.quiet().await;
    let after = gathered().await;
    assert_eq!(
        after[1..],
        before[1..],
        "the joins cause no work for the other services"
    );
    assert!(after[0] - before[0] <= 20, "{before:?} {after:?}");
    assert_eq!(
        numbers(&irc.receiver.items(0, TO_DEVICE)),
        (0..20).collect::<Vec<_>>()
    );
}

/// Clause: as.lists.no-stranger
#[actix_web::test]
async fn log_lines_about_unrelated_users_delay_nothing() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    let before = view(&alice, "irc").await["gathered"].as_u64();
    let store = stage.app().actors.env.store.clone();
    let write = store.write(|tx| {
        for n in 0..100 {
            device_log::keys_changed(tx, &format!("@stranger{n}:test"))?;
            device_log::private_keys_changed(tx, &format!("@stranger{n}:test"), "@other:test")?;
        }
        store_message(tx, r#"{"n":1}"#)
    });
    write.await.expect("written");
    stage
        .app()
        .actors
        .env
        .wake
        .services([&ServiceId::from("irc")], None);
    stage.quiet().await;
    assert_eq!(numbers(&irc.receiver.items(0, TO_DEVICE)), [1]);
    let after = view(&alice, "irc").await["gathered"].as_u64();
    assert_eq!(
        after,
        before.map(|n| n + 1),
        "the sender looked once for something to send"
    );
}

/// Clause: own.txn.damaged-row
#[actix_web::test]
async fn a_row_that_cannot_be_sent_is_set_aside_and_later_ones_are_sent() {
    let mut stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    irc.receiver.at_once(None);
    stage
        .step("a transaction is on its way, and behind it are rows that cannot be sent")
        .await;
    alice.sends_number("@irc_bob:test", "GHOST", 1).await;
    stage.quiet().await;
    let store = stage.app().actors.env.store.clone();
    let write = store.write(|tx| {
        store_message(tx, r#"{"n":"#)?;
        let gone = tx.next_position();
        owed::owe(tx, &Owed::new(&"irc".into(), gone, owed::EVENT))
    });
    write.await.expect("written");
    alice.sends_number("@irc_bob:test", "GHOST", 2).await;
    stage
        .step("it is acknowledged, and the next one carries the rest")
        .await;
    irc.answers(200).await;
    irc.answers(200).await;
    stage.quiet().await;
    assert_eq!(numbers(&irc.receiver.items(0, TO_DEVICE)), [1, 2]);
    let said = view(&alice, "irc").await;
    assert_eq!(
        (&said["state"], &said["acknowledged"]),
        (&json!("idle"), &json!(3))
    );
    assert_eq!(said["set_aside"]["count"], 2, "{said}");
    let oldest = said["set_aside"]["oldest"].as_array().expect("a list");
    assert_eq!(
        (&oldest[0]["kind"], &oldest[1]["kind"]),
        (&json!("to_device"), &json!("event"))
    );
    assert!(
        oldest[0]["why"]
            .as_str()
            .is_some_and(|why| why.contains("EOF")),
        "{said}"
    );
    assert!(
        inbox_of(&irc.bot.playing("@irc_bob:test", Some("GHOST")))
            .await
            .is_empty()
    );

    stage
        .step("the next start tries them again, and goes on as before")
        .await;
    irc.receiver.at_once(Some(200));
    stage.restart().await;
    let alice = stage.again(&alice);
    alice.sends_number("@irc_bob:test", "GHOST", 3).await;
    stage.quiet().await;
    assert_eq!(numbers(&irc.receiver.items(0, TO_DEVICE)), [1, 2, 3]);
    assert_eq!(view(&alice, "irc").await["set_aside"]["count"], 2);
}

/// Clause: own.txn.damaged-row
#[actix_web::test]
async fn a_panic_while_composing_stops_neither_the_acknowledgement_nor_later_deliveries() {
    let stage = Stage::with(&understudy::mscs::by_default(), |options| {
        options.hooks.all.push(ProposalHooks {
            transaction: |pending, _| {
                let is_bad = |m: &actors::wire::ToDeviceEvent| m.content.get().contains("poison");
                assert!(!pending.to_device.iter().any(is_bad), "poison is not taken");
            },
            ..ProposalHooks::NONE
        });
    })
    .await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    irc.receiver.at_once(None);
    alice.sends_number("@irc_bob:test", "GHOST", 1).await;
    stage.quiet().await;
    alice.sends_number("@irc_bob:test", "GHOST", 2).await;
    let poison = json!({"poison": true});
    alice
        .sends_to_device("p", "@irc_bob:test", "GHOST", poison)
        .await;
    alice.sends_number("@irc_bob:test", "GHOST", 3).await;
    irc.receiver.at_once(Some(200));
    irc.answers(200).await;
    stage.quiet().await;
    assert_eq!(numbers(&irc.receiver.items(0, TO_DEVICE)), [1, 2, 3]);
    let said = view(&alice, "irc").await;
    assert_eq!(said["set_aside"]["count"], 1, "{said}");
    let why = &said["set_aside"]["oldest"][0]["why"];
    assert!(
        why.as_str()
            .is_some_and(|why| why.contains("poison is not taken")),
        "{why}"
    );
}

#[actix_web::test]
async fn an_acknowledgement_is_recorded_alone_when_freezing_the_next_transaction_fails() {
    let fails = Arc::new(AtomicBool::new(false));
    let armed = Arc::clone(&fails);
    let mut stage = Stage::with(&understudy::mscs::by_default(), |options| {
        options.faults = Faults::chosen_by(move |point| {
            let is_it = matches!(point, Point::Job) && armed.swap(false, Ordering::Relaxed);
            if is_it { Fault::Refuse } else { Fault::None }
        });
    })
    .await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    irc.receiver.at_once(None);
    alice.sends_number("@irc_bob:test", "GHOST", 1).await;
    stage.quiet().await;
    alice.sends_number("@irc_bob:test", "GHOST", 2).await;
    stage.quiet().await;
    // The write that acknowledges and freezes the next transaction fails. The one that only acknowledges succeeds.
    fails.store(true, Ordering::Relaxed);
    irc.answers(200).await;
    irc.answers(200).await;
    stage.quiet().await;
    let ids: Vec<_> = irc
        .receiver
        .received()
        .iter()
        .map(|r| r.path.clone())
        .collect();
    stage.restart().await;
    assert_eq!(
        numbers(&irc.receiver.items(0, TO_DEVICE)),
        [1, 2],
        "{ids:?}"
    );
}

#[actix_web::test]
async fn what_was_observed_and_delivered_is_not_copied_again_when_the_namespace_becomes_exclusive()
{
    let shared = json!({"namespaces": {"users": [{"exclusive": false, "regex": "@irc_.*"}]}});
    let exclusive = json!({"namespaces": {"users": [{"exclusive": true, "regex": "@irc_.*"}]}});
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("irc_bob", "GHOST").await;
    let irc = stage.bridge_with("irc", shared.clone()).await;
    stage.quiet().await;
    alice.sends_number("@irc_bob:test", "GHOST", 1).await;
    stage.quiet().await;
    assert_eq!(
        numbers(&irc.receiver.items(0, TO_DEVICE)),
        [1],
        "delivered to a service that only observes"
    );
    irc.receiver.at_once(None);
    alice.sends_number("@irc_bob:test", "GHOST", 2).await;
    stage.quiet().await;
    alice.sends_number("@irc_bob:test", "GHOST", 3).await;
    change_registration(&stage, &irc, &exclusive).await;
    stage.quiet().await;
    irc.receiver.at_once(Some(200));
    irc.answers(200).await;
    stage.quiet().await;
    assert_eq!(
        numbers(&irc.receiver.items(0, TO_DEVICE)),
        [1, 2, 3],
        "each exactly once"
    );
    // Once more, back and forth.
    change_registration(&stage, &irc, &shared).await;
    change_registration(&stage, &irc, &exclusive).await;
    stage.quiet().await;
    assert_eq!(numbers(&irc.receiver.items(0, TO_DEVICE)), [1, 2, 3]);
    assert_eq!(
        numbers(&inbox_of(&bob).await),
        [1, 2, 3],
        "the device has not read them"
    );
    let path = "/_understudy/explain?user=@irc_bob:test&device=GHOST";
    let said = alice.aside().get(path).await.ok();
    assert_eq!(said["copies"]["count"], 0, "nothing is owed: {said}");
}

/// Clause: as.ping.timeout
#[actix_web::test]
async fn pings_to_a_service_that_hangs_time_out_and_are_limited() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    stage.quiet().await;
    irc.receiver.at_once(None);
    let ping = async || irc.bot.post(PING, &json!({})).await;
    let (a, b, c, d, ()) = tokio::join!(ping(), ping(), ping(), ping(), async {
        irc.receiver.holds_requests(4).await;
        stage.quiet().await;
        assert_eq!(
            stage.app().inside(),
            0,
            "a ping that waits does not count against the request limit"
        );
        ping().await.is_refused(429, "M_LIMIT_EXCEEDED");
        stage.advance(Duration::from_secs(20)).await;
    });
    for hung in [a, b, c, d] {
        hung.is_refused(504, "M_CONNECTION_TIMEOUT");
    }
    irc.receiver.at_once(Some(200));
    ping().await.ok();
    let _closed = irc.receiver.stop().await;
    ping().await.is_refused(502, "M_CONNECTION_FAILED");
}

/// Clause: as.txn.retry
#[actix_web::test]
async fn a_transaction_to_a_service_that_hangs_is_tried_again() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    irc.receiver.at_once(None);
    alice.sends_number("@irc_bob:test", "GHOST", 1).await;
    irc.receiver.holds_requests(1).await;
    irc.receiver.at_once(Some(200));
    stage.advance(Duration::from_secs(60)).await;
    stage.advance(Duration::from_secs(1)).await;
    stage.quiet().await;
    assert_eq!(numbers(&irc.receiver.items(0, TO_DEVICE)), [1]);
    let said = view(&alice, "irc").await;
    assert_eq!(said["state"], "idle", "{said}");
}
