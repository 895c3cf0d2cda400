//! The experiment that sends an appservice the account data of its own users in transactions, owed like everything else.

use std::time::Duration;

use serde_json::{Value, json};
use tests::person::segment;
use tests::{Bridge, Person, Stage};
use understudy::experiments;

const ACCOUNT_DATA: &str = "org.understudy.account_data";

async fn stage() -> Stage {
    Stage::with(&[3202, 4203], |options| {
        let proposals = &mut options.settings.proposals;
        experiments::switch_on(&["account_data"], &mut options.hooks, proposals)
            .expect("it is known");
    })
    .await
}

/// The bridge `irc`, which opts in to account data, with the exclusive namespace `@irc_.*` and the shared one `@open_.*`.
async fn bridge(stage: &Stage) -> Bridge {
    let users =
        json!([{"exclusive": true, "regex": "@irc_.*"}, {"exclusive": false, "regex": "@open_.*"}]);
    let keys = json!({ACCOUNT_DATA: true, "namespaces": {"users": users}});
    stage.bridge_with("irc", keys).await
}

async fn put_account_data(person: &Person, room: Option<&str>, kind: &str, content: Value) {
    let room = room.map_or(String::new(), |room| format!("/rooms/{}", segment(room)));
    let path = format!("/user/{}{room}/account_data/{kind}", person.user_id);
    person.put(&path, &content).await.ok();
}

/// The account data in the bridge's transactions after the first `skip`: user, type, and the `n` of the content.
fn sent_account_data(bridge: &Bridge, skip: usize) -> Vec<(String, String, Value)> {
    let all = bridge.receiver.taken(skip);
    let entries = all
        .iter()
        .flat_map(|t| t[ACCOUNT_DATA].as_array().cloned().unwrap_or_default());
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    entries
        .map(|p| {
            (
                text(&p["user_id"]),
                text(&p["type"]),
                p["content"]["n"].clone(),
            )
        })
        .collect()
}

fn entry(user: &str, kind: &str, n: u64) -> (String, String, Value) {
    (user.to_owned(), kind.to_owned(), n.into())
}

#[actix_web::test]
async fn a_service_is_told_the_account_data_of_its_own_users() {
    let stage = stage().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let open = stage.person("open_carol", "LAPTOP").await;
    let irc = bridge(&stage).await;
    let ghost = irc.ghost("bob").await;
    let bot = irc.bot.clone();
    let made = ghost.post("/createRoom", &json!({})).await.ok();
    let room = made["room_id"].as_str().expect("a room").to_owned();
    stage.quiet().await;
    let before = irc.receiver.count();

    stage
        .step("the ghost keeps something, for all and for a room")
        .await;
    put_account_data(&ghost, None, "org.example.note", json!({"n": 1})).await;
    stage.quiet().await;
    put_account_data(&ghost, Some(&room), "org.example.note", json!({"n": 2})).await;
    stage
        .step("a tag and the bot's own are account data too")
        .await;
    let tag = format!(
        "/user/{}/rooms/{}/tags/u.work",
        ghost.user_id,
        segment(&room)
    );
    ghost.put(&tag, &json!({"order": 0.5})).await.ok();
    stage.quiet().await;
    put_account_data(&bot, None, "org.example.note", json!({"n": 3})).await;
    stage
        .step("a person's is not, nor that of a user whom the service shares")
        .await;
    put_account_data(&alice, None, "org.example.note", json!({"n": 4})).await;
    put_account_data(&open, None, "org.example.note", json!({"n": 5})).await;
    stage.quiet().await;
    assert_eq!(
        sent_account_data(&irc, before),
        [
            entry("@irc_bob:test", "org.example.note", 1),
            entry("@irc_bob:test", "org.example.note", 2),
            ("@irc_bob:test".into(), "m.tag".into(), Value::Null),
            entry("@ircbot:test", "org.example.note", 3),
        ]
    );
    stage
        .transcript("a_service_is_told_the_account_data_of_its_own_users")
        .await;
}

#[actix_web::test]
async fn account_data_that_the_server_writes_is_sent_and_that_of_a_deactivated_user_is_not() {
    let stage = stage().await;
    let irc = bridge(&stage).await;
    let ghost = irc.ghost("bob").await;
    let made = ghost.post("/createRoom", &json!({})).await.ok();
    let room = segment(made["room_id"].as_str().expect("a room"));
    let said = ghost
        .put(&format!("/rooms/{room}/send/m.room.message/1"), &json!({}))
        .await
        .ok();
    stage.quiet().await;
    let before = irc.receiver.count();
    let marker = json!({"m.fully_read": said["event_id"]});
    let path = format!("/rooms/{room}/read_markers");
    ghost.post(&path, &marker).await.ok();
    stage.quiet().await;
    let rule = "/pushrules/global/override/.m.rule.master/enabled";
    ghost.put(rule, &json!({"enabled": true})).await.ok();
    stage.quiet().await;
    let kinds: Vec<_> = sent_account_data(&irc, before)
        .into_iter()
        .map(|(_, t, _)| t)
        .collect();
    assert_eq!(kinds, ["m.fully_read", "m.push_rules"]);

    irc.receiver.at_once(None);
    put_account_data(&irc.bot, None, "org.example.note", json!({"n": 1})).await;
    stage.quiet().await;
    put_account_data(&ghost, None, "org.example.note", json!({"n": 2})).await;
    ghost.post("/account/deactivate", &json!({})).await.ok();
    stage.quiet().await;
    let before = irc.receiver.count();
    irc.receiver.at_once(Some(200));
    irc.answers(200).await;
    stage.quiet().await;
    assert_eq!(
        sent_account_data(&irc, before),
        [entry("@ircbot:test", "org.example.note", 1)]
    );
}

#[actix_web::test]
async fn account_data_waits_for_a_service_that_is_down_and_is_told_once() {
    let mut stage = stage().await;
    let irc = bridge(&stage).await;
    let ghost = irc.ghost("bob").await;
    stage.quiet().await;
    let before = irc.receiver.count();
    irc.receiver.at_once(Some(503));
    stage
        .step("the bridge is down, and what it was to be told is frozen")
        .await;
    put_account_data(&ghost, None, "org.example.note", json!({"n": 1})).await;
    stage
        .step("the same piece changes twice, another once")
        .await;
    put_account_data(&ghost, None, "org.example.note", json!({"n": 2})).await;
    put_account_data(&ghost, None, "org.example.other", json!({"n": 3})).await;
    put_account_data(&ghost, None, "org.example.note", json!({"n": 4})).await;
    stage
        .step("the server starts anew, and the bridge is back")
        .await;
    irc.receiver.at_once(Some(200));
    stage.restart().await;
    assert_eq!(
        sent_account_data(&irc, before),
        [
            entry("@irc_bob:test", "org.example.note", 1),
            entry("@irc_bob:test", "org.example.other", 3),
            entry("@irc_bob:test", "org.example.note", 4),
        ],
        "the frozen one first, the same to the byte; then the last of each"
    );
    stage
        .transcript("account_data_waits_for_a_service_that_is_down_and_is_told_once")
        .await;
    // Acknowledged account data is not sent again.
    let count = irc.receiver.count();
    stage.restart().await;
    assert_eq!(irc.receiver.count(), count);
}

#[actix_web::test]
async fn more_account_data_than_fits_goes_in_slices_in_order() {
    let stage = stage().await;
    let irc = bridge(&stage).await;
    let ghost = irc.ghost("bob").await.aside();
    irc.receiver.at_once(None);
    put_account_data(&ghost, None, "org.example.first", json!({"n": 0})).await;
    stage.quiet().await;
    let large = "x".repeat(60_000);
    for n in 1..=120 {
        let content = if n <= 20 {
            json!({"n": n, "large": large})
        } else {
            json!({"n": n})
        };
        put_account_data(&ghost, None, &format!("org.example.{n}"), content).await;
    }
    stage.quiet().await;
    let before = irc.receiver.count();
    irc.receiver.at_once(Some(200));
    irc.answers(200).await;
    stage.quiet().await;
    let slices: Vec<usize> = irc.receiver.taken(before)[1..]
        .iter()
        .map(|t| t[ACCOUNT_DATA].as_array().map_or(0, Vec::len))
        .collect();
    assert_eq!(
        slices,
        [17, 100, 3],
        "one megabyte, then a hundred entries, then the rest"
    );
    let numbers: Vec<_> = sent_account_data(&irc, before)
        .into_iter()
        .map(|(.., n)| n)
        .collect();
    assert_eq!(numbers, (0..=120).map(Value::from).collect::<Vec<_>>());
}

#[actix_web::test]
async fn account_data_is_sent_only_with_the_opt_in_and_the_experiment() {
    let stage = stage().await;
    let xmpp = stage.bridge("xmpp").await;
    let ghost = xmpp.ghost("bob").await;
    let without = Stage::new().await;
    let irc = bridge(&without).await;
    let other = irc.ghost("bob").await;
    for (stage, bridge, person) in [(&stage, &xmpp, &ghost), (&without, &irc, &other)] {
        stage.quiet().await;
        let before = bridge.receiver.count();
        put_account_data(person, None, "org.example.note", json!({"n": 1})).await;
        stage.quiet().await;
        assert_eq!(bridge.receiver.count(), before);
    }
}

#[actix_web::test]
async fn account_data_of_a_user_that_leaves_the_namespace_is_not_sent() {
    let stage = stage().await;
    let irc = bridge(&stage).await;
    let (bob, cat) = (irc.ghost("bob").await, irc.ghost("cat").await);
    stage.quiet().await;
    let before = irc.receiver.count();
    irc.receiver.at_once(Some(503));
    put_account_data(&irc.bot, None, "org.example.note", json!({"n": 1})).await;
    stage.quiet().await;
    put_account_data(&bob, None, "org.example.note", json!({"n": 2})).await;
    put_account_data(&cat, None, "org.example.note", json!({"n": 3})).await;
    // The namespace shrinks while both wait, and no longer contains cat.
    let file = stage.registration_file("irc");
    let text = std::fs::read_to_string(&file).expect("a file");
    let text = text.replace("@irc_.*", "@irc_bob.*");
    std::fs::write(&file, text).expect("written");
    irc.receiver.at_once(Some(200));
    assert!(stage.reload().await.problems.is_empty());
    stage.advance(Duration::from_secs(10)).await;
    assert_eq!(
        sent_account_data(&irc, before),
        [
            entry("@ircbot:test", "org.example.note", 1),
            entry("@irc_bob:test", "org.example.note", 2),
        ]
    );
}

#[actix_web::test]
async fn removing_a_file_keeps_account_data_and_forgetting_the_service_deletes_it() {
    let stage = stage().await;
    let irc = bridge(&stage).await;
    let bob = irc.ghost("bob").await;
    stage.quiet().await;
    let before = irc.receiver.count();
    irc.receiver.at_once(Some(503));
    for n in 1..3 {
        put_account_data(&bob, None, &format!("org.example.{n}"), json!({"n": n})).await;
        stage.quiet().await;
    }
    let file = stage.registration_file("irc");
    let registration = std::fs::read_to_string(&file).expect("a file");
    let registration: Value = serde_json::from_str(&registration).expect("JSON");
    std::fs::remove_file(&file).expect("removed");
    stage.reload().await;
    irc.receiver.at_once(Some(200));
    stage.register("irc", &registration).await;
    stage.quiet().await;
    let expected = [1, 2].map(|n| entry("@irc_bob:test", &format!("org.example.{n}"), n));
    assert_eq!(
        sent_account_data(&irc, before),
        expected,
        "the service comes back and is sent what was kept"
    );

    irc.receiver.at_once(Some(503));
    put_account_data(&bob, None, "org.example.3", json!({"n": 3})).await;
    stage.quiet().await;
    std::fs::remove_file(&file).expect("removed");
    stage.reload().await;
    let store = stage.app().actors.env.store.clone();
    let forgotten = store.write_always(|tx| schema::appservices::forget(tx, &"irc".into()));
    assert!(forgotten.await.expect("a write"));
    let before = irc.receiver.count();
    irc.receiver.at_once(Some(200));
    stage.register("irc", &registration).await;
    stage.quiet().await;
    assert!(
        sent_account_data(&irc, before).is_empty(),
        "after it was forgotten, nothing is kept"
    );
}

#[actix_web::test]
async fn refused_account_data_is_not_sent() {
    let stage = stage().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = bridge(&stage).await;
    let ghost = irc.ghost("bob").await;
    stage.quiet().await;
    let before = irc.receiver.count();
    let of = |kind: &str| format!("/user/{}/account_data/{kind}", ghost.user_id);
    let note = of("org.example.note");
    alice
        .put(&note, &json!({}))
        .await
        .is_refused(403, "M_FORBIDDEN");
    ghost
        .put(&of("m.push_rules"), &json!({}))
        .await
        .is_refused(405, "M_BAD_JSON");
    ghost
        .put(&of("m.fully_read"), &json!({}))
        .await
        .is_refused(405, "M_BAD_JSON");
    ghost
        .put(&note, &json!([]))
        .await
        .is_refused(400, "M_BAD_JSON");
    let large = json!({"large": "x".repeat(65_536)});
    ghost
        .put(&note, &large)
        .await
        .is_refused(413, "M_TOO_LARGE");
    ghost
        .put(&of(&"x".repeat(256)), &json!({}))
        .await
        .is_refused(413, "M_TOO_LARGE");
    stage.quiet().await;
    assert_eq!(irc.receiver.count(), before);
    // The opt-in in the registration must be a boolean.
    let mut registration: Value = serde_json::from_str(
        &std::fs::read_to_string(stage.registration_file("irc")).expect("a file"),
    )
    .expect("JSON");
    registration[ACCOUNT_DATA] = "perhaps".into();
    std::fs::write(stage.registration_file("irc"), registration.to_string()).expect("written");
    let loaded = stage.reload().await;
    assert_eq!(loaded.problems.len(), 1);
    assert!(
        !loaded.services.is_empty(),
        "the last good version is in force"
    );
}
