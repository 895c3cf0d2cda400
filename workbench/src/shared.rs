//! What a scenario does before and after its steps on a homeserver that other scenarios use too: nothing of one may reach the
//! bridges of another.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Client;
use crate::homeserver::{Done, Halt};
use crate::listener::{Attempt, Listener, Treatment, pause};
use crate::log::Log;
use crate::names::segment;
use crate::world::World;

/// The time without a transaction after which a homeserver has sent what it had.
const QUIET: Duration = Duration::from_millis(400);

/// How long a homeserver may take to reach a bridge that has just begun to listen.
const REACHED: Duration = Duration::from_secs(40);

/// Listens for the bridges that take no part, so that the homeserver finds none down, and passes over what the others are still sent
/// of earlier scenarios.
///
/// # Errors
/// If a bridge is sent nothing, or an address cannot be used.
pub(crate) async fn arrive(world: &mut World) -> Done {
    for id in world.server.known() {
        if !world.head.bridges.contains_key(&id)
            && let Some(place) = world.server.place(&id)?
        {
            let idle = Listener::start(&id, &place.address, None, Log::default())?;
            idle.trust(&place.hs_token);
            world.idle.push(idle);
        }
    }
    for id in world.bridges.keys().cloned().collect::<Vec<_>>() {
        reach(world, &id).await?;
    }
    quiet(world).await;
    for bridge in world.bridges.values_mut() {
        bridge.pass_over();
        bridge.fed = bridge.seen;
        bridge.before = bridge.seen;
    }
    Ok(())
}

/// Waits until a bridge is sent an event of a new room of its own, so everything that came before. A homeserver that has found the
/// bridge down may try again only after some seconds, or only when there is something new.
async fn reach(world: &mut World, id: &str) -> Done {
    let client = world.client(id)?;
    let made = client.must("POST", "/createRoom", Some(&json!({}))).await?;
    let room = made["room_id"].as_str().unwrap_or_default().to_owned();
    let listener = world.bridge(id)?.listener.clone();
    let is_there = || {
        let mut taken = listener.attempts().into_iter().filter(Attempt::is_taken);
        taken.any(|attempt| attempt.body.contains(&room))
    };
    let begun = Instant::now();
    while !is_there() {
        if begun.elapsed() > REACHED {
            let why = format!("{id} is sent no events at {}", listener.url);
            return Err(Halt::Failed(why));
        }
        pause(Duration::from_millis(20)).await;
    }
    let path = format!("/rooms/{}/leave", segment(&room));
    client.must("POST", &path, Some(&json!({}))).await?;
    Ok(())
}

/// Waits until no transaction has come for a while.
pub(crate) async fn quiet(world: &World) {
    let count = || -> usize {
        let attempts = world.bridges.values().map(|b| b.listener.attempts());
        attempts.map(|a| a.len()).sum()
    };
    let (begun, mut before) = (Instant::now(), usize::MAX);
    while before != count() && begun.elapsed() < QUIET * 10 {
        before = count();
        pause(QUIET).await;
    }
}

/// Takes what the bridges are owed, leaves all rooms, deletes the devices of bridges and logs the people out.
///
/// The verdict is known, so what is refused here changes nothing.
pub(crate) async fn leave(world: &mut World) {
    for bridge in world.bridges.values_mut() {
        bridge.listener.treat(Treatment::Answer(200), None);
        bridge.release_all();
        // It listens already, unless the scenario made it refuse connections.
        let _ = bridge.listener.listen_again();
    }
    let clients: Vec<Client> = world
        .actors
        .values()
        .map(|actor| actor.client.clone())
        .collect();
    let (of_bridges, people): (Vec<&Client>, Vec<&Client>) = clients.iter().partition(|client| {
        world
            .bridges
            .values()
            .any(|bridge| bridge.registered.as_token == client.token)
    });
    let rooms: Vec<String> = world.names.rooms.values().cloned().collect();
    let mut left = BTreeSet::new();
    for client in people.iter().chain(&of_bridges) {
        if left.insert(&client.user) {
            leave_all(client, &rooms).await;
        }
    }
    for client in of_bridges {
        if let Some(device) = &client.device {
            let _ = client
                .ask("DELETE", &format!("/devices/{}", segment(device)), None)
                .await;
        }
    }
    for client in people {
        let _ = client.ask("POST", "/logout/all", Some(&json!({}))).await;
    }
    quiet(world).await;
}

/// Leaves the rooms of a user, also those of the scenario to which it is only invited.
async fn leave_all(client: &Client, rooms: &[String]) {
    let mut rooms: BTreeSet<String> = rooms.iter().cloned().collect();
    if let Ok(reply) = client.ask("GET", "/joined_rooms", None).await {
        let joined = reply.body["joined_rooms"].as_array().into_iter().flatten();
        rooms.extend(joined.filter_map(|room| room.as_str().map(str::to_owned)));
    }
    for room in rooms {
        let path = format!("/rooms/{}/leave", segment(&room));
        let _ = client.ask("POST", &path, Some(&json!({}))).await;
    }
}
