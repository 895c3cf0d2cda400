//! Tests of the accounts actor with a real database.

mod client_data;
mod people;
mod services;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use ruma::{OwnedUserId, UserId, device_id, owned_user_id, user_id};
use schema::ServiceId;
use schema::inbox::InboxRow;
use schema::owed::{self, Owed};
use schema::{Position, Store, accounts, client_transactions, counts, device_log, inbox, keys};
use serde_json::json;

use super::messages::*;
use super::queries;
use crate::hooks::Hooks;
use crate::runtime::error::Challenge;
use crate::runtime::trace::Trace;
use crate::services::Proposals;
use crate::start::StartParameters;
use crate::{Actors, Clock, Error, Identity, Ids, Refusal, Result, Secret, Settings, ask, start};

/// All actors with a new database, with an appservice that logs in and one that creates devices without it (MSC4190).
struct TestServer {
    actors: Actors,
    _folder: tempfile::TempDir,
}

impl TestServer {
    async fn open() -> TestServer {
        let folder = tempfile::tempdir().expect("a folder");
        let services = folder.path().join("services");
        std::fs::create_dir(&services).expect("a folder");
        for (id, msc4190) in [("irc", false), ("mau", true)] {
            let registration = json!({
                "id": id, "url": null, "as_token": format!("as-{id}"), "hs_token": format!("hs-{id}"),
                "sender_localpart": format!("{id}bot"), "io.element.msc4190": msc4190,
                "namespaces": {"users": [{"exclusive": true, "regex": format!("@{id}_.*")}]},
            });
            let file = services.join(format!("{id}.yaml"));
            std::fs::write(file, registration.to_string()).expect("a registration");
        }
        let url = format!("sqlite:{}", folder.path().join("db").display());
        let parameters = StartParameters {
            store: Store::open(&url, &schema::StoreOptions::default()).expect("a store"),
            clock: Clock::manual(1_700_000_000_000),
            ids: Ids::counted(7),
            trace: Trace::new(0),
            settings: Settings {
                server_name: ruma::owned_server_name!("test"),
                open_registration: true,
                presence: false,
                observe: None,
                proposals: Proposals {
                    manages_devices: true,
                    ..Proposals::default()
                },
                password_cost: (8, 1),
                default_room_version: "11".to_owned(),
            },
            hooks: Hooks::default(),
            key_proxies: Default::default(),
            faults: crate::runtime::faults::DeliveryFaults::default(),
            request_faults: crate::runtime::request_faults::RequestFaults::default(),
            appservices: Some(services),
            fatal: Arc::new(|why| panic!("{why}")),
        };
        TestServer {
            actors: start(parameters).await.expect("the actors start"),
            _folder: folder,
        }
    }

    /// A person with a device.
    async fn person(&self, name: &str, device: &str) -> LoggedIn {
        let register = Register {
            by: Registrant::Operator {
                password: "secret".into(),
            },
            username: Some(name.to_owned()),
            device: Some(device.into()),
            display_name: None,
            inhibit_login: false,
        };
        let registered = ask(&self.actors.accounts, register).await;
        registered.expect("registers").login.expect("a device")
    }

    async fn log_in(&self, user: &str, password: &str, device: &str) -> Result<LoggedIn> {
        let log_in = LogIn {
            credentials: Credentials::Password {
                user: user.to_owned(),
                password: password.into(),
            },
            device: Some(device.into()),
            display_name: None,
        };
        ask(&self.actors.accounts, log_in).await
    }

    /// A user of an appservice, without a device.
    async fn ghost(&self, service: &str, name: &str) -> Result<OwnedUserId> {
        let register = Register {
            by: Registrant::Service(service.into()),
            username: Some(name.to_owned()),
            device: None,
            display_name: None,
            inhibit_login: true,
        };
        Ok(ask(&self.actors.accounts, register).await?.user)
    }

    async fn identity_of(&self, token: &Secret) -> Option<Identity> {
        let found = queries::identity_of(&self.actors.env, token).await;
        found.expect("the database answers")
    }

    async fn devices(&self, user: &UserId) -> Vec<String> {
        let rows = queries::devices(&self.actors.env, user).await;
        let rows = rows.expect("the database answers");
        rows.into_iter().map(|row| row.device_id).collect()
    }

    /// The number of lines about a user in the device-list log.
    async fn listed(&self, user: &UserId) -> usize {
        let user = user.to_string();
        let entries = self
            .actors
            .env
            .store
            .read(|db| device_log::log_after(db, Position::START, Position(i64::MAX), 1000));
        let entries = entries.await.expect("the database answers");
        entries.into_iter().filter(|e| e.user_id == user).count()
    }
}

fn identity(login: &LoggedIn) -> Identity {
    Identity {
        user: login.user.clone(),
        device: Some(login.device.clone()),
        appservice: None,
    }
}

fn masquerading(service: &str, user: &UserId) -> Identity {
    Identity {
        user: user.to_owned(),
        device: None,
        appservice: Some(service.into()),
    }
}

fn by_password(session: Option<String>, password: &str) -> AuthData {
    AuthData {
        session,
        stage: AuthStage::Password {
            user: "alice".to_owned(),
            password: password.into(),
        },
        request: "{}".into(),
    }
}

fn refusal<T: std::fmt::Debug>(result: Result<T>) -> Refusal {
    match result {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn challenge<T: std::fmt::Debug>(result: Result<T>) -> Challenge {
    match refusal(result) {
        Refusal::Unconfirmed(challenge) => challenge,
        other => panic!("not asked to confirm: {other:?}"),
    }
}
