//! Tests of the actor on a real store: its replies, the stored rows, and what appservices are owed.

mod backup;
mod one_time;
mod signing;

use std::collections::BTreeMap;
use std::sync::Arc;

use actix::Handler;
use actix::dev::ToEnvelope;
use ruma::{OwnedDeviceId, OwnedUserId, UserId};
use schema::ServiceId;
use schema::owed::{self, Owed};
use schema::sessions::DeviceCreator;
use schema::{Position, Store, StoreOptions, accounts, counts, device_log, sessions};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::queries::{UserKeys, query_keys};
use super::*;
use crate::hooks::Hooks;
use crate::runtime::trace::Trace;
use crate::services::{Interests, Proposals, Registration};
use crate::start::StartParameters;
use crate::{Actors, Clock, Error, Identity, Ids, Refusal, Settings, ask};

struct Stage {
    actors: Actors,
    _folder: tempfile::TempDir,
}

async fn stage() -> Stage {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("db").display());
    let parameters = StartParameters {
        store: Store::open(&url, &StoreOptions::default()).expect("the store opens"),
        clock: Clock::manual(1_000),
        ids: Ids::counted(7),
        trace: Trace::new(0),
        settings: Settings {
            server_name: "test".try_into().expect("a server name"),
            observe: None,
            proposals: Proposals {
                to_device: true,
                device_lists: true,
                manages_devices: true,
                ..Proposals::default()
            },
            open_registration: true,
            presence: false,
            password_cost: (8, 1),
            default_room_version: "11".to_owned(),
        },
        hooks: Hooks::default(),
        key_proxies: Default::default(),
        faults: crate::runtime::faults::DeliveryFaults::default(),
        request_faults: crate::runtime::request_faults::RequestFaults::default(),
        appservices: None,
        fatal: Arc::new(|why| panic!("{why}")),
    };
    Stage {
        actors: crate::start(parameters).await.expect("the actors start"),
        _folder: folder,
    }
}

impl Stage {
    /// A device of this user; the user is created if necessary.
    async fn device(&self, user: &str, device: &str) -> Identity {
        let who = Identity {
            user: OwnedUserId::try_from(user).expect("a user id"),
            device: Some(OwnedDeviceId::from(device)),
            appservice: None,
        };
        let made = who.clone();
        let write = move |tx: &mut Tx<'_>| {
            let (user, device) = (made.user.as_str(), made.needs_device()?.as_str());
            accounts::register(tx, &accounts::UserRow::new(user, 0))?;
            sessions::ensure_device(tx, user, device, Some("a name"), &DeviceCreator::Person)?;
            Ok::<_, Error>(())
        };
        self.actors.env.store.write(write).await.expect("a device");
        who
    }

    /// An appservice that decides over the devices of every user whose name begins with `irc_`, and receives key counts.
    async fn service(&self) {
        let registration: Registration = serde_json::from_value(json!({"id": "irc", "url": "http://localhost:1",
            "as_token": "a", "hs_token": "h", "sender_localpart": "ircbot", "org.matrix.msc3202": true,
            "namespaces": {"users": [{"exclusive": true, "regex": "@irc_.*"}]}}))
        .expect("a registration");
        let proposals = &self.actors.env.settings.proposals;
        let interests = Interests::compile("test", vec![(registration, false)], proposals);
        let interests = std::sync::Arc::new(interests.expect("patterns compile"));
        let write = move |tx: &mut Tx<'_>| {
            crate::services::swap_interests(tx, std::sync::Arc::clone(&interests));
            Ok::<_, Error>(())
        };
        self.actors
            .env
            .store
            .write_alone(write)
            .await
            .expect("a swap");
    }

    async fn ask<M, T>(&self, message: M) -> Result<T>
    where
        KeyStore: Handler<M>,
        Context<KeyStore>: ToEnvelope<KeyStore, M>,
        M: actix::Message<Result = Result<T>> + Serialize + Send + 'static,
        T: Send + 'static,
    {
        ask(&self.actors.key_store, message).await
    }

    async fn query(&self, reader: &Identity, users: &[&str]) -> UserKeys {
        let queried = users
            .iter()
            .map(|user| (OwnedUserId::try_from(*user).expect("a user id"), Vec::new()))
            .collect();
        query_keys(&self.actors.env, reader, queried)
            .await
            .expect("an answer")
    }

    /// The devices whose key counts the appservice is owed.
    async fn owed(&self) -> Vec<String> {
        let read = |db: &mut schema::Conn| {
            let irc = ServiceId::from("irc");
            owed::waiting(db, &irc, Position::START, Position(i64::MAX), 100)
        };
        let rows = self.actors.env.store.read(read).await.expect("owed counts");
        let counts = rows.iter().filter(|row| row.kind == owed::COUNT);
        let device = |row: &Owed| row.key_parts().last().unwrap_or_default().to_owned();
        counts.map(device).collect()
    }

    /// The lines of the device-list log, oldest first.
    async fn logged(&self) -> Vec<(device_log::Kind, String)> {
        let read = |db: &mut schema::Conn| {
            device_log::log_after(db, Position::START, Position(i64::MAX), 100)
        };
        let log = self.actors.env.store.read(read).await.expect("the log");
        log.into_iter().map(|e| (e.kind, e.user_id)).collect()
    }

    /// The lines of the device-list log after the first `lines`.
    async fn logged_since(&self, lines: usize) -> Vec<(device_log::Kind, String)> {
        self.logged().await.split_off(lines)
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    to_raw_value(value).expect("JSON")
}

fn value(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).expect("JSON")
}

fn refusal<T: std::fmt::Debug>(result: Result<T>) -> Refusal {
    match result {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// Identity keys without a key: enough for tests that verify nothing.
fn identity(of: &Identity) -> Value {
    json!({"user_id": of.user, "device_id": of.device, "algorithms": ["m.megolm.v1.aes-sha2"],
        "keys": {}, "signatures": {}})
}

fn upload(from: &Identity) -> Upload {
    Upload {
        from: from.clone(),
        device_keys: None,
        one_time_keys: BTreeMap::new(),
        fallback_keys: BTreeMap::new(),
    }
}

fn keys(names: &[&str]) -> Keys {
    names
        .iter()
        .map(|name| {
            let id = format!("signed_curve25519:{name}");
            let key = json!({"key": format!("key of {name}"), "signatures": {}});
            (id.as_str().try_into().expect("a key id"), raw(&key))
        })
        .collect()
}

fn wanted(from: &[(&UserId, &str)]) -> Wanted {
    let mut wanted = Wanted::new();
    for (user, device) in from {
        wanted
            .entry((*user).to_owned())
            .or_default()
            .insert((*device).into(), "signed_curve25519".into());
    }
    wanted
}
