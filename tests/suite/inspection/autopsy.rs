//! Why a device cannot decrypt an event, with real Olm.

use serde_json::{Value, json};
use tests::person::segment;
use tests::{Bridge, CryptoBot, CryptoPerson, Stage};

use crate::counts::claim;

struct Scene {
    stage: Stage,
    irc: Bridge,
    alice: CryptoPerson,
    dave: CryptoPerson,
    bot: CryptoBot,
    room: String,
}

impl Scene {
    /// Alice, dave and a bridge with an encrypted bot are in an encrypted room.
    async fn new() -> Scene {
        let stage = Stage::new().await;
        let irc = stage.bridge("irc").await;
        let alice = CryptoPerson::new(stage.person("alice", "LAPTOP").await).await;
        let dave = CryptoPerson::new(stage.person("dave", "PHONE").await).await;
        let bot = CryptoBot::new(&irc.bot, "BOT").await;
        let body = json!({
            "preset": "private_chat", "invite": ["@ircbot:test", "@dave:test"],
            "initial_state": [{"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}],
        });
        let room = alice.crypto.person.creates(body).await;
        irc.bot.joins(&room).await;
        dave.crypto.person.joins(&room).await;
        stage.quiet().await;
        Scene {
            stage,
            irc,
            alice,
            dave,
            bot,
            room,
        }
    }

    /// Alice encrypts a text for these users. Returns the id of the event.
    async fn says(&self, users: &[&str]) -> String {
        let users: Vec<String> = users.iter().map(|user| (*user).to_owned()).collect();
        let event = self.alice.crypto.say(&self.room, &users, "hello").await;
        self.stage.quiet().await;
        event
    }

    async fn autopsy(&self, event: &str, of: &str) -> Value {
        let path = format!("/_understudy/autopsy?event={}&{of}", segment(event));
        self.alice.crypto.person.aside().get(&path).await.ok()
    }

    /// What is found of the only device.
    async fn finding(&self, event: &str, of: &str) -> Value {
        let autopsy = self.autopsy(event, of).await;
        let devices = autopsy["devices"].as_array().expect("devices");
        assert_eq!(devices.len(), 1, "{autopsy}");
        devices[0].clone()
    }
}

fn missing(finding: &Value) -> &str {
    finding["missing"].as_str().unwrap_or_default()
}

#[actix_web::test]
async fn a_room_key_that_arrived_is_said_to_be_the_clients_matter_and_a_fallback_key_is_named() {
    let scene = Scene::new().await;
    let carol = scene.stage.person("carol", "TABLET").await;
    // The bot learns that it has no fallback key yet, and uploads one.
    for transaction in scene.irc.receiver.taken(0) {
        scene.bot.take(&transaction).await;
    }
    // Another user claims all one-time keys, so alice gets the fallback key.
    for n in 0.. {
        let key = claim(&carol, "@ircbot:test", "BOT").await;
        assert!(key.is_object() && n < 200, "{key}");
        if key.to_string().contains("\"fallback\":true") {
            break;
        }
    }
    let event = scene.says(&["@alice:test", "@ircbot:test"]).await;
    let autopsy = scene.autopsy(&event, "user=@ircbot:test").await;
    assert_eq!(
        (&autopsy["sender"], &autopsy["sender_device"]),
        (&json!("@alice:test"), &json!("LAPTOP"))
    );
    let session = autopsy["session"].as_str().expect("a session").to_owned();
    let found = &autopsy["devices"][0];
    assert_eq!(
        found["claims"].as_array().map(Vec::len),
        Some(1),
        "carol's are left out: {found}"
    );
    assert_eq!(
        (&found["claims"][0]["got"], &found["claims"][0]["by"]),
        (&json!("fallback key"), &json!("@alice:test"))
    );
    assert!(
        found["steps"][0]["says"]
            .as_str()
            .unwrap_or_default()
            .contains("got its fallback key"),
        "{found}"
    );
    assert_eq!(found["verdict"], "delivered", "{found}");
    assert!(
        missing(found)
            .starts_with("Nothing is missing at the server: irc acknowledged it in transaction"),
        "{found}"
    );
    let message = &found["messages"][0];
    assert_eq!(
        (
            &message["acknowledged"],
            &message["decided_by"],
            &message["attempts"]
        ),
        (&json!(true), &json!("irc"), &json!(1))
    );

    let path = format!(
        "/_understudy/autopsy?session={}&user=@ircbot:test",
        segment(&session)
    );
    let by_session = scene.alice.crypto.person.aside().get(&path).await.ok();
    assert_eq!(by_session["event"], event.as_str(), "{by_session}");
}

#[actix_web::test]
async fn a_room_key_that_was_never_sent_is_said_to_be_missing() {
    let scene = Scene::new().await;
    let event = scene.says(&["@alice:test", "@ircbot:test"]).await;
    let found = scene.finding(&event, "user=@dave:test").await;
    assert_eq!(
        (&found["verdict"], &found["known_keys"]),
        (&json!("never sent"), &json!(true)),
        "{found}"
    );
    assert_eq!(
        (&found["claims"], &found["messages"]),
        (&json!([]), &json!([]))
    );
    assert!(
        missing(&found).starts_with("@alice:test never sent PHONE an encrypted message"),
        "{found}"
    );
    let none = scene.finding(&event, "user=@dave:test&device=NONE").await;
    assert_eq!(none["verdict"], "no such device", "{none}");
    let nothing = "/_understudy/autopsy?event=$nothing&user=@dave:test";
    scene
        .alice
        .crypto
        .person
        .aside()
        .get(nothing)
        .await
        .is_refused(404, "M_NOT_FOUND");
}

#[actix_web::test]
async fn a_room_key_that_was_sent_and_not_acknowledged_is_found_where_it_waits() {
    let mut scene = Scene::new().await;
    scene.irc.receiver.at_once(Some(503));
    let event = scene
        .says(&["@alice:test", "@ircbot:test", "@dave:test"])
        .await;
    let found = scene.finding(&event, "user=@ircbot:test").await;
    assert_eq!(found["verdict"], "sent and not acknowledged", "{found}");
    let message = &found["messages"][0];
    assert_eq!(
        (&message["acknowledged"], &message["type"]),
        (&json!(false), &json!("m.room.encrypted")),
        "{found}"
    );
    assert!(
        missing(&found).contains("which irc has not acknowledged: ")
            || missing(&found).contains("waits behind transaction"),
        "{found}"
    );
    assert!(missing(&found).contains("2025-01-01 00:00:0"), "{found}");

    let found = scene.finding(&event, "user=@dave:test").await;
    assert_eq!(found["verdict"], "sent and not acknowledged", "{found}");
    assert!(
        missing(&found).contains("waits in the inbox: PHONE has not acknowledged it with /sync"),
        "{found}"
    );
    let room = scene.room.clone();
    for _ in 0..2 {
        scene.dave.sync(&room, 0).await;
    }
    scene.stage.quiet().await;
    let found = scene.finding(&event, "user=@dave:test").await;
    assert_eq!(found["verdict"], "delivered", "{found}");
    assert!(
        missing(&found).contains("PHONE has taken it with /sync"),
        "{found}"
    );
}

#[actix_web::test]
async fn a_device_that_was_created_after_the_event_is_said_to_be() {
    let scene = Scene::new().await;
    let event = scene.says(&["@alice:test", "@ircbot:test"]).await;
    let early = json!({"messages": {"@ircbot:test": {"BOT2": {"ciphertext": {}}}}});
    let alice = &scene.alice.crypto.person;
    alice
        .put("/sendToDevice/m.room.encrypted/early", &early)
        .await
        .ok();
    CryptoBot::new(&scene.irc.bot, "BOT2").await;
    scene.stage.quiet().await;
    let found = scene.finding(&event, "user=@ircbot:test&device=BOT2").await;
    assert_eq!(found["verdict"], "device created later", "{found}");
    assert!(
        missing(&found)
            .starts_with("BOT2 was created after the event was sent (2025-01-01 00:00:00 UTC)"),
        "{found}"
    );
    let first = found["steps"][0]["says"].as_str().unwrap_or_default();
    assert!(
        first.contains("@alice:test sent a message to BOT2 before it existed"),
        "{found}"
    );
    let devices = scene.autopsy(&event, "user=@ircbot:test").await;
    assert_eq!(devices["devices"].as_array().map(Vec::len), Some(2));
}
