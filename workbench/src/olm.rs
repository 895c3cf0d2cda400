//! The steps `olm` and `decrypted`: to-device messages of any type, encrypted for one device.

use std::time::Instant;

use serde_json::{Map, Value, json};

use crate::encryption::{bring, device, meet, peers};
use crate::expect::matches;
use crate::expectations::{capture, expectation};
use crate::format::{Decrypted, Olm, Within};
use crate::homeserver::{Done, Halt};
use crate::world::World;

/// Encrypts a message for a device, and sends it.
///
/// # Errors
/// If there is no such device whose keys are signed, it has no key to begin a session with, or the homeserver refuses.
pub(crate) async fn send(world: &mut World, step: &Olm) -> Done {
    let user = world.names.user(&step.to);
    let content = world.names.value(&json!(step.content))?;
    device(world, &step.by)?;
    let all = peers(world, &step.by, [user.clone()]).await?;
    let Some(peer) = all.iter().find(|peer| peer.device == step.device) else {
        let known: Vec<&str> = all.iter().map(|peer| peer.device.as_str()).collect();
        return Err(Halt::Failed(format!(
            "  expected  a device {} of {user} whose keys are signed\n  came      [{}]",
            step.device,
            known.join(", ")
        )));
    };
    meet(world, &step.by, std::slice::from_ref(peer)).await?;
    let message = device(world, &step.by)?.encrypt_to(peer, &step.kind, &content)?;
    let path = format!("/sendToDevice/m.room.encrypted/{}", world.txn());
    let body = json!({"messages": {user: {&step.device: message}}});
    world
        .client(&step.by)?
        .must("PUT", &path, Some(&body))
        .await?;
    Ok(())
}

/// Waits for a message of a user that decrypts to a type and a content. Each is found once.
///
/// # Errors
/// If none comes.
pub(crate) async fn decrypted(world: &mut World, step: &Decrypted) -> Done {
    let sender = world.names.user(&step.from);
    let expected = expectation(world, step.content.as_ref())?;
    device(world, &step.by)?;
    let (begun, Within(patience)) = (Instant::now(), step.within);
    let is_wanted = |clear: &Value| {
        clear["sender"] == sender.as_str()
            && clear["type"] == step.kind.as_str()
            && expected
                .as_ref()
                .is_none_or(|expected| matches(expected, &clear["content"]))
    };
    loop {
        let settled = world.server.settle().await?;
        bring(world, &step.by).await?;
        let actor = world.actor(&step.by)?;
        if let Some(at) = actor.decrypted.iter().position(is_wanted) {
            let clear = actor.decrypted.remove(at);
            return capture(world, &step.capture, &clear);
        }
        let mut came = actor.failures.clone();
        let shown = |clear: &Value| json!({"type": clear["type"], "content": clear["content"], "sender": clear["sender"]});
        came.extend(actor.decrypted.iter().map(|clear| shown(clear).to_string()));
        if !world.may_come(begun, patience, settled).await {
            let came = match came.is_empty() {
                true => "nothing".to_owned(),
                false => came.join("\n            "),
            };
            let mut wanted = Map::from_iter([
                ("type".to_owned(), json!(step.kind)),
                ("sender".to_owned(), json!(sender)),
            ]);
            wanted.extend(expected.map(|content| ("content".to_owned(), content)));
            return Err(Halt::Failed(format!(
                "an Olm message\n  expected  {}\n  came      {came}",
                Value::Object(wanted)
            )));
        }
    }
}
