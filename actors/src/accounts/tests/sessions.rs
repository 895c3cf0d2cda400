//! Log-ins, log-outs, deleted devices.

use super::*;

/// Clause: cs.devices.log-in-again
#[actix::test]
async fn a_log_in_with_a_known_device_replaces_its_token_and_keeps_the_device() {
    let server = TestServer::open().await;
    let first = server.person("alice", "LAPTOP").await;
    assert_eq!(
        server.identity_of(&first.token).await,
        Some(identity(&first))
    );
    let listed = server.listed(&first.user).await;

    let second = server
        .log_in("Alice", "secret", "LAPTOP")
        .await
        .expect("logs in");
    assert_eq!(server.identity_of(&first.token).await, None);
    assert_eq!(
        server.identity_of(&second.token).await,
        Some(identity(&second))
    );
    assert_eq!(server.listed(&first.user).await, listed, "no device is new");

    server
        .log_in("@alice:test", "secret", "PHONE")
        .await
        .expect("logs in");
    assert!(server.identity_of(&second.token).await.is_some());
    assert_eq!(server.devices(&first.user).await, ["LAPTOP", "PHONE"]);
    assert_eq!(server.listed(&first.user).await, listed + 1);
}

#[actix::test]
async fn a_wrong_password_and_a_wrong_user_are_refused_alike() {
    let server = TestServer::open().await;
    server.person("alice", "LAPTOP").await;
    server.ghost("irc", "irc_bob").await.expect("registers");
    let wrong = refusal(server.log_in("alice", "guess", "PHONE").await);
    assert!(matches!(wrong, Refusal::Forbidden(_)));
    for user in ["nobody", "@alice:elsewhere", "irc_bob", "a\0b"] {
        assert_eq!(
            refusal(server.log_in(user, "secret", "PHONE").await),
            wrong,
            "{user}"
        );
    }
}

/// Clause: cs.devices.logout, cs.api.unknown-token
#[actix::test]
async fn a_cached_token_is_rejected_after_its_log_out() {
    let server = TestServer::open().await;
    let (laptop, env) = (server.person("alice", "LAPTOP").await, &server.actors.env);
    let phone = server
        .log_in("alice", "secret", "PHONE")
        .await
        .expect("logs in");
    for login in [&laptop, &phone] {
        assert!(server.identity_of(&login.token).await.is_some());
        assert!(server.identity_of(&login.token).await.is_some());
        let exists = queries::device_exists(env, &login.user, &login.device).await;
        assert!(exists.expect("the database answers"));
    }
    let who = identity(&laptop);
    ask(&server.actors.accounts, LogOut { who })
        .await
        .expect("logs out");
    assert_eq!(server.identity_of(&laptop.token).await, None);
    let exists = queries::device_exists(env, &laptop.user, &laptop.device).await;
    assert!(!exists.expect("the database answers"));
    assert!(server.identity_of(&phone.token).await.is_some());

    let who = identity(&phone);
    ask(&server.actors.accounts, LogOutAll { who })
        .await
        .expect("logs out");
    assert_eq!(server.identity_of(&phone.token).await, None);
    assert!(server.devices(&laptop.user).await.is_empty());
}

/// Clause: cs.keys.deleted-device, cs.devices.logout
#[actix::test]
async fn deleting_a_device_leaves_nothing_of_it() {
    let server = TestServer::open().await;
    let env = &server.actors.env;
    let bob = server.ghost("irc", "irc_bob").await.expect("registers");
    let put = PutDevice {
        who: masquerading("irc", &bob),
        device: "GHOST".into(),
        display_name: None,
    };
    ask(&server.actors.accounts, put)
        .await
        .expect("makes a device");
    let fill = env.store.write(|tx| {
        let position = tx.next_position().0;
        let row = InboxRow {
            position,
            user_id: "@irc_bob:test".to_owned(),
            device_id: "GHOST".to_owned(),
            sender: "@alice:test".to_owned(),
            kind: "m.room_key".to_owned(),
            content: "{}".to_owned(),
            decided_by: "irc".to_owned(),
            ..InboxRow::default()
        };
        let owing = |service: &str, txn| Owed {
            appservice_id: service.to_owned(),
            position,
            kind: owed::TO_DEVICE.to_owned(),
            key: String::new(),
            item: String::new(),
            why: "exclusive_namespace".to_owned(),
            txn,
        };
        inbox::append(tx, vec![row]);
        owed::owe_all(tx, vec![owing("irc", None), owing("mau", Some(1))]);
        keys::put_device_keys(tx, "@irc_bob:test", "GHOST", "{}")?;
        keys::put_fallback_key(
            tx,
            "@irc_bob:test",
            "GHOST",
            "signed_curve25519",
            "AAAAHg",
            "{}",
            false,
        )?;
        Ok::<_, Error>(())
    });
    fill.await.expect("rows");
    let listed = server.listed(&bob).await;

    let delete = DeleteDevices {
        who: masquerading("irc", &bob),
        devices: vec!["GHOST".into(), "NEVER".into()],
        auth: None,
    };
    ask(&server.actors.accounts, delete.clone())
        .await
        .expect("deletes");
    ask(&server.actors.accounts, delete)
        .await
        .expect("deletes nothing more");
    assert_eq!(server.listed(&bob).await, listed + 1);
    let left = env.store.read(|db| {
        let (user, device) = ("@irc_bob:test", "GHOST");
        Ok::<_, Error>((
            accounts::has_device(db, user, device)?,
            inbox::after(db, user, device, Position::START, Position(i64::MAX), 10)?.len(),
            counts::counts_of(db, user, device)?,
            schema::queues::count_messages(db, &ServiceId::from("irc"))?,
            schema::queues::count_messages(db, &ServiceId::from("mau"))?,
        ))
    });
    // A frozen transaction stays as it is.
    assert_eq!(
        left.await.expect("the database answers"),
        (false, 0, None, 0, 1)
    );
}
