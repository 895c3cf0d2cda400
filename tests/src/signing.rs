//! Ed25519 keys that are the same in every run, and objects that they sign: device keys and cross-signing keys in transcripts.

use ruma::CanonicalJsonObject;
use ruma::serde::Base64;
use ruma::serde::base64::Standard;
use ruma::signatures::{Ed25519KeyPair, sign_json};
use serde_json::{Value, json};

/// An Ed25519 key of a device, or a cross-signing key, whose name is its public key.
pub struct Key {
    pair: Ed25519KeyPair,
    /// The public key in base64.
    pub public: String,
    /// The name under which it signs: `ed25519:` and a device id or the public key.
    pub id: String,
}

impl Key {
    fn new(seed: u8, name: Option<&str>) -> Key {
        // An Ed25519 private key as PKCS#8 version 1: a fixed prefix and the seed (RFC 8410).
        let head = [
            0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
        ];
        let der = [&head[..], &[seed; 32]].concat();
        let named = |name: &str| Ed25519KeyPair::from_der(&der, name.to_owned()).expect("a key");
        let public = Base64::<Standard, _>::new(named("").public_key().to_vec()).encode();
        let name = name.unwrap_or(&public);
        Key {
            pair: named(name),
            id: format!("ed25519:{name}"),
            public,
        }
    }

    /// The signing key of a device.
    #[must_use]
    pub fn of_device(seed: u8, device: &str) -> Key {
        Key::new(seed, Some(device))
    }

    /// A cross-signing key.
    #[must_use]
    pub fn cross_signing(seed: u8) -> Key {
        Key::new(seed, None)
    }

    /// Signs an object as the user.
    #[must_use]
    pub fn signs(&self, user: &str, object: Value) -> Value {
        let mut object: CanonicalJsonObject =
            serde_json::from_value(object).expect("a canonical object");
        sign_json(user, &self.pair, &mut object).expect("it can be signed");
        serde_json::to_value(object).expect("JSON")
    }

    /// The object that declares this key as the user's cross-signing key for a usage.
    #[must_use]
    pub fn as_cross_signing_key(&self, user: &str, usage: &str) -> Value {
        json!({"user_id": user, "usage": [usage], "keys": {&self.id: self.public}})
    }

    /// The identity keys of a device with this key, signed with it.
    #[must_use]
    pub fn device_keys(&self, user: &str, device: &str) -> Value {
        let algorithms = ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"];
        let curve = format!("curve25519:{device}");
        let keys =
            json!({curve: "Zm9yIHRoaXMgc3RvcnkgYW55IDMyIGJ5dGVzIHdpbGw", &self.id: self.public});
        let unsigned =
            json!({"user_id": user, "device_id": device, "algorithms": algorithms, "keys": keys});
        self.signs(user, unsigned)
    }

    /// A one-time key, signed with this device key.
    #[must_use]
    pub fn one_time_key(&self, user: &str, key: &str) -> Value {
        self.signs(user, json!({"key": key}))
    }
}
