//! What a developer breaks on purpose: requests to an appservice that fail, are late or are repeated, and the time.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Bridge, Person, Stage, TO_DEVICE, until};

struct Scene {
    stage: Stage,
    alice: Person,
    irc: Bridge,
}

impl Scene {
    async fn new() -> Scene {
        let stage = Stage::new().await;
        let alice = stage.person("alice", "LAPTOP").await;
        let irc = stage.bridge("irc").await;
        irc.ghost_with_device("bob", "GHOST").await;
        stage.quiet().await;
        Scene { stage, alice, irc }
    }

    async fn adds(&self, rule: Value) -> Value {
        let alice = self.alice.aside();
        alice.post("/_understudy/faults", &rule).await.ok()
    }

    async fn sends(&self, txn: &str) {
        self.puts(txn).await;
        self.stage.quiet().await;
    }

    async fn puts(&self, txn: &str) {
        let body = json!({"messages": {"@irc_bob:test": {"GHOST": {"body": txn}}}});
        let path = format!("/sendToDevice/m.example/{txn}");
        self.alice.put(&path, &body).await.ok();
    }

    /// Wait until this number of faults have been injected.
    async fn injected(&self, number: u64) {
        let faults = self.stage.app().actors.env.request_faults.clone();
        let injected = || faults.list().iter().map(|rule| rule.injected).sum::<u64>();
        until("a fault is injected", || number == injected()).await;
    }

    /// The ids and first messages of the transactions that the bridge has received.
    fn received(&self) -> Vec<(String, String)> {
        let of = |received: tests::Received| {
            let body = received.json()[TO_DEVICE][0]["content"]["body"].clone();
            let body = body.as_str()?.to_owned();
            Some((received.id().to_owned(), body))
        };
        self.irc
            .receiver
            .received()
            .into_iter()
            .filter_map(of)
            .collect()
    }

    fn bodies(&self) -> Vec<String> {
        self.received().into_iter().map(|(_, body)| body).collect()
    }

    async fn last_error(&self) -> Value {
        let all = self.alice.aside().get("/_understudy/appservices").await;
        all.ok()[0]["last_error"].clone()
    }
}

/// Clause: as.txn.retry
#[actix_web::test]
async fn each_fault_does_to_a_transaction_what_it_says() {
    let scene = Scene::new().await;
    let second = Duration::from_secs(1);
    let rule = |fault: Value| json!({"service": "irc", "endpoint": "transactions", "fault": fault, "times": 1});

    // The bridge sees nothing of the first attempt.
    for (fault, error) in [
        (json!({"status": 502}), "answered 502"),
        (json!("refuse"), "refused (injected)"),
        (json!("cut_before"), "cut during the request (injected)"),
    ] {
        scene.adds(rule(fault.clone())).await;
        let before = scene.received().len();
        scene.sends(&format!("m{before}")).await;
        assert_eq!(scene.received().len(), before, "{fault}");
        let why = scene.last_error().await;
        assert!(why.as_str().is_some_and(|why| why.contains(error)), "{why}");
        scene.stage.advance(second).await;
        assert_eq!(scene.received().len(), before + 1, "{fault}");
    }

    // The bridge has processed the transaction, and the server does not know it: the same id again, with the same bytes.
    scene.adds(rule(json!("cut_after"))).await;
    scene.sends("twice").await;
    scene.stage.advance(second).await;
    let got = scene.received();
    assert_eq!(got[3], got[4]);
    assert_eq!(got[4].1, "twice");

    scene.adds(rule(json!({"delay_ms": 5_000}))).await;
    scene.puts("late").await;
    scene.injected(5).await;
    let clock = &scene.stage.app().actors.env.clock;
    clock.advance(4 * second);
    assert_eq!(scene.received().len(), 5);
    clock.advance(second);
    until("it has come", || scene.received().len() == 6).await;
    scene.stage.quiet().await;
    assert_eq!(scene.bodies()[5], "late");
    // Longer than the server waits.
    scene.adds(rule(json!({"delay_ms": 600_000}))).await;
    scene.puts("too late").await;
    scene.injected(6).await;
    clock.advance(60 * second);
    scene.stage.quiet().await;
    assert_eq!(scene.received().len(), 6);
    scene.stage.advance(second).await;
    assert_eq!(scene.bodies()[6], "too late");

    let listed = scene.alice.aside().get("/_understudy/faults").await.ok();
    let listed = listed.as_array().expect("a list").clone();
    assert!(listed.len() == 6 && listed.iter().all(|rule| rule["injected"] == 1));
    let clear = "/_understudy/faults/clear";
    let removed = scene.alice.aside().post(clear, &json!({})).await.ok();
    assert_eq!(removed["removed"], 6);
}

#[actix_web::test]
async fn a_fault_can_be_for_one_endpoint_of_one_service() {
    let scene = Scene::new().await;
    scene
        .adds(json!({"endpoint": "users", "fault": {"status": 500}}))
        .await;
    scene
        .adds(json!({"service": "other", "fault": "refuse"}))
        .await;
    scene.sends("unharmed").await;
    assert_eq!(scene.bodies(), ["unharmed"]);
    let profile = scene.alice.get("/profile/@irc_new:test").await;
    assert_ne!(profile.status, 200);
    assert_eq!(scene.irc.receiver.questions(), Vec::<String>::new());
    let bad = json!({"fault": {"status": 42}});
    let refused = scene.alice.aside().post("/_understudy/faults", &bad).await;
    refused.is_refused(400, "M_INVALID_PARAM");
}

#[actix_web::test]
async fn the_last_acknowledged_transaction_is_sent_again_on_request() {
    let scene = Scene::new().await;
    let alice = scene.alice.aside();
    let path = "/_understudy/appservices/irc/resend";
    scene.stage.bridge("quiet").await;
    let none = "/_understudy/appservices/quiet/resend";
    let none = alice.post(none, &json!({})).await;
    none.is_refused(404, "M_NOT_FOUND");
    scene.sends("one").await;
    scene.sends("two").await;
    let again = alice.post(path, &json!({})).await.ok();
    let got = scene.received();
    assert_eq!(got.len(), 3);
    assert_eq!(got[1], got[2]);
    assert_eq!(again["transaction"].to_string(), got[2].0);
    assert_eq!(again["outcome"], "200");
    // What the service was sent again changes nothing about what it is owed.
    scene.sends("three").await;
    assert_eq!(scene.bodies(), ["one", "two", "two", "three"]);
    let unknown = alice
        .post("/_understudy/appservices/no/resend", &json!({}))
        .await;
    unknown.is_refused(404, "M_NOT_FOUND");
}

#[actix_web::test]
async fn the_clock_of_a_development_server_is_frozen_advanced_and_run() {
    let stage = Stage::with(&understudy::mscs::by_default(), |options| {
        options.clock = actors::Clock::adjustable();
    })
    .await;
    let alice = stage.person("alice", "LAPTOP").await.aside();
    let to = async |path: &str, body: Value| {
        let path = format!("/_understudy/clock/{path}");
        alice.post(&path, &body).await.ok()
    };
    let frozen = to("freeze", json!({})).await;
    assert_eq!(frozen["frozen"], true);
    let later = to("advance", json!({"ms": 3_600_000})).await;
    let (from, to_) = (frozen["now"].as_i64(), later["now"].as_i64());
    assert_eq!(from.map(|from| from + 3_600_000), to_);
    assert_eq!(alice.get("/_understudy/clock").await.ok(), later);
    let running = to("run", json!({})).await;
    assert_eq!(running["frozen"], false);
    assert!(running["now"].as_i64() >= to_);

    let seeded = Stage::new().await;
    let bob = seeded.person("bob", "PHONE").await.aside();
    let run = bob.post("/_understudy/clock/run", &json!({})).await;
    run.is_refused(403, "M_FORBIDDEN");
}
