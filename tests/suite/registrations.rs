//! Registrations are added, changed and removed, while the server runs and while it is stopped.

use std::cell::Cell;
use std::time::{Duration, Instant};

use actors::appservices::Reload;
use actors::ask;
use actors::services::CarriesInterests;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tests::{Bridge, Stage, until};

fn users(regex: &str) -> Value {
    json!({"users": [{"exclusive": true, "regex": regex}]})
}

/// Clause: own.registration.broken-file
#[actix_web::test]
async fn a_broken_file_is_reported_and_affects_no_service() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    std::fs::write(stage.registration_file("broken"), "id: [").expect("written");
    std::fs::write(stage.registration_file("irc"), "id: irc\nurl: 7").expect("written");
    let loaded = stage.reload().await;
    let files: Vec<_> = loaded.problems.iter().map(|p| p.file.as_str()).collect();
    assert_eq!(files, ["broken.yaml", "irc.yaml"]);
    assert_eq!(
        irc.bot.get("/account/whoami").await.ok()["user_id"],
        "@ircbot:test",
        "the last valid version stays in force"
    );
}

/// Clause: own.registration.away
#[actix_web::test]
async fn removing_a_file_keeps_what_is_owed_until_it_comes_back() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    let before = irc.receiver.count();
    irc.receiver.at_once(Some(500));
    let send = |n: u64| json!({"messages": {"@irc_bob:test": {"GHOST": {"n": n}}}});
    alice.put("/sendToDevice/m.example/1", &send(1)).await.ok();
    stage.quiet().await;
    let file = stage.registration_file("irc");
    let registration: Value =
        serde_json::from_str(&std::fs::read_to_string(&file).expect("a file")).expect("JSON");
    std::fs::remove_file(&file).expect("removed");
    assert!(stage.reload().await.services.is_empty());
    irc.bot
        .get("/account/whoami")
        .await
        .is_refused(401, "M_UNKNOWN_TOKEN");
    let tried = irc.receiver.count();
    stage.advance(std::time::Duration::from_secs(1000)).await;
    assert_eq!(irc.receiver.count(), tried, "nothing is sent any more");
    // No appservice decides over bob's device now, so this message waits in its inbox only.
    alice.put("/sendToDevice/m.example/2", &send(2)).await.ok();

    irc.receiver.at_once(Some(200));
    stage.register("irc", &registration).await;
    stage.quiet().await;
    let taken = irc.receiver.taken(before);
    let got: Vec<_> = taken
        .iter()
        .flat_map(|t| {
            t["de.sorunome.msc2409.to_device"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        })
        .collect();
    let numbers: Vec<_> = got.iter().map(|e| e["content"]["n"].clone()).collect();
    assert_eq!(
        numbers,
        [1, 2],
        "the frozen transaction first, then the message that waited"
    );
    let _ = bob;
}

#[actix_web::test]
async fn a_changed_url_is_used_for_frozen_transactions() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    irc.receiver.at_once(Some(500));
    alice
        .put(
            "/sendToDevice/m.example/1",
            &json!({"messages": {"@irc_bob:test": {"GHOST": {"n": 1}}}}),
        )
        .await
        .ok();
    stage.quiet().await;
    let moved = tests::bridge::Receiver::start(
        "irc",
        "irc-hs-token",
        None,
        tests::transcript::Log::default(),
    );
    let file = stage.registration_file("irc");
    let mut registration: Value =
        serde_json::from_str(&std::fs::read_to_string(&file).expect("a file")).expect("JSON");
    registration["url"] = json!(moved.url);
    stage.register("irc", &registration).await;
    stage.quiet().await;
    let (old, new) = (irc.receiver.received(), moved.received());
    let last = old.last().expect("an attempt");
    assert_eq!((&new[0].path, &new[0].body), (&last.path, &last.body));
}

/// Clause: as.registration.exclusive-users
#[actix_web::test]
async fn exclusive_namespaces_of_registrations_reserve_user_names() {
    let stage = Stage::new().await;
    stage
        .bridge_with("irc", json!({"namespaces": users("@irc_.*")}))
        .await;
    let anybody = stage.person("alice", "LAPTOP").await.anonymous();
    let available = |name: &str| {
        let (who, path) = (
            anybody.clone(),
            format!("/register/available?username={name}"),
        );
        async move { who.get(&path).await }
    };
    available("irc_new").await.is_refused(400, "M_EXCLUSIVE");
    available("new").await.ok();
    available("alice").await.is_refused(400, "M_USER_IN_USE");
}

/// The text of a bridge's registration file, with another token.
fn with_token(stage: &Stage, id: &str, token: &str) -> String {
    let text = std::fs::read_to_string(stage.registration_file(id)).expect("a file");
    let mut registration: Value = serde_json::from_str(&text).expect("JSON");
    registration["as_token"] = json!(token);
    registration.to_string()
}

/// Whether the server accepts the bridge's token.
async fn is_known(stage: &Stage, irc: &Bridge) -> bool {
    let bot = stage.again(&irc.bot);
    bot.get("/account/whoami").await.status == 200
}

/// Clause: own.registration.broken-file
#[actix_web::test]
async fn a_server_starts_with_the_last_good_version_of_a_broken_file() {
    let mut stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    for broken in ["id: irc\nurl: 7", "id: [", ""] {
        std::fs::write(stage.registration_file("irc"), broken).expect("written");
        std::fs::write(stage.registration_file("never-good"), "id: [").expect("written");
        stage.restart().await;
        assert!(is_known(&stage, &irc).await, "{broken:?}");
    }
    // The development routes show the problem.
    let bot = stage.again(&irc.bot);
    let shown = bot.get("/_understudy/appservices").await.ok();
    let sender = &shown[0];
    assert_eq!(sender["service"], "irc");
    assert_eq!(
        sender["registration"],
        json!({"file": "irc.yaml", "why": "the file is empty", "kept": ["irc"],
            "instead": "the last good version of \"irc\" stays in force"})
    );
    assert_eq!(shown[1]["file"], "never-good.yaml");
    assert_eq!(shown[1]["instead"], "nothing is in force from it");

    std::fs::remove_file(stage.registration_file("irc")).expect("removed");
    stage.restart().await;
    assert!(
        !is_known(&stage, &irc).await,
        "the file was removed, so nothing is kept in force"
    );
}

#[actix_web::test]
async fn a_service_is_identified_by_its_id_whatever_its_file_is_called() {
    let mut stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let renamed = stage.registration_file("z");
    std::fs::rename(stage.registration_file("irc"), &renamed).expect("renamed");
    assert!(stage.reload().await.problems.is_empty());
    let good = std::fs::read_to_string(&renamed).expect("a file");
    std::fs::write(&renamed, "id: [").expect("written");
    assert_eq!(stage.reload().await.problems[0].kept, ["irc".into()]);
    assert!(is_known(&stage, &irc).await, "broken under its new name");
    stage.restart().await;
    assert!(is_known(&stage, &irc).await, "also after a restart");

    // A valid file under the new name, and a broken one under the old name.
    std::fs::write(&renamed, good).expect("written");
    std::fs::write(&renamed, with_token(&stage, "z", "another")).expect("written");
    std::fs::write(stage.registration_file("irc"), "id: irc\nurl: [").expect("written");
    let loaded = stage.reload().await;
    assert_eq!(
        loaded.problems[0].instead,
        "\"irc\" is in force from z.yaml"
    );
    let bot = stage.again(&irc.bot);
    let edited = tests::Person::at(&stage.base(), &bot.user_id, None, "another");
    edited.get("/account/whoami").await.ok();
    assert!(!is_known(&stage, &irc).await, "the old token is refused");

    // Renamed and broken while the server is stopped.
    std::fs::remove_file(stage.registration_file("irc")).expect("removed");
    stage.reload().await;
    let elsewhere = stage.registration_file("elsewhere");
    std::fs::rename(&renamed, &elsewhere).expect("renamed");
    std::fs::write(&elsewhere, "").expect("written");
    stage.restart().await;
    let edited = tests::Person::at(&stage.base(), &bot.user_id, None, "another");
    edited.get("/account/whoami").await.ok();
}

/// Clause: as.registration.unique-token
#[actix_web::test]
async fn a_new_file_cannot_take_over_a_token_or_sender_in_force() {
    let mut stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let thief = |key: &str, value: &str| {
        let mut thief = json!({"id": "a", "url": null, "as_token": "a", "hs_token": "a",
            "sender_localpart": "a", "namespaces": {}});
        thief[key] = json!(value);
        std::fs::write(stage.registration_file("a"), thief.to_string()).expect("written");
    };
    thief("as_token", "irc-as-token");
    assert_eq!(stage.reload().await.services, ["irc".into()]);
    thief("sender_localpart", "ircbot");
    assert_eq!(stage.reload().await.services, ["irc".into()]);
    assert!(is_known(&stage, &irc).await);
    stage.restart().await;
    assert!(is_known(&stage, &irc).await);
}

#[actix_web::test]
async fn a_rename_sends_nothing_again() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let bob = irc.ghost("bob").await;
    let invite = json!({"invite": [bob.user_id]});
    let made = alice.post("/createRoom", &invite).await.ok();
    let room = tests::person::segment(made["room_id"].as_str().expect("a room"));
    bob.post(&format!("/rooms/{room}/join"), &json!({}))
        .await
        .ok();
    stage.quiet().await;
    let before = irc.receiver.count();
    std::fs::rename(stage.registration_file("irc"), stage.registration_file("z")).expect("renamed");
    stage.reload().await;
    stage.quiet().await;
    assert_eq!(irc.receiver.count(), before);
}

#[actix_web::test]
async fn many_changes_of_files_cause_a_few_reloads() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let before = stage.reload().await.readings;
    let keeper = &stage.app().actors.appservices;
    let asked = join_all((0..100).map(|_| ask(keeper, Reload))).await;
    for loaded in asked {
        assert_eq!(loaded.expect("it is read").services, ["irc".into()]);
    }
    for n in 0..1_000 {
        let token = format!("token-{n}");
        let text = with_token(&stage, "irc", &token);
        std::fs::write(stage.registration_file("irc"), text).expect("written");
    }
    let store = stage.app().actors.env.store.clone();
    until("the last change is in force", || {
        store.interests().by_token("token-999").is_some()
    })
    .await;
    let readings = stage.reload().await.readings - before;
    assert!(readings < 30, "{readings} readings");
    assert!(!is_known(&stage, &irc).await, "the first token is refused");
}

#[actix_web::test]
async fn a_new_link_to_a_registration_is_detected() {
    let stage = Stage::new().await;
    stage.bridge("irc").await;
    let text = with_token(&stage, "irc", "linked").replace("irc", "linked");
    let elsewhere = stage.registrations().with_file_name("elsewhere");
    std::fs::write(&elsewhere, text).expect("written");
    std::os::unix::fs::symlink(&elsewhere, stage.registration_file("linked")).expect("linked");
    let store = stage.app().actors.env.store.clone();
    until("the link is seen", || {
        store.interests().service(&"linked".into()).is_some()
    })
    .await;
}

#[actix_web::test]
async fn a_failed_reload_is_repeated_and_removes_no_registration() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let folder = stage.registrations();
    let text = with_token(&stage, "irc", "another");
    std::fs::rename(&folder, folder.with_file_name("away")).expect("renamed");
    let loaded = stage.reload().await;
    assert!(
        loaded.problems[0].why.contains("cannot read the folder"),
        "{:?}",
        loaded.problems
    );
    assert!(is_known(&stage, &irc).await);
    // The folder exists again, and no file watcher reports it.
    std::fs::create_dir(&folder).expect("a folder");
    std::fs::write(stage.registration_file("irc"), text).expect("written");
    for _ in 0..3 {
        stage.advance(Duration::from_secs(300)).await;
    }
    let store = stage.app().actors.env.store.clone();
    assert!(store.interests().by_token("another").is_some());
    // The new folder is watched.
    let text = with_token(&stage, "irc", "a third");
    std::fs::write(
        stage.registration_file("irc"),
        text.replace("a third", "third"),
    )
    .expect("written");
    until("a change of the new folder is seen", || {
        store.interests().by_token("third").is_some()
    })
    .await;
}

#[actix_web::test]
async fn a_server_starts_although_the_folder_of_registrations_is_missing() {
    let mut stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let text = with_token(&stage, "irc", "another");
    std::fs::remove_dir_all(stage.registrations()).expect("removed");
    stage.restart().await;
    assert!(is_known(&stage, &irc).await);
    std::fs::create_dir(stage.registrations()).expect("a folder");
    std::fs::write(stage.registration_file("irc"), text).expect("written");
    stage.advance(Duration::from_secs(300)).await;
    let store = stage.app().actors.env.store.clone();
    assert!(store.interests().by_token("another").is_some());
}

#[actix_web::test]
async fn actors_answer_while_many_patterns_are_compiled() {
    let stage = Stage::new().await;
    let pattern = |n: usize| {
        let regex = format!("@large_{n}_[\\w\\p{{Greek}}]{{1,40}}:test");
        json!({"exclusive": true, "regex": regex})
    };
    let users: Vec<Value> = (0..4).map(pattern).collect();
    let registration = json!({"id": "large", "url": null, "as_token": "a", "hs_token": "h",
        "sender_localpart": "large", "namespaces": {"users": users}});
    std::fs::write(stage.registration_file("large"), registration.to_string()).expect("written");
    let reading = Cell::new(true);
    let begun = Instant::now();
    let read = async {
        let loaded = ask(&stage.app().actors.appservices, Reload).await;
        reading.set(false);
        (loaded.expect("it is read"), begun.elapsed())
    };
    // The actors run on this thread, so what blocks it blocks them.
    let stalled = async {
        let (mut longest, mut last) = (Duration::ZERO, Instant::now());
        while reading.get() {
            tokio::task::yield_now().await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        longest
    };
    let ((loaded, took), stalled) = futures_util::join!(read, stalled);
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    assert!(stalled * 3 < took, "stalled for {stalled:?} of {took:?}");
}

/// Clause: as.registration.url-null, as.ping.no-url
#[actix_web::test]
async fn an_empty_url_means_that_nothing_is_sent() {
    let stage = Stage::new().await;
    let irc = stage.bridge_with("irc", json!({"url": ""})).await;
    irc.bot.get("/account/whoami").await.ok();
    irc.bot
        .post(
            "/_matrix/client/v1/appservice/irc/ping",
            &json!({"transaction_id": "t"}),
        )
        .await
        .is_refused(400, "M_URL_NOT_SET");
}
