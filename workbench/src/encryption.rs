//! The steps with real encryption: what a device uploads, claims, sends and reads.

use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::crypto::{self, Crypto, Peer};
use crate::format::Within;
use crate::homeserver::{Done, Halt};
use crate::names::segment;
use crate::requests::{send, sync};
use crate::world::{Actor, World};

/// Creates the keys of a device, and uploads them.
///
/// # Errors
/// If the homeserver refuses.
pub(crate) async fn upload(world: &mut World, name: &str, one_time: usize) -> Done {
    let log = world.log.clone();
    let actor = world.actor(name)?;
    let device = actor.client.device.clone();
    let device = device.ok_or_else(|| format!("{name} has no device; write {name}/DEVICE"))?;
    let mut crypto = Crypto::new(&actor.client.name, &actor.client.user, &device, log);
    let mut body =
        json!({"device_keys": crypto.device_keys(), "fallback_keys": crypto.fallback_keys()});
    if one_time > 0 {
        body["one_time_keys"] = crypto.one_time_keys(one_time);
    }
    actor.crypto = Some(crypto);
    world
        .client(name)?
        .must("POST", "/keys/upload", Some(&body))
        .await?;
    Ok(())
}

/// Uploads further one-time keys.
///
/// # Errors
/// If the homeserver refuses.
pub(crate) async fn upload_more(world: &mut World, name: &str, number: usize) -> Done {
    let keys = device(world, name)?.one_time_keys(number);
    let body = json!({"one_time_keys": keys});
    world
        .client(name)?
        .must("POST", "/keys/upload", Some(&body))
        .await?;
    Ok(())
}

/// The keys of a device.
///
/// # Errors
/// If no step has created them.
pub(crate) fn device<'a>(world: &'a mut World, name: &str) -> Result<&'a mut Crypto, String> {
    let crypto = world.actor(name)?.crypto.as_mut();
    crypto.ok_or_else(|| {
        format!("{name} has no keys yet; add the step `{name}: uploads its keys` before")
    })
}

/// Claims a one-time key of each of these devices. Returns the user, the device and the signed key of those that had one.
///
/// # Errors
/// If the homeserver refuses.
pub(crate) async fn claim(
    world: &mut World,
    name: &str,
    of: &[(String, String)],
) -> Done<Vec<(String, String, Value)>> {
    let mut wanted = Map::new();
    for (user, device) in of {
        let devices = wanted.entry(user.clone()).or_insert_with(|| json!({}));
        devices[device] = json!("signed_curve25519");
    }
    let body = json!({"one_time_keys": wanted});
    let answer = world
        .client(name)?
        .must("POST", "/keys/claim", Some(&body))
        .await?;
    let key = |(user, device): &(String, String)| {
        let keys = answer["one_time_keys"][user][device].as_object()?;
        Some((user.clone(), device.clone(), keys.values().next()?.clone()))
    };
    Ok(of.iter().filter_map(key).collect())
}

/// Encrypts a text for the devices of the members of a room, sends the key to those that lack it, and sends the event.
///
/// # Errors
/// If the homeserver refuses, or a signature is wrong.
pub(crate) async fn say(world: &mut World, name: &str, text: &str, room: &str) -> Done {
    let text = world.names.text(text)?;
    let id = world.names.room(room)?;
    device(world, name)?;
    let members = members(world, name, &id).await?;
    let peers = peers(world, name, members).await?;
    meet(world, name, &peers).await?;
    let crypto = device(world, name)?;
    let (lacking, key) = crypto.to_share(&id, &peers);
    let lacking: Vec<Peer> = lacking
        .into_iter()
        .filter(|peer| crypto.knows(peer))
        .collect();
    let mut messages = Map::new();
    for peer in &lacking {
        let content = crypto.encrypt_to(peer, "m.room_key", &key)?;
        let devices = messages
            .entry(peer.user.clone())
            .or_insert_with(|| json!({}));
        devices[&peer.device] = content;
    }
    crypto.was_shared(&id, &lacking);
    if !messages.is_empty() {
        let path = format!("/sendToDevice/m.room.encrypted/{}", world.txn());
        let body = json!({"messages": messages});
        world.client(name)?.must("PUT", &path, Some(&body)).await?;
    }
    let content = device(world, name)?.encrypt(&id, &text)?;
    send(world, name, &id, "m.room.encrypted", &content).await?;
    Ok(())
}

/// Begins an Olm session with each of these devices that is unknown and has a key for it.
///
/// # Errors
/// If the homeserver refuses, or a signature is wrong.
pub(crate) async fn meet(world: &mut World, name: &str, peers: &[Peer]) -> Done {
    let crypto = device(world, name)?;
    let strangers = peers.iter().filter(|peer| !crypto.knows(peer));
    let strangers: Vec<(String, String)> = strangers
        .map(|p| (p.user.clone(), p.device.clone()))
        .collect();
    if strangers.is_empty() {
        return Ok(());
    }
    for (user, of, key) in claim(world, name, &strangers).await? {
        let mut known = peers.iter();
        if let Some(peer) = known.find(|peer| peer.user == user && peer.device == of) {
            device(world, name)?.begin(peer, &key)?;
        }
    }
    Ok(())
}

/// The members of a room.
async fn members(world: &mut World, name: &str, room: &str) -> Done<Vec<String>> {
    let path = format!("/rooms/{}/joined_members", segment(room));
    let members = world.client(name)?.must("GET", &path, None).await?;
    let joined = members["joined"].as_object().into_iter().flatten();
    Ok(joined.map(|(user, _)| user.clone()).collect())
}

/// The devices of users, other than the one that asks, whose keys are signed.
///
/// # Errors
/// If the homeserver refuses.
pub(crate) async fn peers(
    world: &mut World,
    name: &str,
    users: impl IntoIterator<Item = String>,
) -> Done<Vec<Peer>> {
    let client = world.client(name)?;
    let users = users.into_iter();
    let wanted: Map<String, Value> = users.map(|user| (user, json!([]))).collect();
    let body = json!({"device_keys": wanted});
    let answer = client.must("POST", "/keys/query", Some(&body)).await?;
    let mut peers = Vec::new();
    for (user, devices) in answer["device_keys"].as_object().into_iter().flatten() {
        for (device, keys) in devices.as_object().into_iter().flatten() {
            let is_self = *user == client.user && Some(device) == client.device.as_ref();
            peers.extend(crypto::peer(user, device, keys).filter(|_| !is_self));
        }
    }
    Ok(peers)
}

/// Waits for an event of a user that decrypts to a text.
///
/// # Errors
/// If none comes.
pub(crate) async fn expect(world: &mut World, name: &str, text: &str, user: &str) -> Done {
    let wanted = world.names.text(text)?;
    let sender = world.names.user(user);
    device(world, name)?;
    let (begun, Within(patience)) = (Instant::now(), Within::default());
    loop {
        let settled = world.server.settle().await?;
        let received = bring(world, name).await?;
        let events = world.encrypted.get(&received).cloned().unwrap_or_default();
        let actor = world.actor(name)?;
        let mut came = actor.failures.clone();
        for event in events
            .iter()
            .filter(|e| e["type"] == "m.room.encrypted" && e["sender"] == sender.as_str())
        {
            let id = event["event_id"].as_str().unwrap_or_default();
            if actor.read.contains(id) {
                continue;
            }
            let room = event["room_id"].as_str().unwrap_or_default();
            match actor
                .crypto
                .as_mut()
                .map(|crypto| crypto.decrypt(room, event))
            {
                Some(Ok(text)) if text == wanted => {
                    actor.read.insert(id.to_owned());
                    return Ok(());
                }
                Some(Ok(text)) => came.push(format!("{text:?}")),
                Some(Err(why)) => came.push(format!("event {id}: {why}")),
                None => {}
            }
        }
        if !world.may_come(begun, patience, settled).await {
            let came = if came.is_empty() {
                "no encrypted event".to_owned()
            } else {
                came.join("\n            ")
            };
            return Err(Halt::Failed(format!(
                "  expected  an event of {sender} that decrypts to {wanted:?}\n  came      {came}"
            )));
        }
    }
}

/// Gives a device what has come for it: by a sync, or with the transactions of its bridge. Returns who has received it.
///
/// # Errors
/// If the homeserver refuses.
pub(crate) async fn bring(world: &mut World, name: &str) -> Done<String> {
    match world.bridge_of(name) {
        Some(bridge) => {
            feed(world, &bridge)?;
            Ok(bridge)
        }
        None => {
            sync(world, name).await?;
            Ok(world.resolved(name))
        }
    }
}

/// Gives the devices of a bridge what its new transactions bring.
fn feed(world: &mut World, id: &str) -> Result<(), String> {
    let bridge = world.bridge(id)?;
    let attempts = bridge.listener.attempts();
    let new = attempts.get(bridge.fed..).unwrap_or_default();
    // An attempt that waits for its answer is looked at again.
    let answered = new
        .iter()
        .take_while(|attempt| attempt.answered != 0)
        .count();
    bridge.fed += answered;
    let taken = new[..answered].iter().filter(|attempt| attempt.is_taken());
    for body in taken.map(|attempt| attempt.sections()) {
        for event in body["to_device"].as_array().into_iter().flatten() {
            let is_for = |actor: &&mut Actor| {
                event["to_user_id"] == actor.client.user.as_str()
                    && event["to_device_id"].as_str() == actor.client.device.as_deref()
            };
            for actor in world.actors.values_mut().filter(is_for) {
                actor.receive(event);
            }
        }
        let events = body["events"].as_array().cloned().unwrap_or_default();
        world
            .encrypted
            .entry(id.to_owned())
            .or_default()
            .extend(events);
    }
    Ok(())
}
