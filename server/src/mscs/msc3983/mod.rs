//! MSC3983 — sending one-time key claims to application services. ([proposal])
//!
//! | on the wire | |
//! |---|---|
//! | `org.matrix.msc3983: true` | in a registration: this appservice answers |
//! | `POST /_matrix/app/unstable/org.matrix.msc3983/keys/claim` | the request to the appservice, and its only name here |
//!
//! *Where* `POST /_matrix/client/*/keys/claim`, for users in an exclusive namespace and for the sender, when no one-time key is
//! stored: after that key and before the fallback key. *Versions* no flag.
//!
//! *Off* by default, on the server and for each appservice: superseded in practice. A bridge that encrypts has one device, its
//! bot's; it uploads the keys of this device and receives their counts, and its ghosts have no devices. A server that shipped
//! this proposal and MSC3984 suffered a storm of requests and removed both, and closing both has been requested. It is here for
//! appservices that store keys outside the server. Not implemented: the client endpoint that always returns the fallback key too.
//!
//! [proposal]: https://github.com/matrix-org/matrix-spec-proposals/pull/3983

use std::collections::BTreeMap;

use actors::hooks::ProposalHooks;
use actors::key_proxy::{ClaimProxy, Proxy, ReadAnswer};
use actors::key_store::queries::UserKeys;
use actors::key_store::rules::upload::{check_keys, split};
use actors::key_store::rules::{canonical, signing};
use actors::key_store::{Keys, OneTimeKeys, Wanted};
use ruma::{DeviceId, OneTimeKeyAlgorithm, OwnedDeviceId, OwnedOneTimeKeyId, OwnedUserId, UserId};
use serde_json::value::RawValue;

use super::sheet::Msc;

/// The data sheet of this proposal: its number, title, link and names.
pub const MSC: Msc = Msc {
    title: "Sending One-Time Key (OTK) claims to appservices",
    registration: &[PROXY.opt_in],
    claim_proxy: Some(ClaimProxy {
        proxy: PROXY,
        ask: question,
        read,
    }),
    hooks: ProposalHooks {
        number: 3983,
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

const PROXY: Proxy = Proxy {
    opt_in: "org.matrix.msc3983",
    endpoint: "/_matrix/app/unstable/org.matrix.msc3983/keys/claim",
};

/// The request: user → device → an algorithm for each wanted key, here always one.
fn question(wanted: &Wanted) -> String {
    let one = |devices: &BTreeMap<OwnedDeviceId, OneTimeKeyAlgorithm>| {
        let of_device = |(id, algorithm): (&OwnedDeviceId, &OneTimeKeyAlgorithm)| {
            (id.clone(), vec![algorithm.clone()])
        };
        devices.iter().map(of_device).collect()
    };
    let body: BTreeMap<&OwnedUserId, BTreeMap<_, _>> = wanted
        .iter()
        .map(|(user, devices)| (user, one(devices)))
        .collect();
    serde_json::json!(body).to_string()
}

/// The answer: user → device → keys by key id.
type ClaimResponse =
    BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, BTreeMap<String, Box<RawValue>>>>;

// ANCHOR: read
/// Take one key from the answer for each requested device. It must be of the wanted algorithm, have the form of an uploaded key,
/// and be signed by the device if the device's keys are known.
fn read(wanted: &Wanted, known: &UserKeys, text: &str) -> ReadAnswer<OneTimeKeys> {
    let (mut usable, mut dropped) = (OneTimeKeys::new(), Vec::new());
    let answer: ClaimResponse = match serde_json::from_str(text) {
        Ok(answer) => answer,
        Err(error) => {
            dropped.push(format!("all of it: {error}"));
            return ReadAnswer { usable, dropped };
        }
    };
    for (user, devices) in answer {
        for (device, keys) in devices {
            let Some(algorithm) = wanted.get(&user).and_then(|of_user| of_user.get(&device)) else {
                dropped.push(format!("{user} {device}: it was not asked for"));
                continue;
            };
            let device_keys = known
                .device_keys
                .get(&user)
                .and_then(|all| all.get(&device))
                .map(|keys| &**keys);
            for (id, key) in keys {
                let of_user = usable.entry(user.clone()).or_default();
                let checked = match of_user.contains_key(&device) {
                    true => Err("one key was asked for".to_owned()),
                    false => check(&user, &device, algorithm, device_keys, &id, key),
                };
                match checked {
                    Ok(key) => drop(of_user.insert(device.clone(), key)),
                    Err(why) => dropped.push(format!("{user} {device} {id}: {why}")),
                }
            }
        }
    }
    usable.retain(|_, devices| !devices.is_empty());
    ReadAnswer { usable, dropped }
}

fn check(
    user: &UserId,
    device: &DeviceId,
    algorithm: &OneTimeKeyAlgorithm,
    device_keys: Option<&RawValue>,
    id: &str,
    key: Box<RawValue>,
) -> Result<Keys, String> {
    let key_id = OwnedOneTimeKeyId::try_from(id).map_err(|e| e.to_string())?;
    if split(id).0 != algorithm.as_str() {
        return Err(format!("{algorithm} was asked for"));
    }
    let key = Keys::from([(key_id, key)]);
    check_keys(&key).map_err(|e| e.to_string())?;
    if let Some(device_keys) = device_keys
        && *algorithm == OneTimeKeyAlgorithm::SignedCurve25519
        && !key
            .values()
            .all(|key| is_signed(user, device, device_keys, key))
    {
        return Err("the device has not signed it".to_owned());
    }
    Ok(key)
}
// ANCHOR_END: read

fn is_signed(user: &UserId, device: &DeviceId, device_keys: &RawValue, key: &RawValue) -> bool {
    let id = format!("ed25519:{device}");
    let public_key = signing::device_signing_key(device_keys.get(), &id);
    let Ok(object) = canonical(key.get()) else {
        return false;
    };
    let signature = signing::signatures_of(&object, user).find(|(by, _)| *by == id);
    public_key.is_some_and(|public_key| {
        signature.is_some_and(|(_, signature)| signing::verifies(&object, &public_key, signature))
    })
}
