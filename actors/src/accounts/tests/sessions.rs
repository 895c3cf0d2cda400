//! Log-ins, log-outs, deleted devices.

use super::*;

#[actix::test]
async fn a_log_in_with_a_known_device_replaces_its_token_and_keeps_the_device() {
    let house = House::open().await;
    let first = house.person("alice", "LAPTOP").await;
    assert_eq!(house.who(&first.token).await, Some(identity(&first)));
    let listed = house.listed(&first.user).await;

    let second = house
        .log_in("Alice", "secret", "LAPTOP")
        .await
        .expect("logs in");
    assert_eq!(house.who(&first.token).await, None);
    assert_eq!(house.who(&second.token).await, Some(identity(&second)));
    assert_eq!(house.listed(&first.user).await, listed, "no device is new");

    house
        .log_in("@alice:test", "secret", "PHONE")
        .await
        .expect("logs in");
    assert!(house.who(&second.token).await.is_some());
    assert_eq!(house.devices(&first.user).await, ["LAPTOP", "PHONE"]);
    assert_eq!(house.listed(&first.user).await, listed + 1);
}

#[actix::test]
async fn a_wrong_password_and_a_wrong_user_are_refused_alike() {
    let house = House::open().await;
    house.person("alice", "LAPTOP").await;
    house.ghost("irc", "irc_bob").await.expect("registers");
    let wrong = refusal(house.log_in("alice", "guess", "PHONE").await);
    assert!(matches!(wrong, Refusal::Forbidden(_)));
    for user in ["nobody", "@alice:elsewhere", "irc_bob", "a\0b"] {
        assert_eq!(
            refusal(house.log_in(user, "secret", "PHONE").await),
            wrong,
            "{user}"
        );
    }
}

#[actix::test]
async fn a_token_ends_with_its_log_out_however_often_it_was_used() {
    let house = House::open().await;
    let (laptop, env) = (house.person("alice", "LAPTOP").await, &house.actors.env);
    let phone = house
        .log_in("alice", "secret", "PHONE")
        .await
        .expect("logs in");
    for login in [&laptop, &phone] {
        assert!(house.who(&login.token).await.is_some());
        assert!(house.who(&login.token).await.is_some());
        let exists = queries::device_exists(env, &login.user, &login.device).await;
        assert!(exists.expect("the database answers"));
    }
    let who = identity(&laptop);
    ask(&house.actors.accounts, LogOut { who })
        .await
        .expect("logs out");
    assert_eq!(house.who(&laptop.token).await, None);
    let exists = queries::device_exists(env, &laptop.user, &laptop.device).await;
    assert!(!exists.expect("the database answers"));
    assert!(house.who(&phone.token).await.is_some());

    let who = identity(&phone);
    ask(&house.actors.accounts, LogOutAll { who })
        .await
        .expect("logs out");
    assert_eq!(house.who(&phone.token).await, None);
    assert!(house.devices(&laptop.user).await.is_empty());
}

#[actix::test]
async fn deleting_a_device_leaves_nothing_of_it() {
    let house = House::open().await;
    let env = &house.actors.env;
    let bob = house.ghost("irc", "irc_bob").await.expect("registers");
    let put = PutDevice {
        who: masquerading("irc", &bob),
        device: "GHOST".into(),
        display_name: None,
    };
    ask(&house.actors.accounts, put)
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
    let listed = house.listed(&bob).await;

    let delete = DeleteDevices {
        who: masquerading("irc", &bob),
        devices: vec!["GHOST".into(), "NEVER".into()],
        auth: None,
    };
    ask(&house.actors.accounts, delete.clone())
        .await
        .expect("deletes");
    ask(&house.actors.accounts, delete)
        .await
        .expect("deletes nothing more");
    assert_eq!(house.listed(&bob).await, listed + 1);
    let left = env.store.read(|db| {
        let (user, device) = ("@irc_bob:test", "GHOST");
        Ok::<_, Error>((
            accounts::has_device(db, user, device)?,
            inbox::after(db, user, device, Position::START, Position(i64::MAX), 10)?.len(),
            counts::counts_of(db, user, device)?,
            owed::count_messages(db, &ServiceId::from("irc"))?,
            owed::count_messages(db, &ServiceId::from("mau"))?,
        ))
    });
    // What is frozen stays frozen.
    assert_eq!(
        left.await.expect("the database answers"),
        (false, 0, None, 0, 1)
    );
}
