//! How often an appservice is queried, how long its answer is waited for, and which requests wait.

use std::time::Duration;

use actors::appservice_queries::{self, Question, Sharing};
use serde_json::json;
use tests::{Answer, Bridge, Stage, until};

use super::{ABOUT_BOB, BOB, makes_bob, while_bob_is_made};

/// How many queries requests have asked for so far, whether they were sent to an appservice or not.
fn asked_of_services(stage: &Stage) -> usize {
    let seen = stage.app().actors.env.trace.after(0);
    seen.iter().filter(|s| s.what == "Ask").count()
}

#[actix_web::test]
async fn equal_requests_wait_for_one_query() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let carol = stage.person("carol", "PHONE").await;
    let irc = stage.bridge("irc").await;
    irc.receiver.to_questions(None);
    let profile = format!("/profile/{BOB}");
    let query = json!({"device_keys": {BOB: [], "@carol:test": []}});
    let (seen, found, ()) = tokio::join!(
        alice.get(&profile),
        carol.post("/keys/query", &query),
        async {
            until("both have asked", || asked_of_services(&stage) == 2).await;
            stage.quiet().await;
            assert_eq!(irc.receiver.held_questions(), 1);
            assert_eq!(
                stage.app().inside(),
                0,
                "requests that wait do not count against the request limit"
            );
            let question = irc.is_asked().await;
            makes_bob(&stage, &irc).await;
            question.answers(200, &json!({}));
        }
    );
    assert_eq!(seen.ok()["displayname"], "Bob");
    assert!(found.ok()["device_keys"][BOB]["GHOST"].is_object());
    assert_eq!(irc.receiver.questions(), [ABOUT_BOB]);
}

/// Clause: as.query.no
#[actix_web::test]
async fn a_user_that_does_not_exist_is_not_queried_again_for_a_minute() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let profile = format!("/profile/{BOB}");
    let asked_after = async |seconds| {
        stage.advance(Duration::from_secs(seconds)).await;
        alice.get(&profile).await.is_refused(404, "M_NOT_FOUND");
        irc.receiver.questions().len()
    };
    assert_eq!(asked_after(0).await, 1);
    assert_eq!(asked_after(59).await, 1);
    assert_eq!(asked_after(1).await, 2);
    // Once bob is created without a query, the remembered answer is not used.
    makes_bob(&stage, &irc).await;
    assert_eq!(alice.get(&profile).await.ok()["displayname"], "Bob");
    assert_eq!(irc.receiver.questions().len(), 2);
}

#[actix_web::test]
async fn a_changed_registration_is_queried_again() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let first = stage.bridge("irc").await;
    let profile = format!("/profile/{BOB}");
    alice.get(&profile).await.is_refused(404, "M_NOT_FOUND");
    let users = json!([{"exclusive": true, "regex": "@irc_.*"}]);
    let elsewhere = json!({"namespaces": {"users": users}});
    let second = stage.bridge_with("irc", elsewhere).await;
    alice.get(&profile).await.is_refused(404, "M_NOT_FOUND");
    assert_eq!(first.receiver.questions(), [ABOUT_BOB]);
    assert_eq!(second.receiver.questions(), [ABOUT_BOB]);
}

/// Clause: own.query.hanging
#[actix_web::test]
async fn a_service_that_hangs_delays_only_who_needs_it() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let carol = stage.person("carol", "PHONE").await;
    let irc = stage.bridge("irc").await;
    irc.receiver.to_questions(None);
    let query = json!({"device_keys": {BOB: [], "@carol:test": []}});
    stage.step("Alice needs the service, and it hangs").await;
    let (found, ()) = tokio::join!(alice.post("/keys/query", &query), async {
        irc.receiver.holds(1).await;
        stage
            .step("everybody else is served meanwhile, the service too")
            .await;
        carol.get("/profile/@alice:test").await.ok();
        irc.ghost("dave").await;
        stage
            .step("after five seconds Alice's request goes on without: he is nobody")
            .await;
        stage.advance(Duration::from_secs(5)).await;
    });
    assert_eq!(found.ok()["device_keys"][BOB], json!({}));
    stage
        .step("for a moment it is not asked again, and nobody waits")
        .await;
    alice.post("/keys/query", &query).await.ok();
    stage
        .transcript("a_service_that_hangs_delays_only_who_needs_it")
        .await;
    assert_eq!(irc.receiver.held_questions(), 1);
    stage.advance(Duration::from_secs(10)).await;
    while_bob_is_made_again(&stage, &irc, alice.aside().post("/keys/query", &query)).await;
}

/// Answer the query that timed out earlier, then create bob during the next one.
async fn while_bob_is_made_again(
    stage: &Stage,
    irc: &Bridge,
    request: impl Future<Output = Answer>,
) {
    let late = irc.receiver.is_asked().await;
    late.answers(200, &json!({}));
    let found = while_bob_is_made(stage, irc, request).await;
    assert!(found["device_keys"][BOB]["GHOST"].is_object());
}

#[actix_web::test]
async fn a_service_that_hangs_does_not_keep_a_request_from_querying_others() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let hangs = stage.bridge("hangs").await;
    hangs.receiver.to_questions(None);
    let mut devices: serde_json::Map<_, _> = (10..30)
        .map(|n| (hangs.ghost_id(&n.to_string()), json!([])))
        .collect();
    devices.insert(BOB.to_owned(), json!([]));
    let query = json!({"device_keys": devices});
    let request = async {
        let (found, ()) = tokio::join!(alice.post("/keys/query", &query), async {
            hangs.receiver.holds(8).await;
            stage.quiet().await;
            stage.advance(Duration::from_secs(5)).await;
        });
        found
    };
    let found = while_bob_is_made(&stage, &irc, request).await;
    assert!(found["device_keys"][BOB]["GHOST"].is_object());
    assert_eq!(
        hangs.receiver.held_questions(),
        8,
        "a service that hangs is sent no more queries"
    );
}

/// Clause: as.query.yes
#[actix_web::test]
async fn an_invalid_answer_creates_no_user_and_is_remembered_for_a_moment() {
    let nonsense = [
        (500, json!({"errcode": "M_UNKNOWN"})),
        (403, json!({"errcode": "M_FORBIDDEN"})),
        (302, json!("elsewhere")),
        // The appservice answers that bob exists, and has not created him.
        (200, json!({})),
        (200, json!("<html>")),
    ];
    for (status, body) in nonsense {
        let stage = Stage::new().await;
        let alice = stage.person("alice", "LAPTOP").await;
        let irc = stage.bridge("irc").await;
        irc.receiver.to_questions(Some((status, body)));
        let profile = format!("/profile/{BOB}");
        for (after, asked) in [(0, 1), (9, 1), (1, 2)] {
            stage.advance(Duration::from_secs(after)).await;
            alice.get(&profile).await.is_refused(404, "M_NOT_FOUND");
            assert_eq!(irc.receiver.questions().len(), asked, "{status}");
        }
    }
}

/// Clause: as.query.unknown-route
#[actix_web::test]
async fn a_service_without_the_endpoint_is_not_queried_there_for_ten_minutes() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let unrecognised = json!({"errcode": "M_UNRECOGNIZED"});
    irc.receiver.to_questions(Some((404, unrecognised)));
    // Each query is sent to the current path and to the one from before version 1.
    for (after, who, asked) in [(0, "bob", 2), (599, "carl", 2), (1, "dave", 4)] {
        stage.advance(Duration::from_secs(after)).await;
        let profile = format!("/profile/{}", irc.ghost_id(who));
        alice.get(&profile).await.is_refused(404, "M_NOT_FOUND");
        assert_eq!(irc.receiver.questions().len(), asked, "{who}");
    }
}

#[actix_web::test]
async fn many_unknown_users_are_queried_once_each_and_a_few_at_a_time() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    let known = irc.ghost("known").await;
    let ids: Vec<_> = (10..50).map(|n| irc.ghost_id(&n.to_string())).collect();
    let mut devices: serde_json::Map<_, _> = ids.iter().map(|id| (id.clone(), json!([]))).collect();
    devices.insert(known.user_id.clone(), json!([]));
    irc.receiver.to_questions(None);
    let query = json!({"device_keys": devices});
    let (found, ()) = tokio::join!(alice.post("/keys/query", &query), async {
        irc.receiver.holds(8).await;
        stage.quiet().await;
        assert_eq!(irc.receiver.held_questions(), 8);
        let not_found = json!({"errcode": "M_NOT_FOUND"});
        irc.receiver.to_questions(Some((404, not_found.clone())));
        for _ in 0..8 {
            let question = irc.receiver.is_asked().await;
            question.answers(404, &not_found);
        }
    });
    found.ok();
    let mut asked = irc.receiver.questions();
    asked.sort();
    let expected: Vec<_> = ids
        .iter()
        .map(|id| format!("/_matrix/app/v1/users/{id}"))
        .collect();
    assert_eq!(asked, expected);
}

#[actix_web::test]
async fn a_service_is_sent_a_limited_number_of_queries_at_once() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.receiver.to_questions(None);
    let query = |from: usize| {
        let ids = (from..from + 8).map(|n| (irc.ghost_id(&n.to_string()), json!([])));
        let ids: serde_json::Map<_, _> = ids.collect();
        json!({"device_keys": ids})
    };
    let queries = [query(10), query(20), query(30), query(40)];
    let [one, two, three, four] = queries.each_ref().map(|q| alice.post("/keys/query", q));
    let (one, two, three, four, ()) = tokio::join!(one, two, three, four, async {
        irc.receiver.holds(32).await;
        // Answered at once without a query, so the answer is not remembered.
        let profile = format!("/profile/{BOB}");
        alice.get(&profile).await.is_refused(404, "M_NOT_FOUND");
        assert_eq!(irc.receiver.held_questions(), 32);
        stage.advance(Duration::from_secs(5)).await;
    });
    for answer in [one, two, three, four] {
        answer.ok();
    }
    for _ in 0..32 {
        irc.receiver.is_asked().await.answers(404, &json!({}));
    }
    while_bob_is_made(&stage, &irc, alice.get(&format!("/profile/{BOB}"))).await;
}

#[actix_web::test]
async fn an_answer_that_can_be_used_once_is_not_shared() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    irc.receiver.to_questions(None);
    for (sharing, questions) in [(Sharing::Alone, 2), (Sharing::Joined, 1)] {
        let ask = || {
            let question = Question::post("/_matrix/app/example", "{}".to_owned(), sharing);
            let (queries, irc) = (&stage.app().actors.appservice_queries, "irc".into());
            async move { appservice_queries::put(queries, &irc, question).await }
        };
        let before = asked_of_services(&stage);
        let (one, two, ()) = tokio::join!(ask(), ask(), async {
            until("both have asked", || {
                asked_of_services(&stage) == before + 2
            })
            .await;
            irc.receiver.holds(questions).await;
            assert_eq!(irc.receiver.held_questions(), questions);
            for n in 0..questions {
                let question = irc.receiver.is_asked().await;
                assert_eq!(question.body, "{}");
                question.answers(200, &json!(n));
            }
        });
        let (one, two) = (one.expect("an answer"), two.expect("an answer"));
        assert_eq!(one == two, questions == 1, "{one:?} {two:?}");
    }
}
