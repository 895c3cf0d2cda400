//! A bot that is slower than its senders: what waits is sent together in one transaction, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::person::segment;
use tests::{Bridge, Person, Stage};

/// The keys of a transaction that carry events and to-device messages.
const KINDS: [&str; 2] = ["events", "de.sorunome.msc2409.to_device"];

/// A bot with a device, and users that each share a room with it.
async fn busy_bot(stage: &Stage, people: &[&str]) -> (Bridge, Vec<(Person, String)>) {
    let irc = stage.bridge("irc").await;
    irc.bot.put("/devices/BOT", &json!({})).await.ok();
    let mut all = Vec::new();
    for name in people {
        let person = stage.person(name, "LAPTOP").await;
        let body = json!({"preset": "public_chat"});
        let made = person.post("/createRoom", &body).await.ok();
        let room = segment(made["room_id"].as_str().expect("a room"));
        irc.bot
            .post(&format!("/rooms/{room}/join"), &json!({}))
            .await
            .ok();
        stage.quiet().await;
        all.push((person, room));
    }
    (irc, all)
}

/// Send a to-device message to the bot's device.
async fn message(bot: &Person, (who, _): &(Person, String), n: usize) {
    let content = json!({"who": who.user_id, "n": n});
    let messages = json!({"messages": {&bot.user_id: {"BOT": content}}});
    who.put(&format!("/sendToDevice/m.example/{n}"), &messages)
        .await
        .ok();
}

/// Send a to-device message to the bot's device and an event to the room.
async fn both(bot: &Person, one: &(Person, String), n: usize) {
    message(bot, one, n).await;
    let (who, room) = one;
    let content = json!({"who": who.user_id, "n": n});
    who.put(&format!("/rooms/{room}/send/m.example/{n}"), &content)
        .await
        .ok();
}

/// The numbers in the transactions that the bot has acknowledged, by kind and sender, in order.
fn taken(irc: &Bridge, skip: usize) -> BTreeMap<(&'static str, String), Vec<u64>> {
    let mut all: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for transaction in irc.receiver.taken(skip) {
        for kind in KINDS {
            for item in transaction[kind].as_array().into_iter().flatten() {
                let Value::String(who) = &item["content"]["who"] else {
                    continue;
                };
                let numbers = all.entry((kind, who.clone())).or_default();
                numbers.extend(item["content"]["n"].as_u64());
            }
        }
    }
    all
}

/// Clause: as.txn.order, as.txn.one-at-a-time
#[actix_web::test]
async fn what_comes_while_a_busy_bot_answers_rides_together_in_order() {
    let stage = Stage::new().await;
    let (irc, people) = busy_bot(&stage, &["alice", "carol"]).await;
    irc.receiver.at_once(None);
    stage.step("a message, and the bot takes its time").await;
    message(&irc.bot, &people[0], 1).await;
    stage
        .step("what comes meanwhile waits: one transaction is in flight, ever")
        .await;
    both(&irc.bot, &people[1], 1).await;
    both(&irc.bot, &people[0], 2).await;
    stage
        .step("the bot answers, and all of it rides in the next one")
        .await;
    irc.answers(200).await;
    irc.answers(200).await;
    stage.quiet().await;
    stage
        .transcript("what_comes_while_a_busy_bot_answers_rides_together_in_order")
        .await;
}

/// The bot answers once per round of twenty messages, so the backlog grows. Sometimes it fails, and is sent the same again.
/// Clause: as.txn.acknowledged-once
#[actix_web::test]
async fn a_bot_that_is_slower_than_its_senders_loses_nothing_and_hears_nothing_twice() {
    const ROUNDS: usize = 50;
    let stage = Stage::new().await;
    let names: Vec<String> = (0..10).map(|n| format!("p{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (irc, people) = busy_bot(&stage, &names).await;
    let before = irc.receiver.count();
    irc.receiver.at_once(None);
    for n in 0..ROUNDS {
        join_all(people.iter().map(|one| both(&irc.bot, one, n))).await;
        irc.answers(if n % 16 == 7 { 500 } else { 200 }).await;
        if n % 16 == 7 {
            stage.advance(Duration::from_secs(400)).await;
        }
    }
    let everything = 2 * ROUNDS * people.len();
    let mut rest = 0;
    while taken(&irc, before).values().map(Vec::len).sum::<usize>() < everything {
        irc.answers(200).await;
        stage.quiet().await;
        rest += 1;
    }

    let all = taken(&irc, before);
    assert_eq!(all.len(), 2 * people.len(), "each kind from each sender");
    for (of, numbers) in all {
        let expected: Vec<u64> = (0..).take(ROUNDS).collect();
        assert_eq!(numbers, expected, "{of:?}: all of them, once, in order");
    }
    for transaction in irc.receiver.taken(before) {
        for kind in KINDS {
            let carried = transaction[kind].as_array().map_or(0, Vec::len);
            assert!(carried <= 100, "{carried} {kind} in one transaction");
        }
    }
    assert!(rest <= 12, "the backlog was sent in {rest} transactions");
    let count = irc.receiver.count();
    stage.advance(Duration::from_secs(400)).await;
    assert_eq!(
        irc.receiver.count(),
        count,
        "nothing is sent after the backlog"
    );
}
