//! Registration, and what a person confirms with the password.

use super::*;

#[actix::test]
async fn a_person_registers_in_two_steps() {
    let house = House::open().await;
    let accounts = &house.actors.accounts;
    let register = |name: &str, auth: Option<Auth>| Register {
        by: Registrant::Person {
            auth,
            password: Some("secret".into()),
        },
        username: Some(name.to_owned()),
        device: None,
        display_name: Some("first".to_owned()),
        inhibit_login: false,
    };
    let asked = challenge(ask(accounts, register("Alice", None)).await);
    assert_eq!(
        (asked.flows, asked.failed),
        (vec![vec!["m.login.dummy"]], None)
    );
    let dummy = |session: &str| {
        let data = json!({"type": "m.login.dummy", "session": session});
        let data: uiaa::AuthData = serde_json::from_value(data).expect("auth");
        Some(Auth::from(data))
    };
    let again = challenge(ask(accounts, register("alice", dummy("made up"))).await);
    assert!(again.failed.is_some());
    let done = ask(accounts, register("Alice", dummy(&asked.session)))
        .await
        .expect("registers");
    assert_eq!(done.user, "@alice:test");
    let login = done.login.expect("a device");
    assert_eq!(house.who(&login.token).await, Some(identity(&login)));

    // Names are checked before anything must be confirmed.
    assert_eq!(
        refusal(ask(accounts, register("alice", None)).await),
        Refusal::UserInUse
    );
    let reserved = refusal(ask(accounts, register("irc_bob", None)).await);
    assert!(matches!(reserved, Refusal::Exclusive(_)));
    let odd = refusal(ask(accounts, register("al ice", None)).await);
    assert!(matches!(odd, Refusal::InvalidUsername(_)));
}

#[actix::test]
async fn a_person_confirms_a_deletion_with_the_password() {
    let house = House::open().await;
    let accounts = &house.actors.accounts;
    let laptop = house.person("alice", "LAPTOP").await;
    house
        .log_in("alice", "secret", "PHONE")
        .await
        .expect("logs in");
    let delete = |device: &str, auth: Option<Auth>| DeleteDevices {
        who: identity(&laptop),
        devices: vec![device.into()],
        auth,
    };
    let asked = challenge(ask(accounts, delete("PHONE", None)).await);
    assert_eq!(
        (asked.flows, asked.failed),
        (vec![vec!["m.login.password"]], None)
    );
    let session = || Some(asked.session.clone());
    let wrong = challenge(
        ask(
            accounts,
            delete("PHONE", Some(by_password(session(), "guess"))),
        )
        .await,
    );
    assert_eq!(
        (wrong.session, wrong.failed.is_some()),
        (asked.session.clone(), true)
    );
    // The session was opened for another device.
    let other = challenge(
        ask(
            accounts,
            delete("LAPTOP", Some(by_password(session(), "secret"))),
        )
        .await,
    );
    assert!(other.failed.is_some());
    house.actors.env.clock.advance(Duration::from_secs(60));
    let right = delete("PHONE", Some(by_password(session(), "secret")));
    ask(accounts, right.clone()).await.expect("deletes");
    assert_eq!(house.devices(&laptop.user).await, ["LAPTOP"]);
    assert!(
        challenge(ask(accounts, right).await).failed.is_some(),
        "a session serves once"
    );
}

#[actix::test]
async fn a_new_password_ends_other_devices_and_the_old_password() {
    let house = House::open().await;
    let laptop = house.person("alice", "LAPTOP").await;
    let phone = house
        .log_in("alice", "secret", "PHONE")
        .await
        .expect("logs in");
    let change = ChangePassword {
        who: identity(&laptop),
        new_password: "better".into(),
        logout_devices: true,
        auth: Some(by_password(None, "secret")),
    };
    ask(&house.actors.accounts, change).await.expect("changes");
    assert!(house.who(&laptop.token).await.is_some());
    assert!(house.who(&phone.token).await.is_none());
    assert!(house.log_in("alice", "secret", "PHONE").await.is_err());
    assert!(house.log_in("alice", "better", "PHONE").await.is_ok());
}

#[actix::test]
async fn a_deactivated_account_is_gone_and_its_name_stays_taken() {
    let house = House::open().await;
    let (laptop, env) = (house.person("alice", "LAPTOP").await, &house.actors.env);
    assert!(
        queries::user_exists(env, &laptop.user)
            .await
            .expect("the database answers")
    );
    let deactivate = Deactivate {
        who: identity(&laptop),
        auth: Some(by_password(None, "secret")),
    };
    ask(&house.actors.accounts, deactivate)
        .await
        .expect("deactivates");
    assert_eq!(house.who(&laptop.token).await, None);
    assert!(
        !queries::user_exists(env, &laptop.user)
            .await
            .expect("the database answers")
    );
    let gone = refusal(house.log_in("alice", "secret", "LAPTOP").await);
    assert_eq!(gone, Refusal::UserDeactivated);
    let username = "alice".to_owned();
    let taken = refusal(ask(&house.actors.accounts, Available { username }).await);
    assert_eq!(taken, Refusal::UserInUse);
}
