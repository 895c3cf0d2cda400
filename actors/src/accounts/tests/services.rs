//! Users and devices that application services create.

use super::*;

/// Clause: as.devices.create, cs.devices.rename-missing
#[actix::test]
async fn services_create_devices_and_persons_do_not() {
    let server = TestServer::open().await;
    let (accounts, env) = (&server.actors.accounts, &server.actors.env);
    let bob = server.ghost("mau", "mau_bob").await.expect("registers");
    let put = |who: Identity, name: Option<&str>| PutDevice {
        who,
        device: "NEW".into(),
        display_name: name.map(str::to_owned),
    };
    let bridge = || masquerading("mau", &bob);
    assert!(ask(accounts, put(bridge(), None)).await.expect("makes"));
    assert!(
        !ask(accounts, put(bridge(), Some("bridge")))
            .await
            .expect("names")
    );
    let row = queries::device(env, &bob, device_id!("NEW"))
        .await
        .expect("a device");
    assert_eq!(row.display_name.as_deref(), Some("bridge"));
    assert_eq!(
        (row.appservice_id.as_deref(), row.own_login),
        (Some("mau"), false)
    );
    // Created, renamed, renamed to the same name.
    assert!(
        !ask(accounts, put(bridge(), Some("bridge")))
            .await
            .expect("names")
    );
    assert_eq!(server.listed(&bob).await, 2);

    let alice = server.person("alice", "LAPTOP").await;
    let refused = refusal(ask(accounts, put(identity(&alice), None)).await);
    assert!(matches!(refused, Refusal::NotFound(_)));
    let row = queries::device(env, &alice.user, &alice.device)
        .await
        .expect("a device");
    assert_eq!((row.appservice_id, row.own_login), (None, true));
}

/// Clause: as.users.register
#[actix::test]
async fn services_register_and_log_in_as_their_registration_allows() {
    let server = TestServer::open().await;
    let accounts = &server.actors.accounts;
    let log_in = |service: &str, user: &str| LogIn {
        credentials: Credentials::Service {
            service: service.into(),
            user: user.to_owned(),
        },
        device: Some("BOT".into()),
        display_name: None,
    };
    let bob = server
        .ghost("irc", "irc_Bob-away")
        .await
        .expect("registers");
    assert_eq!(
        refusal(server.ghost("irc", "irc_Bob-away").await),
        Refusal::UserInUse
    );
    assert_eq!(
        refusal(server.ghost("irc", "ircbot").await),
        Refusal::UserInUse
    );
    for foreign in ["mau_bob", "alice"] {
        let refused = refusal(server.ghost("irc", foreign).await);
        assert!(matches!(refused, Refusal::Exclusive(_)), "{foreign}");
    }
    let login = ask(accounts, log_in("irc", bob.as_str()))
        .await
        .expect("logs in");
    assert_eq!(
        server.identity_of(&login.token).await,
        Some(identity(&login))
    );
    let refused = refusal(ask(accounts, log_in("irc", "mau_bob")).await);
    assert!(matches!(refused, Refusal::Exclusive(_)));

    let with_device = Register {
        by: Registrant::Service("mau".into()),
        username: Some("mau_carol".to_owned()),
        device: None,
        display_name: None,
        inhibit_login: false,
    };
    server.ghost("mau", "mau_bob").await.expect("registers");
    for refused in [
        refusal(ask(accounts, with_device).await),
        refusal(ask(accounts, log_in("mau", "mau_bob")).await),
    ] {
        assert!(matches!(refused, Refusal::AppserviceLoginUnsupported(_)));
    }
    let exists = queries::user_exists(&server.actors.env, user_id!("@mau_carol:test")).await;
    assert!(
        !exists.expect("the database answers"),
        "refused, so not registered"
    );
}
