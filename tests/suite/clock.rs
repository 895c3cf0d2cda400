//! Durations do not depend on the wall clock, which operators and time servers set back and forth.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Person, Stage};

const HOUR: i64 = 3_600_000;

/// Move the wall clock by this number of milliseconds.
fn step(stage: &Stage, by: i64) {
    let clock = &stage.app().actors.env.clock;
    clock.set_wall(clock.now() + by);
}

async fn typing(person: &Person, room: &str) -> Value {
    let sync = person.get("/sync?timeout=0").await.ok();
    let events = sync["rooms"]["join"][room]["ephemeral"]["events"].clone();
    let events = events.as_array().cloned().unwrap_or_default();
    let typing = events.into_iter().find(|e| e["type"] == "m.typing");
    typing.map_or(json!([]), |e| e["content"]["user_ids"].clone())
}

/// Clause: cs.sync.typing
#[actix_web::test]
async fn typing_ends_in_time_whatever_the_wall_clock_says() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let made = alice.post("/createRoom", &json!({})).await.ok();
    let room = made["room_id"].as_str().expect("a room").to_owned();
    let path = format!(
        "/rooms/{}/typing/@alice:test",
        tests::person::segment(&room)
    );
    for by in [-HOUR, HOUR] {
        let types = json!({"typing": true, "timeout": 30_000});
        alice.put(&path, &types).await.ok();
        step(&stage, by);
        stage.advance(Duration::from_secs(29)).await;
        assert_eq!(typing(&alice, &room).await, json!(["@alice:test"]), "{by}");
        stage.advance(Duration::from_secs(1)).await;
        assert_eq!(typing(&alice, &room).await, json!([]), "{by}");
    }
}

#[actix_web::test]
async fn a_back_off_and_its_retry_wait_for_time_to_pass() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    irc.receiver.at_once(Some(500));
    let before = irc.receiver.count();
    let body = json!({"messages": {&bob.user_id: {"GHOST": {"n": 1}}}});
    alice.put("/sendToDevice/m.example/1", &body).await.ok();
    stage.quiet().await;
    for by in [HOUR, -2 * HOUR] {
        step(&stage, by);
        stage.quiet().await;
    }
    assert_eq!(irc.receiver.count() - before, 1, "no time has passed");
    irc.receiver.at_once(Some(200));
    stage.advance(Duration::from_secs(1)).await;
    assert_eq!(irc.receiver.taken(before).len(), 1);
    let mut ids: Vec<i64> = irc.receiver.received()[before..]
        .iter()
        .map(|r| r.id().parse().expect("a number"))
        .collect();
    // The next id is later than the last one, although the wall clock says an earlier time.
    alice.put("/sendToDevice/m.example/2", &body).await.ok();
    stage.quiet().await;
    ids.push(
        irc.receiver
            .received()
            .last()
            .expect("one")
            .id()
            .parse()
            .expect("a number"),
    );
    ids.dedup();
    assert!(ids.len() == 2 && ids[0] < ids[1], "{ids:?}");
}

#[actix_web::test]
async fn rate_limits_and_remembered_answers_do_not_depend_on_the_wall_clock() {
    let stage = Stage::with(&understudy::mscs::by_default(), |options| {
        options.door.rate_limit = Some(understudy::http::limits::RateLimit {
            per_second: 1.0,
            burst: 20.0,
        });
    })
    .await;
    let alice = stage.person("alice", "LAPTOP").await;
    let asks = async || {
        let online = json!({"presence": "online"});
        alice
            .put("/presence/@alice:test/status", &online)
            .await
            .status
    };
    while asks().await == 200 {}
    step(&stage, HOUR);
    assert_eq!(
        asks().await,
        429,
        "moving the clock forward changes nothing"
    );
    step(&stage, -2 * HOUR);
    stage.advance(Duration::from_secs(5)).await;
    assert_eq!(
        asks().await,
        200,
        "the clock moved back, and five seconds have passed"
    );
}

#[actix_web::test]
async fn last_active_ago_does_not_depend_on_the_wall_clock() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let online = json!({"presence": "online"});
    let path = "/presence/@alice:test/status";
    alice.put(path, &online).await.ok();
    stage.advance(Duration::from_secs(7)).await;
    for by in [-HOUR, 2 * HOUR] {
        step(&stage, by);
        assert_eq!(alice.get(path).await.ok()["last_active_ago"], 7_000, "{by}");
    }
}
