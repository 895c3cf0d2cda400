//! What the sentences of a scenario do.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::delivered::{nothing_more, one_body_each, rests};
use crate::format::Within;
use crate::homeserver::{Done, Halt};
use crate::listener::{Treatment, pause};
use crate::names::segment;
use crate::requests::{begin_sync, in_room, send, sync};
use crate::sentence::{Deed, read};
use crate::world::World;
use crate::{cross_signing, encryption, scenario};

/// Does what a sentence says.
///
/// # Errors
/// If something else comes than what is expected.
pub(crate) async fn play(world: &mut World, actor: &str, sentence: &str) -> Done {
    let owner = scenario::ActorName::read(actor).owner;
    match read(sentence, true)? {
        Deed::Creates {
            room,
            invited,
            encrypted,
            public,
        } => {
            let invited: Vec<String> = invited.iter().map(|user| world.names.user(user)).collect();
            let preset = if public {
                "public_chat"
            } else {
                "private_chat"
            };
            let mut body = json!({"preset": preset});
            if !invited.is_empty() {
                body["invite"] = json!(invited);
            }
            if encrypted {
                let content = json!({"algorithm": "m.megolm.v1.aes-sha2"});
                body["initial_state"] =
                    json!([{"type": "m.room.encryption", "state_key": "", "content": content}]);
            }
            let made = world
                .client(actor)?
                .must("POST", "/createRoom", Some(&body))
                .await?;
            let id = made["room_id"].as_str().unwrap_or_default();
            world.names.rooms.insert(room, id.to_owned());
        }
        Deed::Joins(room) => in_room(world, actor, &room, "join", json!({})).await?,
        Deed::Leaves(room) => in_room(world, actor, &room, "leave", json!({})).await?,
        Deed::Moves(how, user, room) => {
            let body = json!({"user_id": world.names.user(&user)});
            in_room(world, actor, &room, &how, body).await?;
        }
        Deed::Says(text, room, capture) => {
            let body = json!({"msgtype": "m.text", "body": world.names.text(&text)?});
            let id = send(world, actor, &room, "m.room.message", &body).await?;
            if let Some(name) = capture {
                world.names.captured.insert(name, json!(id));
            }
        }
        Deed::Uploads(number) => encryption::upload(world, actor, number).await?,
        Deed::UploadsMore(number) => encryption::upload_more(world, actor, number).await?,
        Deed::Encrypts(text, room) => encryption::say(world, actor, &text, &room).await?,
        Deed::Decrypts(text, user) => encryption::expect(world, actor, &text, &user).await?,
        Deed::Claims(user, device) => {
            let user = world.names.user(&user);
            let claimed =
                encryption::claim(world, actor, &[(user.clone(), device.clone())]).await?;
            if claimed.is_empty() {
                return Err(Halt::Failed(format!(
                    "  expected  a one-time key of {user}/{device}\n  came      none"
                )));
            }
        }
        Deed::SetsUpCrossSigning => cross_signing::set_up(world, actor).await?,
        Deed::BeginsToSync => begin_sync(world, actor)?,
        Deed::Syncs => {
            sync(world, actor).await?;
        }
        Deed::LogsIn(device) => world.log_in(&owner, &device).await?,
        Deed::LogsOut => {
            world
                .client(actor)?
                .must("POST", "/logout", Some(&json!({})))
                .await?;
        }
        Deed::CreatesDevice(device) => {
            let path = format!("/devices/{}", segment(&device));
            if !world.server.is_fresh() {
                // An earlier run may have left it, with keys.
                world.client(actor)?.ask("DELETE", &path, None).await?;
            }
            world
                .client(actor)?
                .must("PUT", &path, Some(&json!({})))
                .await?;
        }
        Deed::DeletesDevice(device) => {
            let path = format!("/devices/{}", segment(&device));
            world.client(actor)?.must("DELETE", &path, None).await?;
        }
        Deed::Registers(ghost, device) => register(world, &owner, &ghost, device).await?,
        Deed::IsAdded => world.add_late(&owner).await?,
        deed => treat(world, &owner, deed).await?,
    }
    Ok(())
}

/// How a bridge treats transactions, and what it expects of them.
async fn treat(world: &mut World, id: &str, deed: Deed) -> Done {
    let bridge = world.bridge(id)?;
    let listener = &mut bridge.listener;
    match deed {
        Deed::Answers(status, times) => listener.treat(Treatment::Answer(status), times),
        Deed::AnswersAfter(time) => listener.treat(Treatment::Delay(time), None),
        Deed::Cuts(times) => listener.treat(Treatment::Cut, Some(times)),
        Deed::Holds => listener.treat(Treatment::Hold, None),
        Deed::Refuses => listener.close().await,
        Deed::Accepts => listener.listen()?,
        Deed::Releases(status) => release(world, id, status).await?,
        Deed::Ignores => {
            rests(world).await?;
            world.bridge(id)?.pass_over();
        }
        Deed::IsSentNothing => nothing_more(world, id).await?,
        Deed::IsSentOneBodyEach => one_body_each(world, id).await?,
        other => return Err(Halt::Failed(format!("a bridge cannot do this: {other:?}"))),
    }
    Ok(())
}

async fn release(world: &mut World, id: &str, status: u16) -> Done {
    let begun = Instant::now();
    let Within(patience) = Within::default();
    loop {
        let settled = world.server.settle().await?;
        let listener = world.bridge(id)?.listener.clone();
        let open = |listener: &crate::listener::Listener| {
            let attempts = listener.attempts();
            attempts
                .iter()
                .filter(|attempt| attempt.answered == 0)
                .count()
        };
        let before = open(&listener);
        if listener.release(status) {
            // The server finds the answer only after it is recorded.
            while open(&listener) == before && begun.elapsed() < patience {
                pause(Duration::from_millis(2)).await;
            }
            return Ok(());
        }
        if !world.may_come(begun, patience, settled).await {
            return Err(Halt::Failed(
                "  expected  a transaction that is held\n  came      none".to_owned(),
            ));
        }
    }
}

async fn register(world: &mut World, id: &str, ghost: &str, device: Option<String>) -> Done {
    let user = world.names.user(&format!("{id}_{ghost}"));
    let localpart = user.trim_start_matches('@').split(':').next();
    let body = json!({"type": "m.login.application_service", "username": localpart, "inhibit_login": true});
    let reply = world
        .client(id)?
        .ask("POST", "/register", Some(&body))
        .await?;
    let is_there = reply.body["errcode"] == "M_USER_IN_USE" && !world.server.is_fresh();
    if !reply.is_ok() && !is_there {
        return Err(Halt::Failed(format!(
            "POST /register\n  expected  200\n  came      {}",
            reply.shown()
        )));
    }
    if let Some(device) = device {
        let client = world.client(&format!("{id} as {ghost}"))?;
        client
            .must(
                "PUT",
                &format!("/devices/{}", segment(&device)),
                Some(&json!({})),
            )
            .await?;
    }
    Ok(())
}
