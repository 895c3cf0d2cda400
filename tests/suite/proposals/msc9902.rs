//! MSC9902, made up for this suite — receipts for to-device messages. A request that asks for it is answered with a message to the
//! sending device once the message is acknowledged. Besides, a user without a display name has an empty profile.

use actors::hooks::{Change, Part, ProposalHooks, ToDeviceMessage};
use actors::wire::Name;
use schema::accounts;
use serde::{Deserialize, Serialize};
use serde_json::json;
use understudy::http::around::{Answer, Next, Seen};
use understudy::http::caller::Caller;
use understudy::http::error::Result;
use understudy::mscs::Msc;
use understudy::state::App;

/// The data sheet.
pub(super) static MSC: Msc = Msc {
    title: "Receipts for to-device messages",
    flags: &["org.example.msc9902"],
    names: &[RECEIPT, DELIVERED],
    routes: |routes| {
        let send = "/sendToDevice/{event_type}/{txn_id}";
        let routes = routes.around("PUT", send, carry_receipt);
        routes.around("GET", "/profile/{user_id}/displayname", empty_profile)
    },
    hooks: ProposalHooks {
        number: 9902,
        changed: Some(changed),
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

const RECEIPT: Name = Name {
    unstable: "org.example.msc9902.receipt",
    stable: "receipt",
};

const DELIVERED: Name = Name {
    unstable: "org.example.msc9902.delivered",
    stable: "m.delivered",
};

/// The sender of a message, by the position of the message.
#[derive(Serialize, Deserialize)]
struct Sender {
    user: String,
    device: String,
}

async fn carry_receipt(_: App, _: Caller, mut request: Seen, next: Next) -> Result<Answer> {
    let receipt = request.body[RECEIPT.unstable].take();
    request.carried.insert(RECEIPT.unstable.to_owned(), receipt);
    next.run(request).await
}

// ANCHOR: changed
fn changed(part: &mut Part<'_, '_>, change: &Change<'_>) -> actors::Result<()> {
    match change {
        Change::ToDevice { from, messages, .. }
            if part.carried(RECEIPT.unstable).is_some_and(|v| v == true) =>
        {
            for message in *messages {
                let sender = Sender {
                    user: from.user.to_string(),
                    device: from
                        .device
                        .as_ref()
                        .map(ToString::to_string)
                        .unwrap_or_default(),
                };
                part.put(&message.position.to_string(), &sender)?;
            }
        }
        Change::ToDeviceReceived { messages } => {
            for message in *messages {
                let key = message.position.to_string();
                let Some(sender) = part.get(&key)? else {
                    continue;
                };
                let sender: Sender = sender.value()?;
                part.delete(&key)?;
                part.send_to_device(ToDeviceMessage {
                    from: &message.user_id,
                    user: &sender.user,
                    device: Some(&sender.device),
                    kind: DELIVERED.unstable,
                    content: &json!({"user_id": message.user_id, "device_id": message.device_id}),
                })?;
            }
        }
        _ => {}
    }
    Ok(())
}
// ANCHOR_END: changed

// ANCHOR: around
async fn empty_profile(app: App, _: Caller, request: Seen, next: Next) -> Result<Answer> {
    let user = request.path[0].clone();
    let answer = next.run(request).await;
    match answer {
        Err(error) if error.code().0 == 404 => {
            let known = app
                .actors
                .env
                .store
                .read(move |db| accounts::user(db, &user));
            match known.await? {
                Some(_) => Ok(Answer::ok(json!({}))),
                None => Err(error),
            }
        }
        answer => answer,
    }
}
// ANCHOR_END: around
