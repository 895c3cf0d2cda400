//! Appservices that implement only the paths from before version 1 of the application service API.

use std::time::Duration;

use serde_json::json;
use tests::bridge::Received;
use tests::{Bridge, Stage};

const HOUR: Duration = Duration::from_secs(3600);

fn transactions(irc: &Bridge, skip: usize) -> Vec<Received> {
    irc.receiver.received().split_off(skip)
}

fn is_present(request: &Received) -> bool {
    request.path.starts_with("/_matrix/app/v1/transactions/")
}

/// Clause: as.txn.token, as.legacy.fallback, as.legacy.token
#[actix_web::test]
async fn a_service_that_knows_only_the_older_paths_is_sent_the_same_under_them() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    irc.receiver.knows_only_legacy_paths(true);
    let before = irc.receiver.count();
    stage
        .step("the present path is tried, then the older one")
        .await;
    alice.sends_number("@irc_bob:test", "GHOST", 1).await;
    stage.quiet().await;
    let tried = transactions(&irc, before);
    assert_eq!(tried.len(), 2, "{tried:?}");
    assert!(is_present(&tried[0]) && tried[0].query.is_empty());
    assert_eq!(tried[1].path, format!("/transactions/{}", tried[0].id()));
    assert_eq!(tried[1].body, tried[0].body, "the same bytes");
    assert_eq!(tried[1].query, "access_token=irc%2Dhs%2Dtoken");
    stage.step("it is remembered").await;
    alice.sends_number("@irc_bob:test", "GHOST", 2).await;
    stage.quiet().await;
    let tried = transactions(&irc, before + 2);
    assert!(tried.len() == 1 && !is_present(&tried[0]), "{tried:?}");
    let said = irc
        .bot
        .aside()
        .get("/_understudy/transactions?service=irc")
        .await
        .ok();
    let attempts = said.as_array().expect("a list");
    assert_eq!(attempts[attempts.len() - 1]["path"], tried[0].path);

    stage
        .step("now and then the present path is tried again")
        .await;
    stage.advance(HOUR).await;
    let before = irc.receiver.count();
    alice.sends_number("@irc_bob:test", "GHOST", 3).await;
    stage.quiet().await;
    assert_eq!(transactions(&irc, before).len(), 2);
    stage
        .step("the service has a newer version: it is found out, and nothing is lost")
        .await;
    irc.receiver.knows_only_legacy_paths(false);
    stage.advance(HOUR).await;
    let before = irc.receiver.count();
    alice.sends_number("@irc_bob:test", "GHOST", 4).await;
    stage.quiet().await;
    assert!(transactions(&irc, before).iter().all(is_present));
    stage
        .transcript("a_service_that_knows_only_the_older_paths_is_sent_the_same_under_them")
        .await;
}

/// Clause: as.legacy.unknown
#[actix_web::test]
async fn a_failing_service_is_not_taken_for_one_with_older_paths() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    for status in [400, 401, 403, 413, 429, 500, 503] {
        irc.receiver.at_once(Some(status));
        let before = irc.receiver.count();
        alice
            .sends_number("@irc_bob:test", "GHOST", i64::from(status))
            .await;
        stage.advance(Duration::from_secs(400)).await;
        assert!(
            transactions(&irc, before).iter().all(is_present),
            "{status}"
        );
    }
}

/// Clause: as.legacy.fallback, as.legacy.unknown
#[actix_web::test]
async fn queries_have_older_paths_too_and_m_not_found_is_an_answer() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage
        .bridge_with(
            "irc",
            json!({"protocols": ["irc"], "namespaces": {"users": [{"exclusive": true, "regex": "@irc_.*"}],
                "aliases": [{"exclusive": true, "regex": "#irc_.*"}]}}),
        )
        .await;
    alice
        .get("/profile/@irc_a:test")
        .await
        .is_refused(404, "M_NOT_FOUND");
    assert_eq!(
        irc.receiver.questions(),
        ["/_matrix/app/v1/users/@irc_a:test"]
    );
    irc.receiver.knows_only_legacy_paths(true);
    alice
        .get("/profile/@irc_b:test")
        .await
        .is_refused(404, "M_NOT_FOUND");
    let alias = "/directory/room/%23irc_rust:test";
    alice.get(alias).await.is_refused(404, "M_NOT_FOUND");
    irc.receiver.to_questions(Some((200, json!([]))));
    let found = alice.get("/thirdparty/user/irc?nick=bob").await.ok();
    assert_eq!(found, json!([]));
    let asked: Vec<_> = irc.receiver.questions().split_off(1);
    assert_eq!(
        asked,
        [
            "/_matrix/app/v1/users/@irc_b:test",
            "/users/@irc_b:test?access_token=irc%2Dhs%2Dtoken",
            "/_matrix/app/v1/rooms/%23irc_rust:test",
            "/rooms/%23irc_rust:test?access_token=irc%2Dhs%2Dtoken",
            "/_matrix/app/v1/thirdparty/user/irc",
            "/_matrix/app/unstable/thirdparty/user/irc?nick=bob&access_token=irc%2Dhs%2Dtoken",
        ]
    );
    let ping = "/_matrix/client/v1/appservice/irc/ping";
    irc.bot
        .post(ping, &json!({}))
        .await
        .is_refused(502, "M_BAD_STATUS");
}
