//! The encryption of one device: Olm and Megolm, without HTTP. Encryption is real; its random values get names in the transcript.
//!
//! The [specification](https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption) describes the messages.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use vodozemac::megolm::{
    GroupSession, InboundGroupSession, MegolmMessage, SessionConfig as MegolmConfig, SessionKey,
};
use vodozemac::olm::{Account, OlmMessage, Session, SessionConfig};
use vodozemac::{Curve25519PublicKey, Ed25519PublicKey, Ed25519Signature, KeyId};

use crate::log::Log;

/// The algorithm of to-device messages.
pub const OLM: &str = "m.olm.v1.curve25519-aes-sha2";

/// The algorithm of events.
pub const MEGOLM: &str = "m.megolm.v1.aes-sha2";

/// A device of somebody, whose signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The user.
    pub user: String,
    /// The device id.
    pub device: String,
    /// Its Curve25519 key.
    pub curve: String,
    /// Its Ed25519 key.
    pub ed: String,
}

/// The Megolm session with which a device encrypts in a room.
struct Outbound {
    session: GroupSession,
    /// The users and devices to which its key was sent.
    shared: BTreeSet<(String, String)>,
}

/// The keys and sessions of a device.
pub struct Crypto {
    name: String,
    user: String,
    device: String,
    account: Account,
    /// The Olm sessions, by the Curve25519 key of the other device.
    olm: BTreeMap<String, Vec<Session>>,
    outbound: BTreeMap<String, Outbound>,
    /// The Megolm sessions of others, by room and session id.
    inbound: BTreeMap<(String, String), InboundGroupSession>,
    log: Log,
}

/// The text that is signed: canonical JSON without `signatures` and `unsigned`. The keys of a [`Map`] are sorted.
pub(crate) fn signed_text(object: &Value) -> String {
    let mut object = object.as_object().cloned().unwrap_or_default();
    object.remove("signatures");
    object.remove("unsigned");
    Value::Object(object).to_string()
}

/// Whether a device has signed an object.
fn is_signed(object: &Value, user: &str, device: &str, ed: &str) -> bool {
    let signature = object["signatures"][user][format!("ed25519:{device}")].as_str();
    let signature = signature.and_then(|text| Ed25519Signature::from_base64(text).ok());
    let key = Ed25519PublicKey::from_base64(ed).ok();
    key.zip(signature).is_some_and(|(key, signature)| {
        key.verify(signed_text(object).as_bytes(), &signature)
            .is_ok()
    })
}

/// The device of an answer to `/keys/query`, if its signature is right.
#[must_use]
pub fn peer(user: &str, device: &str, keys: &Value) -> Option<Peer> {
    let key = |algorithm: &str| keys["keys"][format!("{algorithm}:{device}")].as_str();
    let (curve, ed) = (key("curve25519")?, key("ed25519")?);
    let is_right =
        keys["user_id"] == user && keys["device_id"] == device && is_signed(keys, user, device, ed);
    is_right.then(|| Peer {
        user: user.to_owned(),
        device: device.to_owned(),
        curve: curve.to_owned(),
        ed: ed.to_owned(),
    })
}

impl Crypto {
    /// New keys for a device. `name` is its name in the transcript.
    #[must_use]
    pub fn new(name: &str, user: &str, device: &str, log: Log) -> Crypto {
        let account = Account::new();
        log.label(
            &account.curve25519_key().to_base64(),
            &format!("Curve25519 key of {name}"),
        );
        log.label(
            &account.ed25519_key().to_base64(),
            &format!("Ed25519 key of {name}"),
        );
        Crypto {
            name: name.to_owned(),
            user: user.to_owned(),
            device: device.to_owned(),
            account,
            olm: BTreeMap::new(),
            outbound: BTreeMap::new(),
            inbound: BTreeMap::new(),
            log,
        }
    }

    /// The object with the signature of the device alone.
    pub(crate) fn sign(&self, mut object: Value) -> Value {
        let signature = self.account.sign(signed_text(&object)).to_base64();
        self.log
            .label(&signature, &format!("signature of {}", self.name));
        object["signatures"] = json!({&self.user: {format!("ed25519:{}", self.device): signature}});
        object
    }

    /// The signed device keys.
    #[must_use]
    pub fn device_keys(&self) -> Value {
        self.sign(json!({
            "user_id": self.user, "device_id": self.device, "algorithms": [OLM, MEGOLM],
            "keys": {
                format!("curve25519:{}", self.device): self.account.curve25519_key().to_base64(),
                format!("ed25519:{}", self.device): self.account.ed25519_key().to_base64(),
            },
        }))
    }

    /// The body of an upload of so many new one-time keys.
    pub fn one_time_keys(&mut self, number: usize) -> Value {
        self.account.generate_one_time_keys(number);
        let keys = self.account.one_time_keys();
        let keys = self.signed_keys(keys, "one-time key", false);
        self.account.mark_keys_as_published();
        Value::Object(keys)
    }

    /// The body of an upload of a new fallback key.
    pub fn fallback_keys(&mut self) -> Value {
        self.account.generate_fallback_key();
        let keys = self.account.fallback_key();
        let keys = self.signed_keys(keys, "fallback key", true);
        self.account.mark_keys_as_published();
        Value::Object(keys)
    }

    fn signed_keys(
        &self,
        keys: impl IntoIterator<Item = (KeyId, Curve25519PublicKey)>,
        what: &str,
        fallback: bool,
    ) -> Map<String, Value> {
        // The account keeps them in no order.
        let keys: BTreeMap<String, String> = keys
            .into_iter()
            .map(|(id, key)| (id.to_base64(), key.to_base64()))
            .collect();
        let signed = keys.into_iter().map(|(id, key)| {
            self.log.label(&key, &format!("{what} of {}", self.name));
            let object = match fallback {
                true => json!({"key": key, "fallback": true}),
                false => json!({"key": key}),
            };
            (format!("signed_curve25519:{id}"), self.sign(object))
        });
        signed.collect()
    }

    /// Whether a message can be encrypted to this device without a claim.
    #[must_use]
    pub fn knows(&self, peer: &Peer) -> bool {
        self.olm.contains_key(&peer.curve)
    }

    /// Begins an Olm session with a claimed key of a device.
    ///
    /// # Errors
    /// If the device has not signed the key, or it is no key.
    pub fn begin(&mut self, peer: &Peer, claimed: &Value) -> Result<(), String> {
        let of = format!("the claimed key of {}/{}", peer.user, peer.device);
        if !is_signed(claimed, &peer.user, &peer.device, &peer.ed) {
            return Err(format!("{of} is not signed by the device: {claimed}"));
        }
        let key =
            |text: &str| Curve25519PublicKey::from_base64(text).map_err(|e| format!("{of}: {e}"));
        let theirs = key(&peer.curve)?;
        let one_time = key(claimed["key"].as_str().unwrap_or_default())?;
        let config = SessionConfig::version_1();
        let session = self
            .account
            .create_outbound_session(config, theirs, one_time)
            .map_err(|e| format!("{of}: {e}"))?;
        self.olm
            .entry(peer.curve.clone())
            .or_default()
            .push(session);
        Ok(())
    }

    /// The content of an encrypted to-device message.
    ///
    /// # Errors
    /// If there is no session with the device.
    pub fn encrypt_to(
        &mut self,
        peer: &Peer,
        kind: &str,
        content: &Value,
    ) -> Result<Value, String> {
        let clear = json!({
            "type": kind, "content": content, "sender": self.user, "recipient": peer.user,
            "keys": {"ed25519": self.account.ed25519_key().to_base64()}, "recipient_keys": {"ed25519": peer.ed},
        });
        let session = self.olm.get_mut(&peer.curve).and_then(|all| all.last_mut());
        let session =
            session.ok_or_else(|| format!("no Olm session with {}/{}", peer.user, peer.device))?;
        let message = session
            .encrypt(clear.to_string())
            .map_err(|e| e.to_string())?;
        let (kind, ciphertext) = match &message {
            OlmMessage::PreKey(message) => (0, message.to_base64()),
            OlmMessage::Normal(message) => (1, message.to_base64()),
        };
        self.log
            .label(&ciphertext, &format!("Olm message of {}", self.name));
        Ok(json!({
            "algorithm": OLM, "sender_key": self.account.curve25519_key().to_base64(),
            "ciphertext": {&peer.curve: {"type": kind, "body": ciphertext}},
        }))
    }

    /// Takes a to-device message. A room key is kept. Returns what was encrypted for this device.
    ///
    /// # Errors
    /// If it is encrypted for this device and cannot be decrypted.
    pub fn receive(&mut self, event: &Value) -> Result<Option<Value>, String> {
        let content = &event["content"];
        let own = self.account.curve25519_key().to_base64();
        let ciphertext = &content["ciphertext"][&own];
        if event["type"] != "m.room.encrypted"
            || content["algorithm"] != OLM
            || ciphertext.is_null()
        {
            return Ok(None);
        }
        let sender_key = content["sender_key"].as_str().unwrap_or_default();
        let body = ciphertext["body"].as_str().unwrap_or_default();
        let message = match ciphertext["type"].as_u64() {
            Some(0) => vodozemac::olm::PreKeyMessage::from_base64(body).map(OlmMessage::PreKey),
            _ => vodozemac::olm::Message::from_base64(body).map(OlmMessage::Normal),
        };
        let message = message.map_err(|e| format!("an Olm message: {e}"))?;
        let clear = self.decrypt_olm(sender_key, &message)?;
        let clear: Value =
            serde_json::from_slice(&clear).map_err(|e| format!("an Olm message: {e}"))?;
        if clear["recipient"] != self.user.as_str() || clear["sender"] != event["sender"] {
            return Err(format!(
                "an Olm message for {} of {}",
                clear["recipient"], clear["sender"]
            ));
        }
        if clear["type"] == "m.room_key" {
            let field = |name: &str| {
                clear["content"][name]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            let key = SessionKey::from_base64(&field("session_key"))
                .map_err(|e| format!("a room key: {e}"))?;
            let session = InboundGroupSession::new(&key, MegolmConfig::version_1());
            self.inbound
                .insert((field("room_id"), session.session_id()), session);
        }
        Ok(Some(clear))
    }

    fn decrypt_olm(&mut self, sender_key: &str, message: &OlmMessage) -> Result<Vec<u8>, String> {
        let sessions = self.olm.entry(sender_key.to_owned()).or_default();
        if let Some(clear) = sessions
            .iter_mut()
            .find_map(|session| session.decrypt(message).ok())
        {
            return Ok(clear);
        }
        let OlmMessage::PreKey(first) = message else {
            return Err(format!(
                "an Olm message of {sender_key}: no session decrypts it"
            ));
        };
        let theirs = Curve25519PublicKey::from_base64(sender_key).map_err(|e| e.to_string())?;
        let begun = self
            .account
            .create_inbound_session(SessionConfig::version_1(), theirs, first);
        let begun = begun.map_err(|e| format!("an Olm message of {sender_key}: {e}"))?;
        sessions.push(begun.session);
        Ok(begun.plaintext)
    }

    /// The devices that need the key of the room's session, and the key. A session whose key a user had that is no longer among
    /// `peers` is replaced.
    pub fn to_share(&mut self, room: &str, peers: &[Peer]) -> (Vec<Peer>, Value) {
        let is_there = |user: &str| peers.iter().any(|peer| peer.user == user);
        let is_old = self
            .outbound
            .get(room)
            .is_some_and(|o| o.shared.iter().any(|(user, _)| !is_there(user)));
        if is_old {
            self.outbound.remove(room);
        }
        if !self.outbound.contains_key(room) {
            let session = GroupSession::new(MegolmConfig::version_1());
            let id = session.session_id();
            self.log
                .label(&id, &format!("Megolm session of {}", self.name));
            let own = InboundGroupSession::new(&session.session_key(), MegolmConfig::version_1());
            self.inbound.insert((room.to_owned(), id), own);
            let shared = BTreeSet::new();
            self.outbound
                .insert(room.to_owned(), Outbound { session, shared });
        }
        let Some(outbound) = self.outbound.get(room) else {
            return (Vec::new(), Value::Null);
        };
        let has = |peer: &&Peer| {
            !outbound
                .shared
                .contains(&(peer.user.clone(), peer.device.clone()))
        };
        let key = json!({
            "algorithm": MEGOLM, "room_id": room, "session_id": outbound.session.session_id(),
            "session_key": outbound.session.session_key().to_base64(),
        });
        (peers.iter().filter(has).cloned().collect(), key)
    }

    /// Records that these devices have the key of the room's session.
    pub fn was_shared(&mut self, room: &str, peers: &[Peer]) {
        if let Some(outbound) = self.outbound.get_mut(room) {
            outbound.shared.extend(
                peers
                    .iter()
                    .map(|peer| (peer.user.clone(), peer.device.clone())),
            );
        }
    }

    /// The content of an encrypted event with a text.
    ///
    /// # Errors
    /// If there is no session for the room.
    pub fn encrypt(&mut self, room: &str, text: &str) -> Result<Value, String> {
        let outbound = self
            .outbound
            .get_mut(room)
            .ok_or_else(|| format!("no Megolm session for {room}"))?;
        let clear = json!({"type": "m.room.message", "room_id": room, "content": {"msgtype": "m.text", "body": text}});
        let ciphertext = outbound.session.encrypt(clear.to_string()).to_base64();
        self.log
            .label(&ciphertext, &format!("Megolm message of {}", self.name));
        Ok(json!({
            "algorithm": MEGOLM, "ciphertext": ciphertext, "session_id": outbound.session.session_id(),
            "sender_key": self.account.curve25519_key().to_base64(), "device_id": self.device,
        }))
    }

    /// The text of an encrypted event.
    ///
    /// # Errors
    /// If the device has no key for it.
    pub fn decrypt(&mut self, room: &str, event: &Value) -> Result<String, String> {
        let field = |name: &str| event["content"][name].as_str().unwrap_or_default();
        let id = field("session_id").to_owned();
        let session = self.inbound.get_mut(&(room.to_owned(), id));
        let session = session.ok_or("the device has no key of its Megolm session")?;
        let message = MegolmMessage::from_base64(field("ciphertext")).map_err(|e| e.to_string())?;
        let clear = session.decrypt(&message).map_err(|e| e.to_string())?;
        let clear: Value = serde_json::from_slice(&clear.plaintext).map_err(|e| e.to_string())?;
        if clear["room_id"] != room {
            return Err(format!("it was encrypted for {}", clear["room_id"]));
        }
        Ok(clear["content"]["body"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_key_and_an_event_reach_another_device() {
        let device = |user: &str, id: &str| Crypto::new(user, user, id, Log::default());
        let (mut alice, mut bob) = (device("@alice:test", "A"), device("@bob:test", "B"));
        let bob_keys = bob.device_keys();
        let bob_peer = peer("@bob:test", "B", &bob_keys).expect("signed keys");
        let mut forged = bob_keys.clone();
        forged["algorithms"] = json!([]);
        assert_eq!(peer("@bob:test", "B", &forged), None);

        let keys = bob.one_time_keys(1);
        let claimed = keys
            .as_object()
            .expect("keys")
            .values()
            .next()
            .expect("a key")
            .clone();
        assert!(
            alice
                .begin(&bob_peer, &json!({"key": claimed["key"]}))
                .is_err()
        );
        alice.begin(&bob_peer, &claimed).expect("a session");
        let (to, key) = alice.to_share("!r:test", std::slice::from_ref(&bob_peer));
        assert_eq!(to, std::slice::from_ref(&bob_peer));
        let content = alice
            .encrypt_to(&bob_peer, "m.room_key", &key)
            .expect("encrypted");
        let event =
            json!({"type": "m.room.encrypted", "sender": "@alice:test", "content": content});
        let clear = bob.receive(&event).expect("decrypted").expect("for bob");
        assert_eq!(
            (&clear["type"], &clear["content"]),
            (&json!("m.room_key"), &key)
        );
        alice.was_shared("!r:test", &to);
        assert!(alice.to_share("!r:test", &to).0.is_empty());
        let event = json!({"content": alice.encrypt("!r:test", "hello").expect("encrypted")});
        assert_eq!(bob.decrypt("!r:test", &event).as_deref(), Ok("hello"));
        assert!(bob.decrypt("!s:test", &event).is_err());
    }
}
