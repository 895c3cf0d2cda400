//! Device lists: which users are in `changed` and in `left`, and when.

use std::time::Duration;

use serde_json::{Value, json};
use tests::signing::Key;
use tests::{Bridge, Person, Stage};

const LISTS: &str = "org.matrix.msc3202.device_lists";

/// The lists that contained a user, in order.
fn lists_of(bridge: &Bridge, skip: usize, user: &str) -> Vec<&'static str> {
    let mut lists = Vec::new();
    for transaction in bridge.receiver.taken(skip) {
        for list in ["changed", "left"] {
            let named = transaction[LISTS][list]
                .as_array()
                .is_some_and(|all| all.iter().any(|u| u == user));
            lists.extend(named.then_some(list));
        }
    }
    lists
}

#[actix_web::test]
async fn who_left_is_said_under_a_second_name_to_who_reads_that() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let hook = json!({"org.understudy.left_as_removed": true});
    let hook = stage.bridge_with("hook", hook).await;
    let shared = alice
        .invites_to_a_room(&["@ircbot:test", "@hookbot:test"])
        .await;
    for bot in [&irc.bot, &hook.bot] {
        // One after the other, so that the number of transactions is the same in each run.
        stage.quiet().await;
        bot.joins(&shared).await;
    }
    stage
        .step("alice leaves both bots: one of them reads `removed` where the proposal says `left`")
        .await;
    alice.leaves(&shared).await;
    stage
        .transcript("who_left_is_said_under_a_second_name_to_who_reads_that")
        .await;
    let last =
        |bridge: &Bridge| bridge.receiver.taken(0).pop().expect("a transaction")[LISTS].clone();
    assert_eq!(last(&irc), json!({"left": ["@alice:test"]}));
    let both = json!({"left": ["@alice:test"], "removed": ["@alice:test"]});
    assert_eq!(last(&hook), both);
    let all = hook.receiver.taken(0);
    let early = |t: &Value| t[LISTS]["changed"].is_array() && !t[LISTS]["removed"].is_null();
    assert!(
        !all.iter().any(early),
        "`removed` must not contain a user that has not left"
    );
}

/// Clause: as.txn.interest-user, as.lists.changed-on-meeting, as.lists.left, as.lists.left-not-before, as.lists.name
/// Clause: own.lists.with-the-leave
#[actix_web::test]
async fn leaving_the_last_shared_room() {
    let stage = Stage::with_mscs(&[3202]).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;

    stage.step("alice invites the bot into a room").await;
    let first = alice.invites_to_a_room(&["@ircbot:test"]).await;
    stage.step("the bot joins: alice is to be tracked").await;
    irc.bot.joins(&first).await;
    stage.step("they meet in a second room").await;
    let second = alice.invites_to_a_room(&["@ircbot:test"]).await;
    stage.step("which changes nothing for their devices").await;
    irc.bot.joins(&second).await;
    stage
        .step("alice leaves one of the two: still shared")
        .await;
    alice.leaves(&first).await;
    stage
        .step("alice leaves the other: the leave and its `left` travel together")
        .await;
    alice.leaves(&second).await;
    stage.quiet().await;

    assert_eq!(lists_of(&irc, 0, "@alice:test"), ["changed", "left"]);
    let last = irc.receiver.taken(0).pop().expect("a transaction");
    assert_eq!(last[LISTS]["left"], json!(["@alice:test"]));
    assert_eq!(last["events"][0]["content"]["membership"], "leave");
    stage.transcript("leaving_the_last_shared_room").await;
}

/// Clause: as.lists.changed-on-meeting, as.lists.left
#[actix_web::test]
async fn kick_and_ban_are_leaves_and_coming_back_is_a_change() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let room_id = irc.bot.invites_to_a_room(&[]).await;
    stage
        .step("the bot invites alice: keys may be sent to her from now on")
        .await;
    irc.bot.invites(&room_id, "@alice:test").await;
    stage
        .step("she joins, which changes nothing for her devices")
        .await;
    alice.joins(&room_id).await;
    stage.step("she is kicked").await;
    irc.bot
        .does(&room_id, "kick", json!({"user_id": "@alice:test"}))
        .await
        .ok();
    stage.step("she is invited again").await;
    irc.bot.invites(&room_id, "@alice:test").await;
    stage.step("she is banned").await;
    irc.bot
        .does(&room_id, "ban", json!({"user_id": "@alice:test"}))
        .await
        .ok();
    stage.quiet().await;
    assert_eq!(
        lists_of(&irc, 0, "@alice:test"),
        ["changed", "left", "changed", "left"]
    );
    stage
        .transcript("kick_and_ban_are_leaves_and_coming_back_is_a_change")
        .await;
}

/// Clause: as.lists.left-all
#[actix_web::test]
async fn the_services_own_last_member_leaving_leaves_everybody_behind() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let ghost = irc.ghost("carol").await;
    let room_id = alice
        .invites_to_a_room(&["@ircbot:test", "@bob:test", &ghost.user_id])
        .await;
    for member in [&irc.bot, &bob, &ghost] {
        stage.quiet().await;
        member.joins(&room_id).await;
    }
    stage.quiet().await;
    // Bob shares another room with the appservice, and alice does not.
    let other = bob.invites_to_a_room(&["@ircbot:test"]).await;
    stage.quiet().await;
    irc.bot.joins(&other).await;
    stage.quiet().await;
    let before = irc.receiver.count();
    stage.step("the bot leaves; its ghost is still there").await;
    irc.bot.leaves(&room_id).await;
    stage.quiet().await;
    assert!(lists_of(&irc, before, "@alice:test").is_empty());
    stage
        .step("the ghost leaves: alice is left behind, bob shares another room")
        .await;
    ghost.leaves(&room_id).await;
    stage.quiet().await;
    assert_eq!(lists_of(&irc, before, "@alice:test"), ["left"]);
    assert!(
        lists_of(&irc, before, "@bob:test").is_empty(),
        "bob still shares a room with the service"
    );
    assert!(
        lists_of(&irc, before, &ghost.user_id).is_empty(),
        "the service's own users are never in `left`"
    );
    stage
        .transcript("the_services_own_last_member_leaving_leaves_everybody_behind")
        .await;
}

/// Clause: as.lists.on-retry
#[actix_web::test]
async fn a_left_survives_the_outage_of_the_service_and_a_restart() {
    let mut stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let room_id = alice.invites_to_a_room(&["@ircbot:test"]).await;
    irc.bot.joins(&room_id).await;
    stage.quiet().await;
    let before = irc.receiver.count();
    irc.receiver.at_once(Some(500));
    alice.leaves(&room_id).await;
    stage.quiet().await;
    stage.restart().await;
    stage.advance(Duration::from_secs(400)).await;
    irc.receiver.at_once(Some(200));
    stage.advance(Duration::from_secs(400)).await;
    assert_eq!(lists_of(&irc, before, "@alice:test"), ["left"]);
}

/// Clause: as.lists.changed
#[actix_web::test]
async fn new_devices_keys_and_lost_devices_are_changes_for_who_shares_a_room() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let stranger = stage.person("stranger", "D").await;
    let irc = stage.bridge("irc").await;
    let room_id = alice.invites_to_a_room(&["@ircbot:test"]).await;
    stage.quiet().await;
    irc.bot.joins(&room_id).await;
    stage.quiet().await;

    let before = irc.receiver.count();
    stage.step("alice logs in on another device").await;
    let phone = stage.log_in("alice", "PHONE").await;
    stage.quiet().await;
    assert_eq!(lists_of(&irc, before, "@alice:test"), ["changed"]);

    let before = irc.receiver.count();
    stage.step("she logs out of it").await;
    phone.post("/logout", &json!({})).await.ok();
    stage.quiet().await;
    assert_eq!(lists_of(&irc, before, "@alice:test"), ["changed"]);

    let before = irc.receiver.count();
    stage
        .step("a stranger logs out, which concerns nobody")
        .await;
    stranger.post("/logout", &json!({})).await.ok();
    stage.quiet().await;
    assert_eq!(irc.receiver.count(), before);
    stage
        .transcript("new_devices_keys_and_lost_devices_are_changes_for_who_shares_a_room")
        .await;
}

#[actix_web::test]
async fn delivering_to_one_service_takes_nothing_from_another() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let xmpp = stage.bridge("xmpp").await;
    let room_id = alice
        .invites_to_a_room(&["@ircbot:test", "@xmppbot:test"])
        .await;
    for bridge in [&irc, &xmpp] {
        bridge.bot.joins(&room_id).await;
    }
    stage.quiet().await;
    let (irc_before, xmpp_before) = (irc.receiver.count(), xmpp.receiver.count());
    xmpp.receiver.at_once(Some(500));
    alice.leaves(&room_id).await;
    stage.quiet().await;
    assert_eq!(lists_of(&irc, irc_before, "@alice:test"), ["left"]);
    xmpp.receiver.at_once(Some(200));
    stage.advance(Duration::from_secs(400)).await;
    assert_eq!(lists_of(&xmpp, xmpp_before, "@alice:test"), ["left"]);
}

/// Upload cross-signing keys. Returns the master key and the user-signing key.
async fn has_cross_signing(person: &Person, seed: u8) -> (Key, Key) {
    let user = person.user_id.as_str();
    let (master, signs_users) = (Key::cross_signing(seed), Key::cross_signing(seed + 1));
    let by_master = |key: &Key, usage| master.signs(user, key.as_cross_signing_key(user, usage));
    let keys = json!({
        "master_key": master.as_cross_signing_key(user, "master"),
        "self_signing_key": by_master(&Key::cross_signing(seed + 2), "self_signing"),
        "user_signing_key": by_master(&signs_users, "user_signing"),
    });
    person.post("/keys/device_signing/upload", &keys).await.ok();
    (master, signs_users)
}

async fn synced(person: &Person, since: Option<&str>) -> (Value, String) {
    let since = since.map_or(String::new(), |since| format!("&since={since}"));
    let answer = person
        .aside()
        .get(&format!("/sync?timeout=0{since}"))
        .await
        .ok();
    let next = answer["next_batch"].as_str().expect("a token").to_owned();
    (answer["device_lists"].clone(), next)
}

#[actix_web::test]
async fn a_signature_on_another_users_key_is_a_change_for_the_signers_devices_alone() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let phone = stage.log_in("alice", "PHONE").await;
    let (bob, carol) = (
        stage.person("bob", "B").await,
        stage.person("carol", "C").await,
    );
    let shared = alice.invites_to_a_room(&["@bob:test", "@carol:test"]).await;
    for person in [&bob, &carol] {
        person.joins(&shared).await;
    }
    let (_, signs_users) = has_cross_signing(&alice, 1).await;
    let (bobs, _) = has_cross_signing(&bob, 11).await;
    let all = [&alice, &phone, &bob, &carol];
    let mut tokens = Vec::new();
    for person in all {
        tokens.push(synced(person, None).await.1);
    }
    let signed = signs_users.signs(
        "@alice:test",
        bobs.as_cross_signing_key("@bob:test", "master"),
    );
    let body = json!({"@bob:test": {&bobs.public: signed}});
    let kept = alice.post("/keys/signatures/upload", &body).await.ok();
    assert_eq!(kept["failures"], json!({}), "{kept}");

    let of_bob = json!({"changed": ["@bob:test"]});
    for (person, (since, expected)) in
        all.into_iter().zip(
            tokens
                .iter()
                .zip([&of_bob, &of_bob, &Value::Null, &Value::Null]),
        )
    {
        let (lists, next) = synced(person, Some(since)).await;
        assert_eq!(lists, *expected, "{}", person.user_id);
        let path = format!("/keys/changes?from={since}&to={next}");
        let changes = person.get(&path).await.ok();
        let changed = expected.get("changed").cloned().unwrap_or(json!([]));
        assert_eq!(changes, json!({"changed": changed, "left": []}));
    }
    // Only the user that signed sees the signature.
    let query = json!({"device_keys": {"@bob:test": []}});
    for (person, sees) in [(&phone, true), (&bob, false), (&carol, false)] {
        let keys = person.post("/keys/query", &query).await.ok();
        let by = &keys["master_keys"]["@bob:test"]["signatures"]["@alice:test"];
        assert_eq!(by.is_object(), sees, "{}", person.user_id);
    }

    // Replacing alice's user-signing key removes her signature over bob's master key. Her devices see that signature, so they are
    // sent bob as changed.
    let (_, since) = synced(&phone, None).await;
    let master = Key::cross_signing(1);
    let new = master.signs(
        "@alice:test",
        Key::cross_signing(4).as_cross_signing_key("@alice:test", "user_signing"),
    );
    let path = "/keys/device_signing/upload";
    let asked = alice.post(path, &json!({"user_signing_key": new})).await;
    let auth = json!({"type": "m.login.password", "session": asked.body["session"],
        "identifier": {"type": "m.id.user", "user": "alice"}, "password": "alice-password"});
    if asked.status == 401 {
        let confirmed = alice
            .post(path, &json!({"user_signing_key": new, "auth": auth}))
            .await;
        confirmed.ok();
    }
    let (lists, _) = synced(&phone, Some(&since)).await;
    assert_eq!(lists, json!({"changed": ["@alice:test", "@bob:test"]}));
}
