//! Disabling a feature loses nothing: what an appservice is owed of it waits until the feature is enabled again, and nothing else
//! waits for that. Each test has a frozen transaction, something that waits, something that arrives while the feature is off, and
//! something that arrives afterwards.

use actors::wire::Naming;
use serde_json::{Value, json};
use tests::signing::Key;
use tests::{Bridge, Person, Stage, TO_DEVICE, numbers};
use understudy::serve::Options;
use understudy::{experiments, mscs};

use crate::counts;
use crate::to_device::inbox_of;

/// Enable exactly these proposals and experiments.
fn only(numbers: &[u16], names: &[&str]) -> impl FnOnce(&mut Options) {
    let enabled = mscs::enabled(&mscs::with_specified(numbers)).expect("known proposals");
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    move |options| {
        options.enable(enabled, Naming::Unstable);
        let proposals = &mut options.settings.proposals;
        experiments::switch_on(&names, &mut options.hooks, proposals).expect("known experiments");
    }
}

/// The bodies of the messages that the bridge has acknowledged.
fn bodies(bridge: &Bridge) -> Vec<String> {
    let all = bridge.receiver.taken(0);
    let events = all
        .iter()
        .flat_map(|t| t["events"].as_array().cloned().unwrap_or_default());
    events
        .filter_map(|e| e["content"]["body"].as_str().map(str::to_owned))
        .collect()
}

/// The users in a device list of the bridge's transactions after the first `skip`, sorted.
fn listed(bridge: &Bridge, skip: usize, list: &str) -> Vec<String> {
    let mut users = bridge.receiver.device_lists(skip, list);
    users.sort();
    users.dedup();
    users
}

/// Let the back-off of an appservice end.
async fn retries(stage: &Stage) {
    stage.advance(std::time::Duration::from_secs(600)).await;
}

#[actix_web::test]
async fn to_device_messages_wait_while_their_proposal_is_off() {
    let mut stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    let room = alice.gathers(&[&bob]).await;
    stage.quiet().await;
    irc.receiver.at_once(Some(500));
    let ghost = "@irc_bob:test";
    alice
        .sends_to_device("1", ghost, "GHOST", json!({"n": 1}))
        .await;
    stage.quiet().await;
    // More than fits in a transaction: what waits must not keep other items from being sent.
    for n in 2..150 {
        alice
            .sends_to_device(&n.to_string(), ghost, "GHOST", json!({"n": n}))
            .await;
    }
    alice.says(&room, "before").await;
    stage.quiet().await;
    let frozen = irc.receiver.received().last().cloned().expect("an attempt");

    stage.restart_with(only(&[3202], &[])).await;
    let alice = stage.again(&alice);
    alice
        .sends_to_device("150", ghost, "GHOST", json!({"n": 150}))
        .await;
    alice.says(&room, "meanwhile").await;
    irc.receiver.at_once(Some(200));
    retries(&stage).await;
    let attempts = irc.receiver.received();
    let again = attempts.iter().rfind(|r| r.path == frozen.path);
    assert_eq!(again.map(|r| &r.body), Some(&frozen.body), "the same bytes");
    assert_eq!(
        numbers(&irc.receiver.items(0, TO_DEVICE)),
        [1],
        "what was frozen before"
    );
    assert_eq!(bodies(&irc), ["before", "meanwhile"], "nothing else waits");
    let waiting = inbox_of(&stage.again(&bob)).await;
    assert_eq!(numbers(&waiting).first(), Some(&2), "nothing is deleted");

    stage.restart_with(only(&[3202, 4203], &[])).await;
    let alice = stage.again(&alice);
    alice
        .sends_to_device("151", ghost, "GHOST", json!({"n": 151}))
        .await;
    stage.quiet().await;
    let all: Vec<i64> = (1..=151).collect();
    assert_eq!(numbers(&irc.receiver.items(0, TO_DEVICE)), all);
    assert!(inbox_of(&stage.again(&bob)).await.is_empty());
}

#[actix_web::test]
async fn device_lists_and_counts_are_sent_once_their_proposal_is_on_again() {
    let mut stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let (carol, dave) = (
        stage.person("carol", "PHONE").await,
        stage.person("dave", "PHONE").await,
    );
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    counts::upload(&bob, 0..3, false).await;
    let room = bob.gathers(&[&alice]).await;
    stage.quiet().await;
    irc.receiver.at_once(Some(500));
    let before = irc.receiver.count();
    stage.log_in("alice", "PHONE").await;
    stage.quiet().await;
    invites(&bob, &room, &carol).await;
    carol.joins(&room).await;
    stage.quiet().await;

    stage.restart_with(only(&[4203], &[])).await;
    let (alice, bob) = (stage.again(&alice), stage.again(&bob));
    let (carol, dave) = (stage.again(&carol), stage.again(&dave));
    invites(&bob, &room, &dave).await;
    dave.joins(&room).await;
    let leave = format!("/rooms/{room}/leave");
    carol.post(&leave, &json!({})).await.ok();
    counts::claim(&alice, "@irc_bob:test", "GHOST").await;
    irc.receiver.at_once(Some(200));
    retries(&stage).await;
    assert_eq!(
        listed(&irc, before, "changed"),
        ["@alice:test"],
        "what was frozen before, and nothing else"
    );
    let meanwhile = irc.receiver.count();

    stage.restart_with(only(&[3202, 4203], &[])).await;
    stage.quiet().await;
    retries(&stage).await;
    let (count, _) = counts::last_counts(&irc, "@irc_bob:test", "GHOST");
    assert_eq!(count["signed_curve25519"], 2, "a key was claimed");
    let changed = listed(&irc, meanwhile, "changed");
    let expected = ["@alice:test", "@dave:test", "@irc_bob:test"];
    assert_eq!(
        changed, expected,
        "the users that share a room with the service, and its own"
    );
    assert_eq!(listed(&irc, meanwhile, "left"), ["@carol:test"]);
}

/// Clause: as.lists.own-users
#[actix_web::test]
async fn a_service_is_sent_its_own_users_whose_keys_changed_while_device_lists_were_off() {
    let mut stage = Stage::new().await;
    let mut own = Vec::new();
    for name in ["irc_gone", "irc_signed", "irc_quiet"] {
        own.push(stage.person(name, "PHONE").await);
    }
    let irc = stage.bridge("irc").await;
    counts::upload(&own[0], 0..3, false).await;
    stage.quiet().await;
    stage.restart_with(only(&[4203], &[])).await;
    let [gone, signed] = [&own[0], &own[1]].map(|person| stage.again(person));
    gone.post("/logout", &json!({})).await.ok();
    let master = Key::cross_signing(7).as_cross_signing_key(&signed.user_id, "master");
    let keys = json!({"master_key": master});
    signed.post("/keys/device_signing/upload", &keys).await.ok();
    stage.quiet().await;
    let before = irc.receiver.count();
    stage.restart_with(only(&[3202, 4203], &[])).await;
    stage.quiet().await;
    retries(&stage).await;
    let changed = listed(&irc, before, "changed");
    assert_eq!(changed, ["@irc_gone:test", "@irc_signed:test"]);
}

async fn invites(owner: &Person, room: &str, guest: &Person) {
    let path = format!("/rooms/{room}/invite");
    let body = json!({"user_id": guest.user_id});
    owner.post(&path, &body).await.ok();
}

#[actix_web::test]
async fn account_data_waits_while_the_experiment_is_off() {
    const NAME: &str = "org.understudy.account_data";
    let mut stage = Stage::new().await;
    stage
        .restart_with(only(&[3202, 4203], &["account_data"]))
        .await;
    let users = json!({"users": [{"exclusive": true, "regex": "@irc_.*"}]});
    let irc = stage
        .bridge_with("irc", json!({NAME: true, "namespaces": users}))
        .await;
    let bob = irc.ghost("bob").await;
    let put_account_data = async |person: &Person, kind: u8, n: u8| {
        let path = format!("/user/@irc_bob:test/account_data/org.example.{kind}");
        person.put(&path, &json!({"n": n})).await.ok();
    };
    let sent = |skip: usize| {
        let all = irc.receiver.taken(skip);
        let pieces = all
            .iter()
            .flat_map(|t| t[NAME].as_array().cloned().unwrap_or_default());
        numbers(&pieces.collect::<Vec<_>>())
    };
    put_account_data(&bob, 0, 0).await;
    stage.quiet().await;
    let before = irc.receiver.count();
    irc.receiver.at_once(Some(500));
    put_account_data(&bob, 1, 1).await;
    stage.quiet().await;
    put_account_data(&bob, 2, 2).await;
    stage.quiet().await;

    stage.restart_with(only(&[3202, 4203], &[])).await;
    let bob = stage.again(&bob);
    put_account_data(&bob, 3, 3).await;
    irc.receiver.at_once(Some(200));
    retries(&stage).await;
    assert_eq!(sent(before), [1], "what was frozen before");

    stage
        .restart_with(only(&[3202, 4203], &["account_data"]))
        .await;
    let bob = stage.again(&bob);
    put_account_data(&bob, 4, 4).await;
    stage.quiet().await;
    assert_eq!(
        sent(before),
        [1, 2, 3, 4],
        "what did not change is not sent"
    );
}

#[actix_web::test]
async fn copies_owed_under_a_grant_wait_while_it_is_withdrawn() {
    let observe = |ids: &[&str]| {
        let ids = ids.iter().map(|id| (*id).into()).collect();
        move |options: &mut Options| options.settings.observe = Some(ids)
    };
    let mut stage = Stage::with(&[3202, 4203], observe(&["mirror"])).await;
    let alice = stage.person("alice", "LAPTOP").await;
    stage.person("bob", "PHONE").await;
    let anybody = json!({"namespaces": {"users": [{"exclusive": false, "regex": "@bob.*"}]}});
    let mirror = stage.bridge_with("mirror", anybody).await;
    let room = alice.gathers(&[&mirror.bot]).await;
    stage.quiet().await;
    mirror.receiver.at_once(Some(500));
    alice
        .sends_to_device("1", "@bob:test", "PHONE", json!({"n": 1}))
        .await;
    stage.quiet().await;
    for n in 2..150 {
        let txn = n.to_string();
        alice
            .sends_to_device(&txn, "@bob:test", "PHONE", json!({"n": n}))
            .await;
    }
    stage.quiet().await;

    stage.restart_with(observe(&[])).await;
    let alice = stage.again(&alice);
    alice
        .sends_to_device("150", "@bob:test", "PHONE", json!({"n": 150}))
        .await;
    alice.says(&room, "meanwhile").await;
    mirror.receiver.at_once(Some(200));
    retries(&stage).await;
    assert_eq!(
        numbers(&mirror.receiver.items(0, TO_DEVICE)),
        [1],
        "what was frozen before"
    );
    assert_eq!(bodies(&mirror), ["meanwhile"], "nothing else waits");

    stage.restart_with(observe(&["mirror"])).await;
    let alice = stage.again(&alice);
    alice
        .sends_to_device("151", "@bob:test", "PHONE", json!({"n": 151}))
        .await;
    stage.quiet().await;
    let granted: Vec<i64> = (1..150).chain([151]).collect();
    assert_eq!(
        numbers(&mirror.receiver.items(0, TO_DEVICE)),
        granted,
        "all except the message that arrived without a grant"
    );
}

#[actix_web::test]
async fn what_is_owed_waits_too_when_a_registration_drops_a_flag() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    irc.receiver.at_once(Some(500));
    let ghost = "@irc_bob:test";
    for n in 1..3 {
        alice
            .sends_to_device(&n.to_string(), ghost, "GHOST", json!({"n": n}))
            .await;
        stage.quiet().await;
    }
    let file = stage.registration_file("irc");
    let with: Value = serde_json::from_str(&std::fs::read_to_string(&file).expect("a file"))
        .expect("a registration");
    let mut without = with.clone();
    without["receive_ephemeral"] = json!(false);
    without["org.matrix.msc3202"] = json!(false);
    stage.register("irc", &without).await;
    irc.receiver.at_once(Some(200));
    alice
        .sends_to_device("3", ghost, "GHOST", json!({"n": 3}))
        .await;
    retries(&stage).await;
    assert_eq!(
        numbers(&irc.receiver.items(0, TO_DEVICE)),
        [1],
        "what was frozen before"
    );
    stage.register("irc", &with).await;
    stage.quiet().await;
    assert_eq!(numbers(&irc.receiver.items(0, TO_DEVICE)), [1, 2, 3]);
}
