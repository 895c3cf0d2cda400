//! MSC4350 — encryption impersonation for application services. ([proposal])
//!
//! | on the wire until it is accepted | after |
//! |---|---|
//! | `fi.mau.msc4350.impersonator` | `impersonator` |
//!
//! *Where* the device keys in `POST /_matrix/client/*/keys/upload`, `…/keys/signatures/upload` and `…/keys/query`.
//! *Registration* no flag. *Versions* no flag. *Off* unless the operator names it: nothing that is deployed depends on it.
//!
//! A bridge encrypts for all its ghosts with one device, its bot's, and clients may warn that the sender of an event does not own
//! the device. With this proposal a ghost has a device without keys that names the bot's device as its impersonator. The server
//! rejects malformed device keys, lets the bot sign the ghost's device, and shows that signature to all users. Clients check for
//! themselves whether the bot's device is cross-signed and the bot is in the room.
//!
//! [proposal]: https://github.com/matrix-org/matrix-spec-proposals/pull/4350

use std::collections::BTreeMap;

use actors::Refusal;
use actors::hooks::ProposalHooks;
use actors::wire::{DeviceSigner, Name};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, OwnedDeviceId, OwnedUserId};
use serde::Deserialize;

use super::sheet::Msc;

/// The data sheet of this proposal: its number, title, link and names.
pub const MSC: Msc = Msc {
    title: "Permitting encryption impersonation for appservices",
    names: &[IMPERSONATOR],
    hooks: ProposalHooks {
        number: 4350,
        device_signer: Some(impersonator),
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

const IMPERSONATOR: Name = Name {
    unstable: "fi.mau.msc4350.impersonator",
    stable: "impersonator",
};

// ANCHOR: impersonator
/// The impersonator of a device: the device keys of another user, without `signatures`. The device itself then has no algorithms
/// and no keys. Only the unstable name is read: it is part of the signed object, so a server cannot translate it. Clause: as.impersonation.no-keys, as.impersonation.bytes
fn impersonator(keys: &CanonicalJsonObject) -> Result<Option<DeviceSigner>, Refusal> {
    /// The required keys. `algorithms` is only checked to be a list of strings.
    #[derive(Deserialize)]
    struct DeviceKeys {
        user_id: OwnedUserId,
        device_id: OwnedDeviceId,
        #[serde(rename = "algorithms")]
        _algorithms: Vec<String>,
        keys: BTreeMap<String, String>,
    }
    let Some(named) = keys.get(IMPERSONATOR.unstable) else {
        return Ok(None);
    };
    let invalid = |why: &'static str| Refusal::InvalidParam(why.into());
    if named
        .as_object()
        .is_some_and(|o| o.contains_key("signatures"))
    {
        return Err(invalid("the impersonator is named without its signatures"));
    }
    let is_empty = |value: Option<&CanonicalJsonValue>| match value {
        Some(CanonicalJsonValue::Array(list)) => list.is_empty(),
        Some(CanonicalJsonValue::Object(object)) => object.is_empty(),
        _ => false,
    };
    if !is_empty(keys.get("algorithms")) || !is_empty(keys.get("keys")) {
        return Err(invalid(
            "a device with an impersonator has no algorithms and no keys",
        ));
    }
    let named = serde_json::Value::from(named.clone());
    let mut by: DeviceKeys = serde_json::from_value(named)
        .map_err(|e| Refusal::BadJson(format!("the impersonator: {e}").into()))?;
    if keys.get("user_id").and_then(CanonicalJsonValue::as_str) == Some(by.user_id.as_str()) {
        return Err(invalid("a user cannot impersonate itself"));
    }
    let signing_key = format!("ed25519:{}", by.device_id);
    let public_key = by.keys.remove(&signing_key);
    Ok(Some(DeviceSigner {
        public_key: public_key.ok_or(invalid("the impersonator has no key to sign with"))?,
        user: by.user_id,
        device: by.device_id,
    }))
}
// ANCHOR_END: impersonator

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn keys() -> Value {
        json!({"user_id": "@irc_bob:test", "device_id": "GHOST", "algorithms": [], "keys": {}, "signatures": {},
            "fi.mau.msc4350.impersonator": {"user_id": "@ircbot:test", "device_id": "BOT",
                "algorithms": ["m.megolm.v1.aes-sha2"], "keys": {"ed25519:BOT": "key"}}})
    }

    fn found(keys: Value) -> Result<Option<DeviceSigner>, Refusal> {
        impersonator(&serde_json::from_value(keys).expect("canonical"))
    }

    #[test]
    fn an_impersonator_is_found_by_its_unstable_name() {
        let by = found(keys()).expect("well-formed").expect("named");
        assert_eq!(
            (by.user.as_str(), by.device.as_str(), by.public_key.as_str()),
            ("@ircbot:test", "BOT", "key")
        );
        let mut stable = keys();
        stable["impersonator"] = stable["fi.mau.msc4350.impersonator"].take();
        let object = stable.as_object_mut().expect("an object");
        object.remove("fi.mau.msc4350.impersonator");
        assert_eq!(found(stable), Ok(None));
    }

    #[test]
    fn what_is_malformed_is_not_taken_in() {
        let cases: [(&str, Value); 8] = [
            ("/algorithms", json!(["m.megolm.v1.aes-sha2"])),
            ("/keys", json!({"ed25519:GHOST": "k"})),
            ("/fi.mau.msc4350.impersonator", json!("@ircbot:test")),
            ("/fi.mau.msc4350.impersonator/user_id", json!("ircbot")),
            (
                "/fi.mau.msc4350.impersonator/user_id",
                json!("@irc_bob:test"),
            ),
            (
                "/fi.mau.msc4350.impersonator/keys",
                json!({"ed25519:OTHER": "k"}),
            ),
            (
                "/fi.mau.msc4350.impersonator/keys",
                json!({"ed25519:BOT": 1}),
            ),
            ("/fi.mau.msc4350.impersonator/algorithms", Value::Null),
        ];
        for (at, wrong) in cases {
            let mut keys = keys();
            *keys.pointer_mut(at).expect("there") = wrong.clone();
            assert!(found(keys).is_err(), "{at}: {wrong}");
        }
        let mut signed = keys();
        signed["fi.mau.msc4350.impersonator"]["signatures"] = json!({});
        assert!(found(signed).is_err());
    }
}
