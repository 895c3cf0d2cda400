//! The cross-signing keys of a user: real Ed25519 keys that sign each other and a device.
//!
//! The [specification](https://spec.matrix.org/v1.19/client-server-api/#cross-signing) describes the objects.

use serde_json::{Value, json};
use vodozemac::Ed25519SecretKey;

use crate::crypto::signed_text;
use crate::encryption::device;
use crate::homeserver::{Done, Halt};
use crate::log::Log;
use crate::world::World;

/// The cross-signing keys of a user.
struct CrossSigning {
    user: String,
    master: Ed25519SecretKey,
    self_signing: Ed25519SecretKey,
    user_signing: Ed25519SecretKey,
    log: Log,
}

impl CrossSigning {
    fn new(user: &str, log: Log) -> CrossSigning {
        let key = |what: &str| {
            let key = Ed25519SecretKey::new();
            let public = key.public_key().to_base64();
            log.label(&public, &format!("{what} key of {user}"));
            key
        };
        CrossSigning {
            user: user.to_owned(),
            master: key("master"),
            self_signing: key("self-signing"),
            user_signing: key("user-signing"),
            log,
        }
    }

    fn object(&self, key: &Ed25519SecretKey, usage: &str) -> Value {
        let public = key.public_key().to_base64();
        json!({"user_id": self.user, "usage": [usage], "keys": {format!("ed25519:{public}"): public}})
    }

    /// The object with one signature more.
    fn signed(&self, by: &Ed25519SecretKey, mut object: Value) -> Value {
        let signature = by.sign(signed_text(&object).as_bytes()).to_base64();
        self.log
            .label(&signature, &format!("cross-signature of {}", self.user));
        let id = format!("ed25519:{}", by.public_key().to_base64());
        object["signatures"][&self.user][id] = json!(signature);
        object
    }

    /// The body of `POST /keys/device_signing/upload`.
    fn upload(&self) -> Value {
        let of = |key, usage| self.signed(&self.master, self.object(key, usage));
        json!({
            "master_key": self.object(&self.master, "master"),
            "self_signing_key": of(&self.self_signing, "self_signing"),
            "user_signing_key": of(&self.user_signing, "user_signing"),
        })
    }
}

/// Creates the cross-signing keys of the user of a device, uploads them, and signs the device with them and the master key with the
/// device.
///
/// # Errors
/// If the device has no keys, or the homeserver refuses.
pub(crate) async fn set_up(world: &mut World, name: &str) -> Done {
    let client = world.client(name)?;
    let keys = CrossSigning::new(&client.user, world.log.clone());
    let crypto = device(world, name)?;
    let signed_device = keys.signed(&keys.self_signing, crypto.device_keys());
    let signed_master = crypto.sign(keys.object(&keys.master, "master"));

    let path = "/keys/device_signing/upload";
    let mut body = keys.upload();
    let mut reply = client.ask("POST", path, Some(&body)).await?;
    if reply.status == 401 && reply.body["session"].is_string() {
        body["auth"] = world.confirmation(&client.user, &reply.body["session"]);
        reply = client.ask("POST", path, Some(&body)).await?;
    }
    if !reply.is_ok() {
        let came = reply.shown();
        let why = format!("POST {path}\n  expected  200\n  came      {came}");
        return Err(Halt::Failed(why));
    }

    // Both are changes of the device list. Whether they are sent in one transaction must not depend on the machine.
    world.server.settle().await?;
    let (user, device) = (&client.user, client.device.unwrap_or_default());
    let master = keys.master.public_key().to_base64();
    let body = json!({user: {device: signed_device, master: signed_master}});
    let path = "/keys/signatures/upload";
    let answer = world.client(name)?.must("POST", path, Some(&body)).await?;
    match answer["failures"].as_object() {
        Some(failures) if !failures.is_empty() => Err(Halt::Failed(format!(
            "POST {path}\n  expected  no failures\n  came      {answer}"
        ))),
        _ => Ok(()),
    }
}
