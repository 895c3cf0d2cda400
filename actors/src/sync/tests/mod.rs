//! Tests of `/sync` with a real database and all actors.

mod ephemeral;
mod rooms;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use ruma::{OwnedRoomId, OwnedUserId, UserId};
use schema::accounts::{self, UserRow};
use schema::sessions::{DeviceCreator, ensure_device};
use schema::{Store, StoreOptions, Tx, user_data};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::*;
use crate::appservice_sender::TakeEphemeral;
use crate::hooks::Hooks;
use crate::rooms::{
    Action, ChangeMembership, CreateRoom, Enter, Entrance, InitialState, MarkRead, Preset,
    ReadMarker, ReadMarkerKind, SendEvent,
};
use crate::runtime::trace::Trace;
use crate::services::{Interests, Proposals};
use crate::start::{StartParameters, start};
use crate::to_device_inbox::{Deposit, Target};
use crate::{Actors, Clock, Error, Identity, Ids, Refusal, Settings, ask};

struct TestServer {
    actors: Actors,
    _folder: tempfile::TempDir,
}

fn user(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:test")).expect("a user id")
}

/// `ann` stands for ann's first device; `ann/TWO` for another one.
fn by(name: &str) -> Identity {
    let (name, device) = name.split_once('/').unwrap_or((name, "ONE"));
    Identity {
        user: user(name),
        device: Some(device.into()),
        appservice: None,
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("JSON")
}

fn request(name: &str, since: Option<&str>) -> SyncRequest {
    SyncRequest {
        query: [].into(),
        presence: "offline".to_owned(),
        by: by(name),
        since: since.map(str::to_owned),
        filter: None,
        full_state: false,
        timeout: Duration::ZERO,
        state_at: StateAt::Start,
    }
}

fn next(answer: &Value) -> &str {
    answer["next_batch"].as_str().expect("a token")
}

/// The bodies of a room's messages in an answer; other events by their type.
fn timeline(answer: &Value, section: &str, room: &OwnedRoomId) -> Vec<String> {
    let events = &answer["rooms"][section][room.as_str()]["timeline"]["events"];
    let events = events.as_array().cloned().unwrap_or_default();
    let name = |event: &Value| {
        let text = event["content"]["body"].as_str().or(event["type"].as_str());
        text.unwrap_or_default().to_owned()
    };
    events.iter().map(name).collect()
}

impl TestServer {
    async fn new() -> TestServer {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("db").display());
        let actors = start(StartParameters {
            store: Store::open(&url, &StoreOptions::default()).expect("a store"),
            clock: Clock::manual(1_000),
            ids: Ids::counted(7),
            trace: Trace::new(0),
            settings: Settings {
                server_name: "test".try_into().expect("a name"),
                observe: None,
                proposals: Proposals::default(),
                password_cost: (8, 1),
                default_room_version: "11".to_owned(),
                open_registration: true,
                presence: false,
            },
            hooks: Hooks::default(),
            key_proxies: Default::default(),
            faults: crate::runtime::faults::DeliveryFaults::default(),
            request_faults: crate::runtime::request_faults::RequestFaults::default(),
            appservices: None,
            fatal: Arc::new(|why| panic!("{why}")),
        })
        .await
        .expect("actors");
        let server = TestServer {
            actors,
            _folder: folder,
        };
        for name in ["ann", "ann/TWO", "bob", "cat"] {
            let Identity { user, device, .. } = by(name);
            server
                .write(move |tx| {
                    let device = device.as_ref().expect("a device");
                    accounts::register(tx, &UserRow::new(user.as_str(), 0))?;
                    ensure_device(
                        tx,
                        user.as_str(),
                        device.as_str(),
                        None,
                        &DeviceCreator::Person,
                    )
                })
                .await;
        }
        server
    }

    async fn write<T: Send + 'static>(
        &self,
        write: impl Fn(&mut Tx<'_>) -> schema::Result<T> + Send + 'static,
    ) -> T {
        self.actors.env.store.write(write).await.expect("a write")
    }

    async fn ask(&self, request: SyncRequest) -> Result<Value> {
        let json = answer(&self.actors, request, || ()).await?;
        Ok(serde_json::from_str(&json).expect("JSON"))
    }

    async fn sync(&self, name: &str, since: Option<&str>) -> Value {
        self.ask(request(name, since)).await.expect("an answer")
    }

    /// Start a request that waits; it is waiting when this returns.
    async fn wait(&self, name: &str, since: &str) -> tokio::task::JoinHandle<Value> {
        let request = SyncRequest {
            timeout: Duration::from_secs(30),
            ..request(name, Some(since))
        };
        let before = self.waiting().await;
        let actors = self.actors.clone();
        let waiting = actix::spawn(async move {
            let json = answer(&actors, request, || ()).await.expect("an answer");
            serde_json::from_str(&json).expect("JSON")
        });
        while self.waiting().await == before {
            tokio::task::yield_now().await;
        }
        waiting
    }

    async fn waiting(&self) -> usize {
        ask(&self.actors.sync, Observe)
            .await
            .expect("a view")
            .waiting
    }

    async fn room(&self, creator: &str) -> OwnedRoomId {
        let request = CreateRoom {
            preset: Some(Preset::Public),
            ..CreateRoom::new(by(creator))
        };
        ask(&self.actors.rooms, request).await.expect("a room")
    }

    async fn say(&self, name: &str, room: &OwnedRoomId, text: &str) {
        let message = SendEvent {
            by: by(name),
            room: room.clone(),
            kind: "m.room.message".to_owned(),
            txn: text.into(),
            content: raw(&json!({"msgtype": "m.text", "body": text})),
            at: None,
        };
        ask(&self.actors.rooms, message).await.expect("said");
    }

    async fn join(&self, name: &str, room: &OwnedRoomId) {
        let message = Enter {
            by: by(name),
            room: room.clone().into(),
            how: Entrance::Join,
            reason: None,
        };
        ask(&self.actors.rooms, message).await.expect("joined");
    }

    async fn act(&self, name: &str, action: Action, target: &str, room: &OwnedRoomId) {
        let message = ChangeMembership {
            by: by(name),
            room: room.clone(),
            user: user(target),
            action,
            reason: None,
        };
        ask(&self.actors.rooms, message).await.expect("done");
    }

    async fn send_to(&self, name: &str, texts: impl IntoIterator<Item = String>) {
        for text in texts {
            let Identity { user, device, .. } = by(name);
            let to = Target::Device(device.expect("a device"));
            let content = raw(&json!({ "text": text }));
            let message = Deposit {
                from: by("cat"),
                txn: text.as_str().into(),
                event_type: "m.test".to_owned(),
                messages: [(user, [(to, content)].into())].into(),
            };
            ask(&self.actors.to_device_inbox, message)
                .await
                .expect("deposited");
        }
    }

    async fn type_in(&self, name: &str, room: &OwnedRoomId, seconds: Option<u64>) -> Result<()> {
        let message = SetTyping {
            user: user(name),
            room: room.clone(),
            time: seconds.map(Duration::from_secs),
        };
        ask(&self.actors.sync, message).await
    }
}

fn received(answer: &Value) -> Vec<String> {
    let events = answer["to_device"]["events"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    events
        .iter()
        .map(|e| e["content"]["text"].as_str().expect("text").to_owned())
        .collect()
}
