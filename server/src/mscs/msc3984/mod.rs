//! MSC3984 — sending key queries to application services. ([proposal])
//!
//! | on the wire | |
//! |---|---|
//! | `org.matrix.msc3984: true` | in a registration: this appservice answers |
//! | `POST /_matrix/app/unstable/org.matrix.msc3984/keys/query` | the request to the appservice, and its only name here |
//!
//! *Where* `POST /_matrix/client/*/keys/query`, for users in an exclusive namespace and for the sender. The appservice's answer
//! takes precedence over stored keys, for each device and each cross-signing key. *Versions* no flag.
//!
//! *Off* by default, on the server and for each appservice: superseded in practice, like MSC3983, and more expensive. Clients query
//! keys for every member of a room, so a busy room causes a storm of requests; a server that shipped the proposal removed it for
//! that reason. Here each user is requested at most once in ten seconds, whichever client queries, and an appservice that does not
//! know the endpoint is not asked again for ten minutes.
//!
//! [proposal]: https://github.com/matrix-org/matrix-spec-proposals/pull/3984

use std::collections::{BTreeMap, BTreeSet};

use actors::hooks::ProposalHooks;
use actors::key_proxy::{Proxy, QueryProxy, ReadAnswer};
use actors::key_store::queries::UserKeys;
use actors::key_store::rules::signing::{
    SigningKey, Usage, device_signing_key, parse_signing_key, signature_by, signatures_of, verifies,
};
use actors::key_store::rules::upload::check_device_keys;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::sheet::Msc;

/// The data sheet of this proposal: its number, title, link and names.
pub const MSC: Msc = Msc {
    title: "Sending key queries to appservices",
    registration: &[PROXY.opt_in],
    query_proxy: Some(QueryProxy {
        proxy: PROXY,
        ask: question,
        read,
    }),
    hooks: ProposalHooks {
        number: 3984,
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

const PROXY: Proxy = Proxy {
    opt_in: "org.matrix.msc3984",
    endpoint: "/_matrix/app/unstable/org.matrix.msc3984/keys/query",
};

/// The request: user → `[]`, which means all devices, so that one answer serves all queries.
fn question(users: &BTreeSet<OwnedUserId>) -> String {
    let body: BTreeMap<&OwnedUserId, [(); 0]> = users.iter().map(|user| (user, [])).collect();
    serde_json::json!(body).to_string()
}

type PerUser = BTreeMap<OwnedUserId, Box<RawValue>>;

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct KeysResponse {
    device_keys: BTreeMap<OwnedUserId, BTreeMap<OwnedDeviceId, Box<RawValue>>>,
    master_keys: PerUser,
    self_signing_keys: PerUser,
    user_signing_keys: PerUser,
}

// ANCHOR: read
/// Take from the answer what the requested users could have uploaded themselves: device keys signed by the device, a master key,
/// and the other cross-signing keys if the master key signs them.
fn read(users: &BTreeSet<OwnedUserId>, text: &str) -> ReadAnswer<UserKeys> {
    let (mut usable, mut dropped) = (UserKeys::default(), Vec::new());
    let answer: KeysResponse = match serde_json::from_str(text) {
        Ok(answer) => answer,
        Err(error) => {
            dropped.push(format!("all of it: {error}"));
            return ReadAnswer { usable, dropped };
        }
    };
    let mut keep = |user: &OwnedUserId, what: &str, checked: Result<(), String>| {
        let asked = match users.contains(user) {
            true => checked,
            false => Err("it was not asked for".to_owned()),
        };
        asked
            .map_err(|why| dropped.push(format!("{user} {what}: {why}")))
            .is_ok()
    };
    for (user, devices) in answer.device_keys {
        for (device, keys) in devices {
            if keep(&user, device.as_str(), check_device(&user, &device, &keys)) {
                let of_user = usable.device_keys.entry(user.clone()).or_default();
                of_user.insert(device, keys);
            }
        }
    }
    let mut masters: BTreeMap<OwnedUserId, SigningKey> = BTreeMap::new();
    for (user, key) in answer.master_keys {
        let parsed = parse_signing_key(&key, Usage::Master, &user).map_err(|e| e.to_string());
        let parsed = parsed.map(|master| masters.insert(user.clone(), master));
        if keep(&user, "master", parsed.map(drop)) {
            usable.master_keys.insert(user, key);
        }
    }
    let others = [
        (
            Usage::SelfSigning,
            answer.self_signing_keys,
            &mut usable.self_signing_keys,
        ),
        (
            Usage::UserSigning,
            answer.user_signing_keys,
            &mut usable.user_signing_keys,
        ),
    ];
    for (usage, keys, of_usage) in others {
        for (user, key) in keys {
            let checked = check_signed(&user, usage, &key, masters.get(&user));
            if keep(&user, usage.as_str(), checked) {
                of_usage.insert(user, key);
            }
        }
    }
    ReadAnswer { usable, dropped }
}
// ANCHOR_END: read

fn check_device(user: &UserId, device: &DeviceId, keys: &RawValue) -> Result<(), String> {
    let object = check_device_keys(keys, user, device).map_err(|e| e.to_string())?;
    let id = format!("ed25519:{device}");
    let public_key = device_signing_key(keys.get(), &id).ok_or("it has no key to sign with")?;
    let mut signatures = signatures_of(&object, user);
    match signatures.find(|(by, _)| *by == id) {
        Some((_, signature)) if verifies(&object, &public_key, signature) => Ok(()),
        _ => Err("the device has not signed it".to_owned()),
    }
}

fn check_signed(
    user: &UserId,
    usage: Usage,
    key: &RawValue,
    master: Option<&SigningKey>,
) -> Result<(), String> {
    let key = parse_signing_key(key, usage, user).map_err(|e| e.to_string())?;
    let master = master.ok_or("it comes without the master key that signs it")?;
    signature_by(&key.object, user, &master.public_key).map_err(|e| e.to_string())?;
    Ok(())
}
