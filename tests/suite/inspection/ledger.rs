//! The ledger of what each appservice was owed, and the lists of what waits.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Bridge, CryptoPerson, Person, Stage, TO_DEVICE};

/// The appservice, after checking that its ledger balances.
async fn balanced(alice: &Person) -> Value {
    let services = alice.aside().get("/_understudy/services").await.ok();
    let irc = services[0].clone();
    assert_eq!(irc["service"], "irc");
    for line in irc["ledger"].as_array().expect("lines") {
        let number = |name: &str| line[name].as_i64().expect("a number");
        let dropped = line["dropped"].as_object().expect("reasons").values();
        let dropped: i64 = dropped.filter_map(Value::as_i64).sum();
        assert_eq!(
            number("before") + number("owed"),
            number("delivered") + dropped + number("waiting"),
            "{line}"
        );
    }
    assert_eq!(irc["balanced"], true, "{irc}");
    irc
}

/// The line of this kind.
fn line<'a>(irc: &'a Value, kind: &str) -> &'a Value {
    let lines = irc["ledger"].as_array().expect("lines");
    let line = lines.iter().find(|line| line["kind"] == kind);
    line.unwrap_or_else(|| panic!("no {kind}: {irc}"))
}

async fn sends(alice: &Person, txn: &str, device: &str) {
    let body = json!({"messages": {"@irc_bob:test": {device: {"n": txn}}}});
    alice
        .put(&format!("/sendToDevice/m.x/{txn}"), &body)
        .await
        .ok();
}

async fn scene() -> (Stage, Person, Bridge) {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    (stage, alice, irc)
}

#[actix_web::test]
async fn what_was_owed_is_delivered_dropped_or_waits_through_failures_and_a_restart() {
    let (mut stage, mut alice, irc) = scene().await;
    stage.shared_room(&alice, &irc).await;
    sends(&alice, "t1", "GHOST").await;
    stage.quiet().await;
    let now = balanced(&alice).await;
    assert_eq!(line(&now, "to_device")["delivered"], 1);
    assert_eq!(line(&now, "event")["delivered"], 2, "{now}");
    assert_eq!(
        (&now["sender"], &now["frozen"]),
        (&json!("idle"), &Value::Null)
    );
    assert_eq!(now["attempts"][0]["outcome"], "200");

    // One message is in a frozen transaction that fails, and two wait behind it.
    irc.receiver.at_once(Some(500));
    sends(&alice, "t2", "GHOST").await;
    stage.quiet().await;
    for txn in ["t3", "t4"] {
        sends(&alice, txn, "GHOST").await;
    }
    stage.quiet().await;
    let now = balanced(&alice).await;
    let start = tests::stage::START;
    assert_eq!(
        (&now["sender"], &now["next_retry_at"]),
        (&json!("waiting"), &json!(start + 1_000))
    );
    assert_eq!(now["frozen"]["holds"], json!({"to_device": 1}));
    assert_eq!(now["frozen"]["frozen_at"], start);
    let last = now["attempts"]
        .as_array()
        .and_then(|all| all.last())
        .expect("an attempt");
    assert_eq!(
        (&last["outcome"], &last["transaction"]),
        (&json!("500"), &now["frozen"]["transaction"])
    );
    assert_eq!(
        now["owed"],
        json!([{"kind": "to_device", "count": 3, "oldest_at": start}])
    );

    // The device is deleted: what waits is dropped, what is frozen will be sent.
    irc.bot
        .playing("@irc_bob:test", None)
        .delete("/devices/GHOST")
        .await
        .ok();
    stage.quiet().await;
    let now = balanced(&alice).await;
    let of_messages = line(&now, "to_device").clone();
    assert_eq!(of_messages["dropped"], json!({"device deleted": 2}));
    assert_eq!(
        (&of_messages["waiting"], &of_messages["owed"]),
        (&json!(1), &json!(4))
    );

    // A device list that changes twice is sent once.
    for name in ["one", "two"] {
        let laptop = json!({"display_name": name});
        alice.put("/devices/LAPTOP", &laptop).await.ok();
        stage.quiet().await;
    }
    let now = balanced(&alice).await;
    let lists = line(&now, "device_list");
    assert_eq!(
        lists["dropped"],
        json!({"replaced by a newer one while it waited": 1}),
        "{lists}"
    );

    stage.restart().await;
    alice = stage.again(&alice);
    let now = balanced(&alice).await;
    assert_eq!(line(&now, "to_device")["before"], 1);
    assert_eq!(
        now["owed"][0]["oldest_at"],
        Value::Null,
        "it waited before the start"
    );
    irc.receiver.at_once(Some(200));
    stage.advance(Duration::from_secs(400)).await;
    let now = balanced(&alice).await;
    assert_eq!(line(&now, "to_device")["delivered"], 1);
    assert_eq!(now["owed"], json!([]));
    assert_eq!(irc.receiver.items(0, TO_DEVICE).len(), 2);

    // A count that is lost is noticed.
    let history = &stage.app().actors.env.history;
    let lost = schema::facts::Fact::Owed {
        service: "irc".to_owned(),
        kind: "event".to_owned(),
        items: 1,
    };
    history.committed(&"".into(), vec![lost], 0);
    let services = alice.aside().get("/_understudy/services").await.ok();
    assert_eq!(services[0]["balanced"], false);
}

#[actix_web::test]
async fn lists_show_what_waits_who_is_tracked_and_which_keys_are_left() {
    let (stage, alice, irc) = scene().await;
    let room = stage.shared_room(&alice, &irc).await;
    let bob = irc.bot.playing("@irc_bob:test", Some("GHOST"));
    let mut crypto = CryptoPerson::new(alice.aside()).await;
    // The answer says that there is no fallback key yet.
    crypto.sync("", 0).await;
    let body = json!({"messages": {"@alice:test": {"LAPTOP": {"n": 1}}}});
    bob.put("/sendToDevice/m.x/t", &body).await.ok();
    stage.quiet().await;
    let alice = alice.aside();
    let get = async |path: &str| alice.get(&format!("/_understudy/{path}")).await.ok();
    let inboxes = get("inboxes").await;
    let row = &inboxes["items"][0];
    assert_eq!(
        (&row["user"], &row["rows"], &row["oldest_at"]),
        (
            &json!("@alice:test"),
            &json!(1),
            &json!(tests::stage::START)
        )
    );
    assert_eq!(
        get("inboxes?after=@alice:test/LAPTOP").await["items"],
        json!([])
    );

    let tracked = get("tracked").await;
    let of_alice = tracked["items"]
        .as_array()
        .and_then(|all| all.iter().find(|row| row["user"] == "@alice:test"));
    assert_eq!(
        of_alice,
        Some(&json!({"service": "irc", "user": "@alice:test", "rooms": [room], "shared": 1}))
    );
    assert_eq!(get("tracked?after=irc/@zoe:test").await["items"], json!([]));

    let keys = get("keys").await;
    let of_alice = &keys["items"][0];
    assert_eq!(
        (&of_alice["user"], &of_alice["device"]),
        (&json!("@alice:test"), &json!("LAPTOP"))
    );
    assert!(
        of_alice["one_time"]["signed_curve25519"].as_i64() > Some(10),
        "{keys}"
    );
    assert_eq!(
        of_alice["fallback_used"],
        json!({"signed_curve25519": false})
    );

    let actors = get("actors").await;
    let inbox = actors["items"]
        .as_array()
        .and_then(|all| all.iter().find(|row| row["name"] == "to_device_inbox"));
    let inbox = inbox.expect("the actor");
    assert_eq!(
        (&inbox["mailbox"], &inbox["slowest"]),
        (&json!(0), &json!("Deposit"))
    );
    assert!(inbox["handled"].as_i64() >= Some(1) && inbox["slowest_micros"].as_i64() > Some(0));

    let pong = alice
        .post("/_understudy/appservices/irc/ping", &json!({}))
        .await
        .ok();
    assert_eq!(pong, json!({"duration_ms": 0}), "the clock stands still");
    irc.receiver.at_once(Some(401));
    alice
        .post("/_understudy/appservices/irc/ping", &json!({}))
        .await
        .is_refused(502, "M_BAD_STATUS");
    alice
        .post("/_understudy/appservices/xmpp/ping", &json!({}))
        .await
        .is_refused(404, "M_NOT_FOUND");
}
