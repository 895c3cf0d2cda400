//! Real Olm and Megolm: the crypto crate of matrix-rust-sdk, fed by `/sync` for a user and only by transactions for a bot. It
//! uses its own version of ruma; the two versions exchange only JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use matrix_sdk_crypto::store::types::DehydratedDeviceKey;
use matrix_sdk_crypto::types::requests::{AnyOutgoingRequest, ToDeviceRequest};
use matrix_sdk_crypto::{
    DecryptionSettings, EncryptionSettings, EncryptionSyncChanges, OlmMachine, TrustRequirement,
};
use ruma_crypto::api::IncomingResponse;
use ruma_crypto::api::client::keys::{claim_keys, get_keys, upload_keys};
use ruma_crypto::api::client::to_device::send_event_to_device;
use ruma_crypto::serde::Raw;
use ruma_crypto::{
    DeviceId, OneTimeKeyAlgorithm, OwnedUserId, RoomId, TransactionId, UInt, UserId,
};
use serde_json::{Value, json};

use crate::person::{Answer, Person, segment};

const DEHYDRATED: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";

/// A device with encryption keys.
pub struct Crypto {
    machine: OlmMachine,
    /// The client of the device.
    pub person: Person,
}

fn response<R: IncomingResponse>(answer: Answer) -> R {
    let response = http::Response::builder()
        .status(answer.status)
        .body(answer.body.to_string().into_bytes())
        .expect("a response");
    R::try_from_http_response(response)
        .unwrap_or_else(|_| panic!("an unexpected answer: {}", answer.body))
}

fn settings() -> DecryptionSettings {
    DecryptionSettings {
        sender_device_trust_requirement: TrustRequirement::Untrusted,
    }
}

impl Crypto {
    async fn new(person: Person) -> Crypto {
        let user = UserId::parse(&person.user_id).expect("a user id");
        let device = <&DeviceId>::from(person.device_id.as_deref().expect("a device"));
        Crypto {
            machine: OlmMachine::new(&user, device).await,
            person,
        }
    }

    /// Sends the requests that the machine has waiting: uploads of keys, queries for changed users, answers to key requests.
    pub async fn flush(&self) {
        for _ in 0..10 {
            let requests = self
                .machine
                .outgoing_requests()
                .await
                .expect("the store works");
            if requests.is_empty() {
                return;
            }
            for request in requests {
                self.send(request.request_id(), request.request()).await;
            }
        }
    }

    async fn send(&self, id: &TransactionId, request: &AnyOutgoingRequest) {
        let done = match request {
            AnyOutgoingRequest::KeysUpload(r) => {
                let body = json!({"device_keys": r.device_keys, "one_time_keys": r.one_time_keys, "fallback_keys": r.fallback_keys});
                let answer: upload_keys::v3::Response =
                    response(self.person.post("/keys/upload", &without_nulls(body)).await);
                self.machine.mark_request_as_sent(id, &answer).await
            }
            AnyOutgoingRequest::KeysQuery(r) => {
                let answer = self
                    .person
                    .post("/keys/query", &json!({"device_keys": r.device_keys}))
                    .await;
                let answer: get_keys::v3::Response = response(answer);
                self.machine.mark_request_as_sent(id, &answer).await
            }
            AnyOutgoingRequest::KeysClaim(r) => {
                let answer = self
                    .person
                    .post("/keys/claim", &json!({"one_time_keys": r.one_time_keys}))
                    .await;
                let answer: claim_keys::v3::Response = response(answer);
                self.machine.mark_request_as_sent(id, &answer).await
            }
            AnyOutgoingRequest::ToDeviceRequest(r) => return self.send_to_device(r).await,
            other => panic!("no test sends {other:?}"),
        };
        done.expect("the machine takes the answer");
    }

    async fn send_to_device(&self, request: &ToDeviceRequest) {
        let path = format!("/sendToDevice/{}/{}", request.event_type, request.txn_id);
        let answer = self
            .person
            .put(&path, &json!({"messages": request.messages}))
            .await;
        let answer: send_event_to_device::v3::Response = response(answer);
        self.machine
            .mark_request_as_sent(&request.txn_id, &answer)
            .await
            .expect("the machine takes the answer");
    }

    /// Encrypts a text for these users and sends it to a room. Returns the event id.
    pub async fn say(&self, room: &str, users: &[String], text: &str) -> String {
        let room_id = RoomId::parse(room).expect("a room id");
        let users: Vec<OwnedUserId> = users
            .iter()
            .map(|u| UserId::parse(u).expect("a user id"))
            .collect();
        let all = || users.iter().map(AsRef::as_ref);
        self.machine
            .update_tracked_users(all())
            .await
            .expect("the store works");
        self.flush().await;
        if let Some((id, claim)) = self
            .machine
            .get_missing_sessions(all())
            .await
            .expect("the store works")
        {
            self.send(&id, &AnyOutgoingRequest::KeysClaim(claim)).await;
        }
        let keys: Vec<Arc<ToDeviceRequest>> = self
            .machine
            .share_room_key(&room_id, all(), EncryptionSettings::default())
            .await
            .expect("keys can be shared");
        for request in keys {
            self.send_to_device(&request).await;
        }
        let content = Raw::new(&json!({"msgtype": "m.text", "body": text}))
            .expect("JSON")
            .cast_unchecked();
        let encrypted = self
            .machine
            .encrypt_room_event_raw(&room_id, "m.room.message", &content)
            .await
            .expect("encrypted");
        let content: Value = encrypted.content.deserialize_as_unchecked().expect("JSON");
        let path = format!(
            "/rooms/{}/send/m.room.encrypted/{}",
            segment(room),
            TransactionId::new()
        );
        let sent = self.person.put(&path, &content).await.ok();
        sent["event_id"].as_str().expect("an event id").to_owned()
    }

    /// Decrypts a room event and returns its text.
    ///
    /// # Errors
    /// The reason why it cannot be decrypted.
    pub async fn read(&self, room: &str, event: &Value) -> Result<String, String> {
        let room_id = RoomId::parse(room).expect("a room id");
        let raw = Raw::new(event).expect("JSON").cast_unchecked();
        let decrypted = self
            .machine
            .decrypt_room_event(&raw, &room_id, &settings())
            .await
            .map_err(|e| e.to_string())?;
        let clear: Value = decrypted
            .event
            .deserialize_as_unchecked()
            .map_err(|e| e.to_string())?;
        Ok(clear["content"]["body"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    /// Stores a dehydrated device on the server (MSC3814), encrypted with this key. Returns its id.
    pub async fn dehydrates(&self, key: &DehydratedDeviceKey) -> String {
        let identity = self.machine.bootstrap_cross_signing(false).await;
        let keys = identity
            .expect("cross-signing keys")
            .upload_signing_keys_req;
        let body = json!({"master_key": keys.master_key, "self_signing_key": keys.self_signing_key,
            "user_signing_key": keys.user_signing_key});
        let path = "/keys/device_signing/upload";
        self.person.post(path, &body).await.ok();
        let device = self.machine.dehydrated_devices();
        let device = device.create().await.expect("a dehydrated device");
        let put = device.keys_for_upload("dehydrated".to_owned(), key).await;
        let put = put.expect("keys of the device");
        let body = json!({"device_id": put.device_id, "device_data": put.device_data, "device_keys": put.device_keys,
            "initial_device_display_name": put.initial_device_display_name,
            "one_time_keys": put.one_time_keys, "fallback_keys": put.fallback_keys});
        let answer = self.person.put(DEHYDRATED, &body).await.ok();
        assert_eq!(answer["device_id"], put.device_id.as_str());
        put.device_id.to_string()
    }

    /// Fetches the dehydrated device with what came for it. Returns the number of room keys that this device has from it.
    pub async fn rehydrates(&self, key: &DehydratedDeviceKey) -> usize {
        let stored = self.person.get(DEHYDRATED).await.ok();
        let id = stored["device_id"].as_str().expect("a device id");
        let data = Raw::new(&stored["device_data"]).expect("JSON");
        let devices = self.machine.dehydrated_devices();
        let device = devices
            .rehydrate(key, id.into(), data.cast_unchecked())
            .await
            .expect("the device is opened");
        let (mut body, mut keys) = (json!({}), 0);
        loop {
            let path = format!("{DEHYDRATED}/{}/events", segment(id));
            let page = self.person.post(&path, &body).await.ok();
            let events = page["events"].as_array().expect("events");
            if events.is_empty() {
                return keys;
            }
            let raw = |event| Raw::new(event).expect("JSON").cast_unchecked();
            let events = events.iter().map(raw).collect();
            let taken = device.receive_events(events, &settings()).await;
            keys += taken.expect("the messages are taken").len();
            body = json!({"next_batch": page["next_batch"]});
        }
    }

    /// Processes to-device messages, changed device lists and key counts, and sends the requests that follow.
    async fn take(&self, to_device: &Value, lists: &Value, counts: &Value, fallback: &Value) {
        let to_device_events = to_device
            .as_array()
            .into_iter()
            .flatten()
            .map(|event| Raw::new(event).expect("JSON").cast_unchecked())
            .collect();
        let changed_devices =
            serde_json::from_value(non_null(lists, json!({}))).expect("device lists");
        let one_time_keys_counts: BTreeMap<OneTimeKeyAlgorithm, UInt> =
            serde_json::from_value(non_null(counts, json!({}))).expect("counts");
        let unused: Option<Vec<OneTimeKeyAlgorithm>> =
            serde_json::from_value(fallback.clone()).expect("algorithms");
        let changes = EncryptionSyncChanges {
            to_device_events,
            changed_devices: &changed_devices,
            one_time_keys_counts: &one_time_keys_counts,
            unused_fallback_keys: unused.as_deref(),
            next_batch_token: None,
        };
        self.machine
            .receive_sync_changes(changes, &settings())
            .await
            .expect("the changes are taken");
        self.flush().await;
    }
}

fn without_nulls(mut body: Value) -> Value {
    if let Some(map) = body.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    body
}

fn non_null(value: &Value, default: Value) -> Value {
    if value.is_null() {
        default
    } else {
        value.clone()
    }
}

/// A user whose client uses `/sync`.
pub struct CryptoPerson {
    /// The device.
    pub crypto: Crypto,
    since: Option<String>,
}

impl CryptoPerson {
    /// Creates and uploads the keys of the user's device.
    pub async fn new(person: Person) -> CryptoPerson {
        let crypto = Crypto::new(person).await;
        crypto.flush().await;
        CryptoPerson {
            crypto,
            since: None,
        }
    }

    /// Sends requests to another address from now on.
    pub fn move_to(&mut self, base: &str) {
        self.crypto.person = self.crypto.person.moved_to(base);
    }

    /// Makes one `/sync` request and processes the answer. Returns the timeline events of a room.
    pub async fn sync(&mut self, room: &str, timeout_ms: u64) -> Vec<Value> {
        let since = self
            .since
            .as_ref()
            .map(|s| format!("&since={s}"))
            .unwrap_or_default();
        let answer = self
            .crypto
            .person
            .get(&format!("/sync?timeout={timeout_ms}{since}"))
            .await
            .ok();
        let counts = &answer["device_one_time_keys_count"];
        let fallback = &answer["device_unused_fallback_key_types"];
        self.crypto
            .take(
                &answer["to_device"]["events"],
                &answer["device_lists"],
                counts,
                fallback,
            )
            .await;
        self.since = answer["next_batch"].as_str().map(ToOwned::to_owned);
        let joined = &answer["rooms"]["join"][room];
        joined["timeline"]["events"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }
}

/// A bot of an appservice, with a device of its own, fed only by transactions.
pub struct CryptoBot {
    /// The device.
    pub crypto: Crypto,
}

impl CryptoBot {
    /// Creates the device through the appservice, then creates and uploads its keys.
    pub async fn new(bot: &Person, device: &str) -> CryptoBot {
        bot.put(
            &format!("/devices/{device}"),
            &json!({"display_name": "bridge"}),
        )
        .await
        .ok();
        let playing = bot.playing(&bot.user_id, Some(device));
        let crypto = Crypto::new(playing).await;
        crypto.flush().await;
        CryptoBot { crypto }
    }

    /// Sends requests to another address from now on.
    pub fn move_to(&mut self, base: &str) {
        self.crypto.person = self.crypto.person.moved_to(base);
    }

    /// Processes what a transaction contains for this device. Returns the events of the transaction.
    pub async fn take(&self, transaction: &Value) -> Vec<Value> {
        let me = &self.crypto.person;
        let device = me.device_id.as_deref().unwrap_or_default();
        let mine = |event: &&Value| {
            event["to_user_id"] == me.user_id.as_str() && event["to_device_id"] == device
        };
        let all = transaction["de.sorunome.msc2409.to_device"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let to_device: Vec<&Value> = all.iter().filter(mine).collect();
        let lists = &transaction["org.matrix.msc3202.device_lists"];
        let counts =
            &transaction["org.matrix.msc3202.device_one_time_keys_count"][&me.user_id][device];
        let fallback = &transaction["org.matrix.msc3202.device_unused_fallback_key_types"]
            [&me.user_id][device];
        self.crypto
            .take(&json!(to_device), lists, counts, fallback)
            .await;
        transaction["events"]
            .as_array()
            .cloned()
            .unwrap_or_default()
    }
}
