//! An appservice that is registered late, changes its registration, or comes back, is sent what it missed.

use std::cell::Cell;
use std::time::{Duration, Instant};

use actors::appservices::Reload;
use actors::ask;
use schema::accounts::{self, UserRow};
use schema::inbox::InboxRow;
use schema::memberships::{self, MembershipRow};
use schema::sessions::{self, DeviceCreator};
use schema::{Tx, back_fill, device_log, inbox};
use serde_json::{Value, json};
use tests::bridge::{pause, until};
use tests::{Stage, TO_DEVICE, numbers};

use crate::authority::change_registration;
use crate::to_device::inbox_of;

fn exclusive(patterns: &[&str]) -> Value {
    let users: Vec<_> = patterns
        .iter()
        .map(|regex| json!({"exclusive": true, "regex": regex}))
        .collect();
    json!({"namespaces": {"users": users}})
}

/// Clause: own.late.back-fill
#[actix_web::test]
async fn a_service_added_late_gets_what_waits_and_whom_to_track() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    // A user's account that will be in the appservice's exclusive namespace.
    let ghost = stage.person("irc_bob", "GHOST").await;
    alice.aside().gathers(&[&ghost.aside()]).await;
    stage
        .step("nobody is there for the message but its inbox")
        .await;
    alice
        .sends_to_device("1", "@irc_bob:test", "*", json!({"n": 1}))
        .await;
    stage.step("the service is registered: it gets what waits, and whom to track as if it had just joined the room").await;
    let irc = stage.bridge("irc").await;
    stage.step("what comes now is decided when it comes").await;
    alice
        .sends_to_device("2", "@irc_bob:test", "*", json!({"n": 2}))
        .await;
    stage.quiet().await;
    assert_eq!(numbers(&irc.receiver.items(0, TO_DEVICE)), [1, 2]);
    assert_eq!(irc.receiver.device_lists(0, "changed"), ["@alice:test"]);
    assert!(
        inbox_of(&ghost).await.is_empty(),
        "the service's acknowledgement counts as the device's"
    );
    stage
        .transcript("a_service_added_late_gets_what_waits_and_whom_to_track")
        .await;
}

#[actix_web::test]
async fn a_service_that_only_observes_begins_with_the_next_message() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    stage.person("bob", "PHONE").await;
    alice
        .sends_to_device("1", "@bob:test", "PHONE", json!({"n": 1}))
        .await;
    let anybody = json!({"namespaces": {"users": [{"exclusive": false, "regex": "@.*"}]}});
    let mirror = stage.bridge_with("mirror", anybody).await;
    alice
        .sends_to_device("2", "@bob:test", "PHONE", json!({"n": 2}))
        .await;
    stage.quiet().await;
    assert_eq!(numbers(&mirror.receiver.items(0, TO_DEVICE)), [2]);
}

/// Clause: own.late.back-fill
#[actix_web::test]
async fn older_messages_come_before_newer_ones_however_many_wait() {
    const WAITING: i64 = 1_300;
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    stage.person("irc_bob", "GHOST").await;
    let store = stage.app().actors.env.store.clone();
    let waiting = store.write(|tx| {
        for n in 0..WAITING {
            let row = message(tx, "@irc_bob:test", n);
            inbox::append(tx, vec![row]);
        }
        Ok::<_, schema::Error>(())
    });
    waiting.await.expect("written");
    // The back-fill takes many pages, and the next message arrives while they are written.
    let irc = stage.bridge("irc").await;
    alice
        .sends_to_device("new", "@irc_bob:test", "GHOST", json!({"n": WAITING}))
        .await;
    stage.quiet().await;
    let all: Vec<i64> = (0..=WAITING).collect();
    assert_eq!(numbers(&irc.receiver.items(0, TO_DEVICE)), all);
}

#[actix_web::test]
async fn a_namespace_that_grows_and_shrinks_is_counted_again() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let carol = stage.person("carol", "PHONE").await;
    let bob = stage.person("irc_bob", "GHOST").await;
    let eve = stage.person("xmpp_eve", "GHOST").await;
    let with_bob = alice.gathers(&[&bob]).await;
    let with_eve = carol.gathers(&[&eve]).await;
    let irc = stage.bridge_with("irc", exclusive(&["@irc_.*"])).await;
    stage.quiet().await;
    alice
        .sends_to_device("1", "@xmpp_eve:test", "GHOST", json!({"n": 1}))
        .await;
    let before = irc.receiver.count();

    change_registration(&stage, &irc, &exclusive(&["@irc_.*", "@xmpp_.*"])).await;
    stage.quiet().await;
    assert_eq!(
        numbers(&irc.receiver.items(0, TO_DEVICE)),
        [1],
        "messages for users that are new in the namespace are back-filled"
    );
    let changed = irc.receiver.device_lists(before, "changed");
    assert_eq!(
        changed,
        ["@carol:test"],
        "users that it tracks already are not sent again"
    );

    let before = irc.receiver.count();
    irc.receiver.at_once(None);
    alice
        .sends_to_device("2", "@xmpp_eve:test", "GHOST", json!({"n": 2}))
        .await;
    stage.quiet().await;
    change_registration(&stage, &irc, &exclusive(&["@irc_.*"])).await;
    alice
        .sends_to_device("3", "@xmpp_eve:test", "GHOST", json!({"n": 3}))
        .await;
    irc.receiver.at_once(Some(200));
    irc.answers(200).await;
    stage.quiet().await;
    assert_eq!(
        numbers(&irc.receiver.items(0, TO_DEVICE)),
        [1, 2],
        "earlier messages are still sent, later ones to users outside the namespace are not"
    );
    let left = irc.receiver.device_lists(before, "left");
    assert_eq!(
        left,
        ["@carol:test"],
        "none of the service's users is in carol's room any more"
    );
    assert!(irc.receiver.device_lists(before, "changed").is_empty());

    let before = irc.receiver.count();
    let say = |room: &str, n: u8| format!("/rooms/{room}/send/m.room.message/{n}");
    let text = json!({"msgtype": "m.text", "body": "hello"});
    carol.put(&say(&with_eve, 1), &text).await.ok();
    alice.put(&say(&with_bob, 2), &text).await.ok();
    stage.quiet().await;
    let events: Vec<_> = irc.receiver.taken(before);
    let senders: Vec<_> = events
        .iter()
        .flat_map(|t| t["events"].as_array().cloned().unwrap_or_default())
        .map(|e| e["sender"].clone())
        .collect();
    assert_eq!(senders, ["@alice:test"]);
}

#[actix_web::test]
async fn a_service_that_comes_back_is_sent_again_which_users_to_track() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let carol = stage.person("carol", "PHONE").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost("bob").await;
    alice.gathers(&[&bob]).await;
    let lost = carol.gathers(&[&bob]).await;
    stage.quiet().await;
    let file = stage.registration_file("irc");
    let text = std::fs::read_to_string(&file).expect("a file");
    std::fs::remove_file(&file).expect("removed");
    stage.reload().await;
    // Changes of both users while the appservice is not registered.
    carol
        .post(&format!("/rooms/{lost}/leave"), &json!({}))
        .await
        .ok();
    stage.log_in("alice", "PHONE").await;
    let before = irc.receiver.count();
    stage
        .register("irc", &serde_json::from_str(&text).expect("JSON"))
        .await;
    stage.quiet().await;
    assert_eq!(
        irc.receiver.device_lists(before, "changed"),
        ["@alice:test"]
    );
    assert_eq!(irc.receiver.device_lists(before, "left"), ["@carol:test"]);
}

/// Clause: own.late.back-fill
#[actix_web::test]
async fn a_restarted_server_continues_its_back_fill() {
    let mut stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    stage.person("irc_bob", "GHOST").await;
    let irc = stage.bridge("irc").await;
    let xmpp = stage.bridge("xmpp").await;
    xmpp.ghost_with_device("eve", "GHOST").await;
    stage.quiet().await;
    // The state after a crash: the registration is in force, and its row says that the back-fill has not begun.
    irc.receiver.at_once(Some(500));
    let store = stage.app().actors.env.store.clone();
    let crashed = store.write(|tx| {
        for n in 0..700 {
            let row = message(tx, "@irc_bob:test", n);
            inbox::append(tx, vec![row]);
        }
        back_fill::begin(tx, &"irc".into(), false, None)
    });
    crashed.await.expect("written");
    alice
        .sends_to_device("new", "@irc_bob:test", "GHOST", json!({"n": 700}))
        .await;
    alice
        .sends_to_device("other", "@xmpp_eve:test", "GHOST", json!({"n": 1}))
        .await;
    stage.quiet().await;
    assert!(
        irc.receiver.items(0, TO_DEVICE).is_empty(),
        "nothing newer is sent before the back-fill"
    );
    assert_eq!(
        numbers(&xmpp.receiver.items(0, TO_DEVICE)),
        [1],
        "no other service waits for the back-fill"
    );
    irc.receiver.at_once(Some(200));
    stage.restart().await;
    stage.quiet().await;
    let all: Vec<i64> = (0..=700).collect();
    assert_eq!(numbers(&irc.receiver.items(0, TO_DEVICE)), all);
}

fn message(tx: &mut Tx<'_>, user: &str, n: i64) -> InboxRow {
    InboxRow {
        position: tx.next_position().0,
        user_id: user.to_owned(),
        device_id: "GHOST".to_owned(),
        sender: "@alice:test".to_owned(),
        kind: "m.example".to_owned(),
        content: json!({"n": n, "ciphertext": "c".repeat(400)}).to_string(),
        ..InboxRow::default()
    }
}

/// Fill a database with users of a namespace, rooms that each shares with one other user, and messages that wait for them.
async fn fill(stage: &Stage, users: usize, rooms_each: usize, messages_each: usize) {
    const PIECE: usize = 500;
    let store = &stage.app().actors.env.store;
    for start in (0..users).step_by(PIECE) {
        let piece = store.write_always(move |tx| {
            for i in start..users.min(start + PIECE) {
                let (ghost, person) = (format!("@irc_{i}:test"), format!("@p{i}:test"));
                accounts::register(tx, &UserRow::new(&ghost, 0))?;
                accounts::register(tx, &UserRow::new(&person, 0))?;
                sessions::ensure_device(tx, &ghost, "GHOST", None, &DeviceCreator::Person)?;
                joins(tx, &person, &format!("!{i}:test"))?;
                for n in 0..rooms_each {
                    joins(tx, &ghost, &format!("!{}:test", (i + n) % users))?;
                }
                for n in 0..messages_each {
                    let row = message(tx, &ghost, i64::try_from(n).unwrap_or(0));
                    inbox::append(tx, vec![row]);
                }
            }
            // These events are from before the test, so no appservice is sent them.
            let head = tx.head();
            device_log::set_cursor(tx, head)
        });
        piece.await.expect("written");
    }
}

fn joins(tx: &mut Tx<'_>, user: &str, room: &str) -> schema::Result<()> {
    let event = tx.next_position();
    let row = MembershipRow {
        room_id: room.to_owned(),
        user_id: user.to_owned(),
        membership: "join".to_owned(),
        position: event.0,
        event_id: format!("$e{}", event.0),
        sender: user.to_owned(),
        display_name: None,
        avatar_url: None,
        left_at: 0,
        forgotten_at: 0,
    };
    memberships::put(tx, &row)?;
    device_log::membership_changed(tx, room, user, &[].into(), ("", "join"), event).map(drop)
}

/// Prints the measurements in the book: `cargo nextest run -p understudy-tests adding_a_service --run-ignored all --no-capture`.
#[actix_web::test]
#[ignore = "a measurement"]
async fn adding_a_service_with_ten_thousand_users_blocks_no_other_write() {
    let stage = Stage::new().await;
    fill(&stage, 10_000, 10, 10).await;
    let env = stage.app().actors.env.clone();
    let irc = tests::bridge::Receiver::start("irc", "h", None, tests::transcript::Log::default());
    let registration = json!({"id": "irc", "url": irc.url, "as_token": "a", "hs_token": "h",
        "sender_localpart": "ircbot", "org.matrix.msc3202": true, "receive_ephemeral": true,
        "namespaces": {"users": [{"exclusive": true, "regex": "@irc_.*"}]}});
    let running = Cell::new(true);
    // Meanwhile, a client writes one value after another.
    let others = async {
        let mut waited = Vec::new();
        while running.get() {
            let begun = Instant::now();
            let write = env.store.write(|tx| {
                schema::scratch::put(tx, &schema::scratch::ScratchRow::new(1, "n", "1"))
            });
            write.await.expect("a write");
            waited.push(begun.elapsed());
            pause().await;
        }
        waited.sort();
        waited
    };
    let begun = Instant::now();
    let adding = async {
        std::fs::write(stage.registration_file("irc"), registration.to_string()).expect("written");
        let loaded = ask(&stage.app().actors.appservices, Reload)
            .await
            .expect("it can be read");
        assert!(loaded.problems.is_empty());
        let in_force = begun.elapsed();
        let mut stages = String::new();
        loop {
            let left = env
                .store
                .read(|db| back_fill::get(db, &"irc".into()))
                .await
                .expect("rows");
            let Some(left) = left else { break };
            let stage = format!("{:?}", left.stage);
            let stage = stage.split('(').next().unwrap_or_default();
            if !stages.ends_with(stage) {
                stages = stage.to_owned();
                println!("{stage} begins after {:?}", begun.elapsed());
            }
            pause().await;
        }
        let given = begun.elapsed();
        until("the first transaction", || irc.count() > 0).await;
        running.set(false);
        (in_force, given)
    };
    let (waited, (in_force, given)) = futures_util::join!(others, adding);
    let worst = waited.last().copied().unwrap_or(Duration::ZERO);
    println!(
        "in force after {in_force:?}, everything given after {given:?}; {} other writes meanwhile, median {:?}, 99 % {:?}, longest {worst:?}",
        waited.len(),
        waited[waited.len() / 2],
        waited[waited.len() * 99 / 100],
    );
    assert!(given < Duration::from_secs(60) && worst < Duration::from_secs(2));
}
