//! MSC4350: a ghost's device without keys names the bot's device, which signs for it.

use serde_json::{Value, json};
use tests::signing::Key;
use tests::{Bridge, Person, Stage};

const IMPERSONATOR: &str = "fi.mau.msc4350.impersonator";

/// The bot with a device whose keys are uploaded, and the device's signing key.
async fn bot(irc: &Bridge) -> (Person, Key) {
    irc.bot.put("/devices/BOT", &json!({})).await.ok();
    let bot = irc.bot.playing(&irc.bot.user_id, Some("BOT"));
    let key = Key::of_device(1, "BOT");
    let upload = json!({"device_keys": key.device_keys(&bot.user_id, "BOT")});
    bot.post("/keys/upload", &upload).await.ok();
    (bot, key)
}

/// The unsigned device keys of a ghost's device that names this device of the bot as its impersonator.
fn impersonatable(ghost: &Person, bot: &Person, key: &Key) -> Value {
    let mut named = key.device_keys(&bot.user_id, "BOT");
    named
        .as_object_mut()
        .expect("an object")
        .remove("signatures");
    json!({"user_id": ghost.user_id, "device_id": "GHOST", "algorithms": [], "keys": {}, "signatures": {}, IMPERSONATOR: named})
}

async fn device(reader: &Person, user: &str) -> Value {
    let query = json!({"device_keys": {user: []}});
    let known = reader.post("/keys/query", &query).await.ok();
    known["device_keys"][user]["GHOST"].clone()
}

/// Clause: as.impersonation.signature, as.impersonation.bytes
#[actix_web::test]
async fn everybody_sees_that_the_bot_signs_for_its_ghost() {
    let stage = Stage::with_mscs(&[4203, 3202, 4350]).await;
    let irc = stage.bridge("irc").await;
    let alice = stage.person("alice", "LAPTOP").await;
    let (bot, key) = bot(&irc).await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;

    stage
        .step("a ghost's device has no keys and names the bot's device, which has signed it")
        .await;
    let keys = key.signs(&bot.user_id, impersonatable(&bob, &bot, &key));
    let upload = json!({"device_keys": keys});
    bob.post("/keys/upload", &upload).await.ok();

    // No client can encrypt to the ghost's device, so the appservice is sent no one-time-key counts for it.
    stage.quiet().await;
    for transaction in irc.receiver.taken(0) {
        let counts = &transaction["org.matrix.msc3202.device_one_time_keys_count"];
        assert!(counts.get(&bob.user_id).is_none(), "{transaction}");
    }

    stage
        .step("a person who shares no room with either sees it, as it came")
        .await;
    assert_eq!(device(&alice, &bob.user_id).await, keys);
    stage
        .transcript("everybody_sees_that_the_bot_signs_for_its_ghost")
        .await;
}

/// Clause: as.impersonation.signature
#[actix_web::test]
async fn the_bot_may_sign_later() {
    let stage = Stage::with_mscs(&[4203, 3202, 4350]).await;
    let irc = stage.bridge("irc").await;
    let alice = stage.person("alice", "LAPTOP").await;
    let mallory = stage.person("mallory", "X").await;
    let (bot, key) = bot(&irc).await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    let unsigned = impersonatable(&bob, &bot, &key);
    bob.post("/keys/upload", &json!({"device_keys": unsigned}))
        .await
        .ok();
    assert_eq!(device(&alice, &bob.user_id).await["signatures"], json!({}));
    stage.quiet().await;
    let before = irc.receiver.count();

    // Only the named device may sign, with its own key, and only the stored device keys.
    let upload = |object: Value| json!({&bob.user_id: {"GHOST": object}});
    let signed = key.signs(&bot.user_id, unsigned.clone());
    let wrong_key = Key::of_device(9, "BOT").signs(&bot.user_id, unsigned.clone());
    let mut other = unsigned.clone();
    other["org.example.more"] = json!(1);
    let other = key.signs(&bot.user_id, other);
    let by_mallory = Key::of_device(1, "X").signs(&mallory.user_id, unsigned.clone());
    let cases = [
        (&bot, unsigned, "M_INVALID_SIGNATURE"),
        (&bot, wrong_key, "M_INVALID_SIGNATURE"),
        (&bot, other, "M_INVALID_SIGNATURE"),
        (&mallory, by_mallory, "M_NOT_FOUND"),
        (&mallory, signed.clone(), "M_NOT_FOUND"),
    ];
    for (who, object, errcode) in cases {
        let answer = who
            .post("/keys/signatures/upload", &upload(object))
            .await
            .ok();
        let why = &answer["failures"][&bob.user_id]["GHOST"]["errcode"];
        assert_eq!(why, errcode, "{answer}");
    }
    assert_eq!(device(&alice, &bob.user_id).await["signatures"], json!({}));

    let answer = bot
        .post("/keys/signatures/upload", &upload(signed.clone()))
        .await
        .ok();
    assert_eq!(answer["failures"], json!({}));
    let by_bot = signed["signatures"].clone();
    for reader in [&alice, &bob, &bot] {
        let shown = device(reader, &bob.user_id).await;
        assert_eq!(shown["signatures"], by_bot, "{} sees it", reader.name);
    }
    // The signature is a change of the ghost's keys.
    stage.quiet().await;
    let sent = irc.receiver.taken(before);
    let changed =
        &sent.last().expect("a transaction")["org.matrix.msc3202.device_lists"]["changed"];
    assert_eq!(changed, &json!([bob.user_id]));
}

/// Clause: as.impersonation.no-keys
#[actix_web::test]
async fn an_invalid_impersonation_is_refused_and_without_the_proposal_it_is_not_checked() {
    let stage = Stage::with_mscs(&[4203, 3202, 4350]).await;
    let irc = stage.bridge("irc").await;
    let (bot, key) = bot(&irc).await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    let fine = impersonatable(&bob, &bot, &key);
    let with = |at: &str, value: Value| {
        let mut keys = fine.clone();
        keys[at] = value;
        keys
    };
    let wrong = json!({&bot.user_id: {"ed25519:BOT": "c2lnbmVk"}});
    let cases = [
        (
            with("algorithms", json!(["m.megolm.v1.aes-sha2"])),
            "M_INVALID_PARAM",
        ),
        (
            with("keys", json!({"ed25519:GHOST": "k"})),
            "M_INVALID_PARAM",
        ),
        (with(IMPERSONATOR, json!({})), "M_BAD_JSON"),
        (with(IMPERSONATOR, json!("@ircbot:test")), "M_BAD_JSON"),
        (with("signatures", wrong), "M_INVALID_SIGNATURE"),
    ];
    for (keys, errcode) in &cases {
        let answer = bob
            .post("/keys/upload", &json!({"device_keys": keys}))
            .await;
        answer.is_refused(400, errcode);
    }
    assert_eq!(
        device(&bot, &bob.user_id).await,
        Value::Null,
        "nothing is stored"
    );

    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    for (keys, _) in &cases {
        bob.post("/keys/upload", &json!({"device_keys": keys}))
            .await
            .ok();
        assert_eq!(&device(&bob, &bob.user_id).await, keys);
    }
}
