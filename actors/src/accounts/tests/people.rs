//! Registration, and requests that a person confirms with the password.

use super::*;

#[actix::test]
async fn a_person_registers_in_two_steps() {
    let server = TestServer::open().await;
    let accounts = &server.actors.accounts;
    let register = |name: &str, auth: Option<AuthData>| Register {
        by: Registrant::Person {
            auth,
            password: Some("secret".into()),
            address: "192.0.2.1".to_owned(),
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
        Some(AuthData {
            session: Some(session.to_owned()),
            stage: AuthStage::Dummy,
            request: "{}".into(),
        })
    };
    let again = challenge(ask(accounts, register("alice", dummy("made up"))).await);
    assert!(again.failed.is_some());
    let done = ask(accounts, register("Alice", dummy(&asked.session)))
        .await
        .expect("registers");
    assert_eq!(done.user, "@alice:test");
    let login = done.login.expect("a device");
    assert_eq!(
        server.identity_of(&login.token).await,
        Some(identity(&login))
    );

    // The answer was lost: the same request gets the same answer, as long as the token is valid.
    let repeated = || ask(accounts, register("Alice", dummy(&asked.session)));
    let again = repeated().await.expect("is answered as before");
    assert_eq!(
        (again.user, again.login.as_ref()),
        (done.user, Some(&login))
    );
    let who = identity(&login);
    ask(accounts, LogOut { who }).await.expect("logs out");
    assert_eq!(refusal(repeated().await), Refusal::UserInUse);

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

/// Clause: cs.devices.delete-confirmed
#[actix::test]
async fn a_person_confirms_a_deletion_with_the_password() {
    let server = TestServer::open().await;
    let accounts = &server.actors.accounts;
    let laptop = server.person("alice", "LAPTOP").await;
    server
        .log_in("alice", "secret", "PHONE")
        .await
        .expect("logs in");
    let delete = |device: &str, auth: Option<AuthData>| DeleteDevices {
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
    server.actors.env.clock.advance(Duration::from_secs(60));
    let right = delete("PHONE", Some(by_password(session(), "secret")));
    ask(accounts, right.clone()).await.expect("deletes");
    assert_eq!(server.devices(&laptop.user).await, ["LAPTOP"]);
    ask(accounts, right).await.expect("the answer was lost");
    let without = delete("PHONE", Some(poll(&asked.session)));
    assert!(
        ask(accounts, without).await.is_err(),
        "a session does not stand for the password"
    );
    server
        .actors
        .env
        .clock
        .advance(Duration::from_secs(15 * 60));
    let late = delete("PHONE", Some(by_password(session(), "secret")));
    assert!(challenge(ask(accounts, late).await).failed.is_some());
}

fn poll(session: &str) -> AuthData {
    AuthData {
        session: Some(session.to_owned()),
        stage: AuthStage::Poll,
        request: "{}".into(),
    }
}

/// Clause: cs.accounts.password-logout
#[actix::test]
async fn a_new_password_ends_other_devices_and_the_old_password() {
    let server = TestServer::open().await;
    let laptop = server.person("alice", "LAPTOP").await;
    let phone = server
        .log_in("alice", "secret", "PHONE")
        .await
        .expect("logs in");
    let change = ChangePassword {
        who: identity(&laptop),
        new_password: "better".into(),
        logout_devices: true,
        auth: Some(by_password(None, "secret")),
    };
    ask(&server.actors.accounts, change).await.expect("changes");
    assert!(server.identity_of(&laptop.token).await.is_some());
    assert!(server.identity_of(&phone.token).await.is_none());
    assert!(server.log_in("alice", "secret", "PHONE").await.is_err());
    assert!(server.log_in("alice", "better", "PHONE").await.is_ok());
}

#[actix::test]
async fn a_change_of_password_whose_answer_was_lost_is_answered_again() {
    let server = TestServer::open().await;
    let laptop = server.person("alice", "LAPTOP").await;
    let change = |auth| ChangePassword {
        who: identity(&laptop),
        new_password: "better".into(),
        logout_devices: false,
        auth,
    };
    let accounts = &server.actors.accounts;
    let session = challenge(ask(accounts, change(None)).await).session;
    let right = || change(Some(by_password(Some(session.clone()), "secret")));
    ask(accounts, right()).await.expect("changes");
    ask(accounts, right())
        .await
        .expect("the old password is known");
    let other = change(Some(by_password(Some(session.clone()), "guess")));
    assert!(challenge(ask(accounts, other).await).failed.is_some());
}

#[actix::test]
async fn a_deactivated_account_is_deleted_and_its_id_stays_taken() {
    let server = TestServer::open().await;
    let (laptop, env) = (server.person("alice", "LAPTOP").await, &server.actors.env);
    assert!(
        queries::user_exists(env, &laptop.user)
            .await
            .expect("the database answers")
    );
    let deactivate = Deactivate {
        erase: false,
        who: identity(&laptop),
        auth: Some(by_password(None, "secret")),
    };
    ask(&server.actors.accounts, deactivate)
        .await
        .expect("deactivates");
    assert_eq!(server.identity_of(&laptop.token).await, None);
    assert!(
        !queries::user_exists(env, &laptop.user)
            .await
            .expect("the database answers")
    );
    let wrong = refusal(server.log_in("alice", "guess", "LAPTOP").await);
    assert_eq!(
        wrong,
        refusal(server.log_in("nobody", "guess", "LAPTOP").await),
        "a wrong password learns nothing"
    );
    let gone = refusal(server.log_in("alice", "secret", "LAPTOP").await);
    assert_eq!(gone, Refusal::UserDeactivated);
    let username = "alice".to_owned();
    let taken = refusal(ask(&server.actors.accounts, Available { username }).await);
    assert_eq!(taken, Refusal::UserInUse);
}
