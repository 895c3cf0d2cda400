//! Single changes of a registration, each with what the back-fill makes of it.

use super::*;

/// The device-list changes that the appservice is owed, by user, and whether each is a `left`.
async fn owed_lists(server: &TestServer) -> BTreeMap<String, bool> {
    let end = Position(i64::MAX);
    let owed = server.write(move |tx| Ok(owed::waiting(tx, &irc(), Position::START, end, 99)?));
    let owed_lists = owed
        .await
        .into_iter()
        .map(|row| (row.key, row.item == owed::LEFT));
    owed_lists.collect()
}

/// An appservice that no longer gets changes of a user's devices receives `left`, so that it does not trust an outdated list.
#[actix::test]
async fn a_user_that_is_its_own_no_more_is_left_unless_they_share_a_room() {
    let mut server = TestServer::open();
    server.register(NAMESPACES[0]).await;
    server
        .write(|tx| {
            move_to(tx, ROOMS[0], "@ircbot:test", "join")?;
            move_to(tx, ROOMS[0], "@irc_b:test", "join")?;
            for user in ["@irc_a:test", "@irc_b:test"] {
                schema::device_log::keys_changed(tx, user)?;
            }
            drain(tx)
        })
        .await;
    let (a, b) = ("@irc_a:test".to_owned(), "@irc_b:test".to_owned());
    let both = [(a.clone(), false), (b.clone(), false)];
    assert_eq!(owed_lists(&server).await, both.into());
    server.register(NAMESPACES[3]).await;
    assert_eq!(owed_lists(&server).await, [(a, true), (b, false)].into());
}

/// A `left` replaces a waiting `changed`. If the user becomes its own again before the `left` is acknowledged, the change must not
/// be lost. A frozen transaction that carries the `left` does not change, so a `changed` is sent after it.
#[actix::test]
async fn a_user_that_is_its_own_again_before_left_was_acknowledged_is_changed() {
    for is_frozen in [false, true] {
        let mut server = TestServer::open();
        server.register(NAMESPACES[0]).await;
        server
            .write(|tx| {
                schema::device_log::keys_changed(tx, "@irc_a:test")?;
                drain(tx)
            })
            .await;
        for (namespaces, left) in [(NAMESPACES[3], true), (NAMESPACES[0], false)] {
            server.register(namespaces).await;
            assert_eq!(
                owed_lists(&server).await,
                [("@irc_a:test".to_owned(), left)].into(),
                "in a transaction: {is_frozen}"
            );
            if is_frozen {
                server
                    .write(|tx| Ok(owed::stamp(tx, &irc(), Position(i64::MAX), 1)?))
                    .await;
            }
        }
    }
}

/// Between the write that records a 2xx and the one that deletes the inbox rows, a changed registration finds a row for which
/// nothing is owed.
#[actix::test]
async fn a_message_that_was_acknowledged_is_not_owed_again_before_the_inbox_is_emptied() {
    let mut server = TestServer::open();
    server.register(NAMESPACES[0]).await;
    server
        .write(|tx| {
            person(tx, "@irc_a:test")?;
            arrives(tx, "@irc_a:test")?;
            assert_eq!(schema::queues::count_messages(tx, &irc())?, 1);
            // What recording a 2xx does to the owed rows of a transaction.
            Ok(owed::forget_service(tx, &irc())?)
        })
        .await;
    server.register(NAMESPACES[1]).await;
    let owed = server
        .write(|tx| Ok(schema::queues::count_messages(tx, &irc())?))
        .await;
    assert_eq!(owed, 0, "it was delivered");
}

#[test]
fn two_lists_are_known_up_to_the_end_of_the_shorter_page() {
    let names = |n: i64, of: &str| (0..n).map(|i| format!("{of}{i:05}")).collect::<Vec<_>>();
    assert_eq!(end_of([&names(0, "a"), &names(0, "b")]), None);
    assert_eq!(
        end_of([&names(2, "a"), &names(0, "b")]).as_deref(),
        Some("a00001")
    );
    assert_eq!(
        end_of([&names(2, "a"), &names(1, "b")]).as_deref(),
        Some("b00000")
    );
    let full = names(PAGE, "a");
    assert_eq!(end_of([&full, &names(1, "b")]).as_ref(), full.last());
    assert_eq!(end_of([&full, &names(PAGE, "b")]).as_ref(), full.last());
}
