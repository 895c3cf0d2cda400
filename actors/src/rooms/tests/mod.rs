//! Tests of the rooms actor with a real database.

mod making;
mod membership;
mod reading;
mod services;

use std::collections::BTreeSet;
use std::sync::Arc;

use ruma::state_res::Event as _;
use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use schema::events::EventRow;
use schema::owed::{self, Owed};
use schema::{Position, Store, StoreOptions, accounts, aliases, events, memberships, rooms};
use serde_json::{Value, json};

use super::*;
use crate::hooks::Hooks;
use crate::runtime::trace::Trace;
use crate::services::{Interests, Proposals};
use crate::start::{StartParameters, start};
use crate::{Actors, Clock, Identity, Ids, Refusal, Settings, ask};

struct TestServer {
    actors: Actors,
    _folder: tempfile::TempDir,
}

fn user(name: &str) -> OwnedUserId {
    UserId::parse(format!("@{name}:test")).expect("a user id")
}

fn by(name: &str) -> Identity {
    Identity {
        user: user(name),
        device: Some("DEV".into()),
        appservice: None,
    }
}

fn raw(value: &Value) -> Box<serde_json::value::RawValue> {
    serde_json::value::to_raw_value(value).expect("JSON")
}

fn refusal<T>(result: Result<T>) -> Refusal {
    match result {
        Err(Error::Refused(refusal)) => refusal,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("was not refused"),
    }
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
        TestServer {
            actors,
            _folder: folder,
        }
    }

    /// Register appservices, each by id and the pattern of its users.
    async fn services(&self, all: &'static [(&'static str, &'static str)]) {
        let registrations = all
            .iter()
            .map(|(id, users)| {
                let value = json!({"id": id, "url": "http://localhost:9", "as_token": id, "hs_token": id,
                    "sender_localpart": format!("{id}bot"),
                    "namespaces": {"users": [{"exclusive": true, "regex": users}],
                                   "aliases": [{"exclusive": true, "regex": format!("#{id}_.*")}]}});
                (serde_json::from_value(value).expect("a registration"), false)
            })
            .collect();
        let interests =
            Interests::compile("test", registrations, &Proposals::default()).expect("patterns");
        let interests = std::sync::Arc::new(interests);
        self.actors
            .env
            .store
            .write_alone(move |tx| {
                crate::services::swap_interests(tx, std::sync::Arc::clone(&interests));
                Ok::<_, Error>(())
            })
            .await
            .expect("swapped");
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut schema::Conn) -> schema::Result<T> + Send + 'static,
    ) -> T {
        self.actors.env.store.read(read).await.expect("a read")
    }

    async fn create(&self, request: CreateRoom) -> Result<OwnedRoomId> {
        ask(&self.actors.rooms, request).await
    }

    async fn room(&self, creator: &str, preset: Preset) -> OwnedRoomId {
        let request = CreateRoom {
            preset: Some(preset),
            ..CreateRoom::new(by(creator))
        };
        self.create(request).await.expect("a room")
    }

    async fn say(&self, name: &str, room: &RoomId, text: &str) -> Result<OwnedEventId> {
        let message = SendEvent {
            by: by(name),
            room: room.to_owned(),
            kind: "m.room.message".to_owned(),
            txn: text.into(),
            content: raw(&json!({"msgtype": "m.text", "body": text})),
            at: None,
        };
        ask(&self.actors.rooms, message).await
    }

    async fn set(
        &self,
        name: &str,
        room: &RoomId,
        kind: &str,
        content: Value,
    ) -> Result<OwnedEventId> {
        let message = SetState {
            by: by(name),
            room: room.to_owned(),
            kind: kind.to_owned(),
            state_key: String::new(),
            content: raw(&content),
            at: None,
        };
        ask(&self.actors.rooms, message).await
    }

    async fn join(&self, name: &str, room: &RoomId) -> Result<OwnedRoomId> {
        let message = Enter {
            by: by(name),
            room: room.to_owned().into(),
            how: Entrance::Join,
            reason: None,
        };
        ask(&self.actors.rooms, message).await
    }

    async fn act(&self, name: &str, action: Action, target: &str, room: &RoomId) -> Result<()> {
        let message = ChangeMembership {
            by: by(name),
            room: room.to_owned(),
            user: user(target),
            action,
            reason: None,
        };
        ask(&self.actors.rooms, message).await
    }

    async fn event(&self, id: &EventId) -> EventRow {
        let id = id.to_string();
        self.read(move |db| events::by_id(db, &id))
            .await
            .expect("an event")
    }

    async fn membership(&self, room: &RoomId, name: &str) -> String {
        let (room, user) = (room.to_string(), user(name).to_string());
        self.read(move |db| memberships::get(db, &room, &user))
            .await
            .map(|m| m.membership)
            .unwrap_or_default()
    }

    /// The room events that an appservice is owed, in order.
    async fn owed(&self, service: &'static str) -> Vec<EventRow> {
        self.read(move |db| {
            let end = Position(i64::MAX);
            let rows = owed::waiting(db, &service.into(), Position::START, end, 1000)?;
            let events = rows.iter().filter(|row| row.kind == owed::EVENT);
            events::at(db, &events.map(Owed::position).collect::<Vec<_>>())
        })
        .await
    }
}

fn forbidden<T>(result: Result<T>) -> String {
    match refusal(result) {
        Refusal::Forbidden(rule) => rule.into_owned(),
        other => panic!("{other:?}"),
    }
}
