//! Requests that several kinds of steps make.

use serde_json::{Value, json};

use crate::homeserver::Done;
use crate::names::segment;
use crate::world::World;

/// Makes a request that concerns a room, such as `join`.
///
/// # Errors
/// If the homeserver refuses.
pub(crate) async fn in_room(
    world: &mut World,
    actor: &str,
    room: &str,
    how: &str,
    body: Value,
) -> Done {
    let path = format!("/rooms/{}/{how}", segment(&world.names.room(room)?));
    world
        .client(actor)?
        .must("POST", &path, Some(&body))
        .await?;
    Ok(())
}

/// Sends an event to a room. Returns its id.
///
/// # Errors
/// If the homeserver refuses.
pub(crate) async fn send(
    world: &mut World,
    actor: &str,
    room: &str,
    kind: &str,
    content: &Value,
) -> Done<String> {
    let room = segment(&world.names.room(room)?);
    let path = format!("/rooms/{room}/send/{}/{}", segment(kind), world.txn());
    let sent = world
        .client(actor)?
        .must("PUT", &path, Some(content))
        .await?;
    Ok(sent["event_id"].as_str().unwrap_or_default().to_owned())
}

/// Makes a `/sync` request from the last position of the client, and gives the device what it brings.
///
/// # Errors
/// If the homeserver refuses.
pub(crate) async fn sync(world: &mut World, actor: &str) -> Done<Value> {
    let since = world.actor(actor)?.since.clone();
    let answer = sync_from(world, actor, since).await?;
    taken(world, actor, &answer)?;
    Ok(answer)
}

/// Makes a `/sync` request.
///
/// # Errors
/// If the homeserver refuses.
pub(crate) async fn sync_from(
    world: &mut World,
    actor: &str,
    since: Option<String>,
) -> Done<Value> {
    let path = sync_path(world, 0, since);
    Ok(world.client(actor)?.must("GET", &path, None).await?)
}

/// The path of a `/sync` that waits for so many milliseconds.
fn sync_path(world: &mut World, timeout: u32, since: Option<String>) -> String {
    let filter = segment(&world.filter().to_string());
    let since = since.map(|since| format!("&since={}", segment(&since)));
    let since = since.unwrap_or_default();
    format!("/sync?timeout={timeout}&filter={filter}{since}")
}

/// How long a `/sync` waits for something new, in milliseconds.
const LONG: u32 = 30_000;

/// Makes a `/sync` request that waits, from the last position of the client.
///
/// # Errors
/// If one waits already.
pub(crate) fn begin_sync(world: &mut World, actor: &str) -> Result<(), String> {
    let client = world.client(actor)?;
    let since = world.actor(actor)?.since.clone();
    let path = sync_path(world, LONG, since);
    let waiting = &mut world.actor(actor)?.waiting;
    if waiting.is_some() {
        return Err(format!("a /sync of {actor} waits already"));
    }
    let asked = async move { client.exchange("GET", &path, None).await };
    *waiting = Some(actix_rt::spawn(asked));
    Ok(())
}

/// Gives a client what a `/sync` brought: its position, to-device messages and events.
///
/// # Errors
/// If there is no client of this name.
pub(crate) fn taken(world: &mut World, actor: &str, answer: &Value) -> Result<(), String> {
    let found = world.actor(actor)?;
    found.since = answer["next_batch"].as_str().map(str::to_owned);
    for event in answer["to_device"]["events"]
        .as_array()
        .into_iter()
        .flatten()
    {
        found.receive(event);
    }
    let mut events = Vec::new();
    for (room, joined) in answer["rooms"]["join"].as_object().into_iter().flatten() {
        for event in joined["timeline"]["events"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let mut event = event.clone();
            event["room_id"] = json!(room);
            events.push(event);
        }
    }
    let key = world.resolved(actor);
    world.encrypted.entry(key).or_default().extend(events);
    Ok(())
}
