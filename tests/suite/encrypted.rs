//! Real Olm and Megolm on both sides. There is no transcript, because the keys are random.

use std::time::Duration;

use serde_json::{Value, json};
use tests::person::segment;
use tests::{CryptoBot, CryptoPerson, Stage};

fn encrypted(events: &[Value]) -> Vec<&Value> {
    events
        .iter()
        .filter(|e| e["type"] == "m.room.encrypted")
        .collect()
}

/// Clause: as.to-device.before-event
#[actix_web::test]
async fn a_bot_fed_by_transactions_alone_talks_in_an_encrypted_room() {
    let mut stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let mut alice = CryptoPerson::new(stage.person("alice", "LAPTOP").await).await;
    let mut bot = CryptoBot::new(&irc.bot, "BOT").await;
    let body = json!({
        "preset": "private_chat", "invite": ["@ircbot:test"],
        "initial_state": [{"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}],
    });
    let made = alice.crypto.person.post("/createRoom", &body).await.ok();
    let room = made["room_id"].as_str().expect("a room").to_owned();
    irc.bot
        .post(&format!("/rooms/{}/join", segment(&room)), &json!({}))
        .await
        .ok();
    let members = ["@alice:test".to_owned(), "@ircbot:test".to_owned()];
    alice.sync(&room, 0).await;

    let mut fed = 0;
    let mut read_by_bot = Vec::new();
    let mut read_by_alice = Vec::new();
    for n in 0..4 {
        if n == 2 {
            // The conversation must survive a failure of the bridge and a restart of the server.
            irc.receiver.at_once(Some(500));
        }
        alice
            .crypto
            .say(&room, &members, &format!("alice {n}"))
            .await;
        stage.quiet().await;
        if n == 2 {
            stage.restart().await;
            alice.move_to(&stage.base());
            bot.move_to(&stage.base());
            irc.receiver.at_once(Some(200));
            stage.advance(Duration::from_secs(400)).await;
        }
        let taken = irc.receiver.taken(0);
        for transaction in &taken[fed..] {
            let events = bot.take(transaction).await;
            for event in encrypted(&events)
                .into_iter()
                .filter(|e| e["sender"] == "@alice:test")
            {
                read_by_bot.push(
                    bot.crypto
                        .read(&room, event)
                        .await
                        .expect("the bot can decrypt"),
                );
            }
        }
        fed = taken.len();
        bot.crypto.say(&room, &members, &format!("bot {n}")).await;
        stage.quiet().await;
        let events = alice.sync(&room, 0).await;
        for event in encrypted(&events)
            .into_iter()
            .filter(|e| e["sender"] == "@ircbot:test")
        {
            read_by_alice.push(
                alice
                    .crypto
                    .read(&room, event)
                    .await
                    .expect("alice can decrypt"),
            );
        }
    }
    assert_eq!(read_by_bot, ["alice 0", "alice 1", "alice 2", "alice 3"]);
    assert_eq!(read_by_alice, ["bot 0", "bot 1", "bot 2", "bot 3"]);
}
