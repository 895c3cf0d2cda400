//! Aliases that an appservice creates, with their rooms, while it is queried about them.

use serde_json::json;
use tests::{Bridge, Stage};

/// A bridge with the alias namespace `#irc_.*`.
async fn with_aliases(stage: &Stage) -> Bridge {
    let users = json!([{"exclusive": true, "regex": "@irc_.*"}]);
    let aliases = json!([{"exclusive": true, "regex": "#irc_.*"}]);
    let namespaces = json!({"users": users, "aliases": aliases});
    stage
        .bridge_with("irc", json!({"namespaces": namespaces}))
        .await
}

/// Clause: as.query.alias
#[actix_web::test]
async fn a_service_makes_a_room_when_its_alias_is_looked_up() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = with_aliases(&stage).await;
    stage
        .step(
            "Alice looks up an alias that names nothing; the service that has it reserved is asked",
        )
        .await;
    let look_up = "/directory/room/%23irc_rust:test";
    let (found, room) = tokio::join!(alice.get(look_up), async {
        let question = irc.is_asked().await;
        assert_eq!(question.path, "/_matrix/app/v1/rooms/%23irc_rust:test");
        stage
            .step("while it is asked the service creates a room with that alias")
            .await;
        let create = json!({"room_alias_name": "irc_rust", "preset": "public_chat"});
        let room = irc.bot.post("/createRoom", &create).await.ok();
        stage.step("and Alice's request finds it").await;
        question.answers(200, &json!({}));
        room
    });
    assert_eq!(found.ok()["room_id"], room["room_id"]);
    stage
        .transcript("a_service_makes_a_room_when_its_alias_is_looked_up")
        .await;
    alice.aside().get(look_up).await.ok();
    assert_eq!(
        irc.receiver.questions().len(),
        1,
        "the alias exists now, so there is no second query"
    );
}

/// Clause: as.query.waits
#[actix_web::test]
async fn a_room_is_joined_by_an_alias_that_its_service_creates_meanwhile() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = with_aliases(&stage).await;
    let empty = json!({});
    let join = alice.post("/join/%23irc_rust:test", &empty);
    let (joined, room) = tokio::join!(join, async {
        let question = irc.is_asked().await;
        let create = json!({"room_alias_name": "irc_rust", "preset": "public_chat"});
        let room = irc.bot.post("/createRoom", &create).await.ok();
        question.answers(200, &json!({}));
        room
    });
    assert_eq!(joined.ok()["room_id"], room["room_id"]);
}

/// Clause: as.query.alias
#[actix_web::test]
async fn an_alias_that_no_service_creates_is_not_found() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = with_aliases(&stage).await;
    let nothing = [
        ("/directory/room/%23irc_rust:test", 1),
        ("/directory/room/%23irc_rust:test", 1),
        ("/directory/room/%23irc_c%2f%23:test", 2),
        ("/directory/room/%23other:test", 2),
        ("/directory/room/%23irc_rust:elsewhere", 2),
    ];
    for (look_up, asked) in nothing {
        alice.get(look_up).await.is_refused(404, "M_NOT_FOUND");
        assert_eq!(irc.receiver.questions().len(), asked, "{look_up}");
    }
    let join = alice.post("/join/%23irc_rust:test", &json!({})).await;
    join.is_refused(404, "M_NOT_FOUND");
    let knock = alice.post("/knock/%23irc_knock:test", &json!({})).await;
    knock.is_refused(404, "M_NOT_FOUND");
    alice
        .get("/directory/room/irc_rust")
        .await
        .is_refused(400, "M_INVALID_PARAM");
    // The appservice is not queried for its own requests.
    let itself = irc.bot.get("/directory/room/%23irc_own:test").await;
    itself.is_refused(404, "M_NOT_FOUND");
    let expected = [
        "%23irc_rust:test",
        "%23irc_c%2F%23:test",
        "%23irc_knock:test",
    ];
    let expected = expected.map(|alias| format!("/_matrix/app/v1/rooms/{alias}"));
    assert_eq!(irc.receiver.questions(), expected);
}
