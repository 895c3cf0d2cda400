//! Registrations come, change and go while the server runs.

use serde_json::{Value, json};
use tests::Stage;

fn users(regex: &str) -> Value {
    json!({"users": [{"exclusive": true, "regex": regex}]})
}

#[actix_web::test]
async fn a_broken_file_is_reported_and_harms_nobody() {
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
        "its last good version is in force"
    );
}

#[actix_web::test]
async fn a_file_that_goes_keeps_what_is_owed_until_it_comes_back() {
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
    // Nobody owns bob's device now: this one waits in its inbox alone.
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
    assert_eq!(numbers, [1, 2], "the frozen one first, then what waited");
    let _ = bob;
}

#[actix_web::test]
async fn a_changed_url_is_used_for_what_is_frozen() {
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

#[actix_web::test]
async fn namespaces_of_the_folder_decide_who_owns_whom() {
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
