//! Data that clients store with an account.

use super::*;

/// Clause: cs.accounts.own-data
#[actix::test]
async fn account_data_is_read_byte_for_byte_and_by_its_owner_only() {
    let server = TestServer::open().await;
    let (alice, env) = (server.person("alice", "LAPTOP").await, &server.actors.env);
    let bob = owned_user_id!("@bob:test");
    let set = |user: &UserId, kind: &str, content: &str| {
        let set = SetAccountData {
            who: identity(&alice),
            user: user.to_owned(),
            room: None,
            kind: kind.to_owned(),
            content: serde_json::from_str(content).expect("JSON"),
        };
        ask(&server.actors.accounts, set)
    };
    let text = r#"{ "b": 1,  "a": 2 }"#;
    let first = set(&alice.user, "irc", "{}").await.expect("is put");
    assert!(set(&alice.user, "irc", text).await.expect("is put") > first);
    let read = queries::account_data(env, &alice.user, &alice.user, None, "irc").await;
    assert_eq!(read.expect("is there").get(), text);

    let large = format!(r#"{{"x":"{}"}}"#, "x".repeat(65_536));
    let kind = "x".repeat(256);
    let refused = [
        (refusal(set(&bob, "irc", "{}").await), "forbidden"),
        (
            refusal(set(&alice.user, "m.fully_read", "{}").await),
            "managed",
        ),
        (
            refusal(set(&alice.user, "m.push_rules", "{}").await),
            "managed",
        ),
        (refusal(set(&alice.user, "irc", "[]").await), "bad"),
        (refusal(set(&alice.user, "irc", &large).await), "large"),
        (refusal(set(&alice.user, &kind, "{}").await), "invalid"),
    ];
    for (refusal, expected) in refused {
        let is = match refusal {
            Refusal::Forbidden(_) => "forbidden",
            Refusal::ManagedByServer(_) => "managed",
            Refusal::BadJson(_) => "bad",
            Refusal::TooLarge(_) => "large",
            Refusal::InvalidParam(_) => "invalid",
            _ => "something else",
        };
        assert_eq!(is, expected);
    }
    let foreign = queries::account_data(env, &bob, &alice.user, None, "irc").await;
    assert!(matches!(refusal(foreign), Refusal::Forbidden(_)));
}

#[actix::test]
async fn answers_to_client_transactions_are_forgotten_after_a_day() {
    let server = TestServer::open().await;
    let env = &server.actors.env;
    let now = env.clock.now();
    let write = env.store.write(move |tx| {
        client_transactions::remember(tx, "@alice:test", "send", "1", "{}", now);
        Ok::<_, Error>(())
    });
    write.await.expect("is remembered");
    let answered = || {
        let read = env
            .store
            .read(|db| client_transactions::answer(db, "@alice:test", "send", "1"));
        async move { read.await.expect("the database answers") }
    };
    assert!(answered().await.is_some());
    env.clock.advance(Duration::from_secs(25 * 60 * 60));
    // The timer's message arrives at some time, and its write before the next one that is queued then.
    for _ in 0..1000 {
        let after = env.store.write(|_| Ok::<_, Error>(()));
        after.await.expect("the writer writes");
        if answered().await.is_none() {
            return;
        }
    }
    panic!("it is still remembered");
}
