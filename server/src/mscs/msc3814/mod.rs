//! MSC3814 — dehydrated devices. ([proposal])
//!
//! A client stores a device on the server whose secret keys it has encrypted and given away. While the user is logged in nowhere,
//! this device gets room keys; the next log-in fetches it with the messages that came for it.
//!
//! *Where* `PUT`, `GET` and `DELETE …/unstable/org.matrix.msc3814.v1/dehydrated_device`, and `GET …/{device_id}/events` with
//! `next_batch` or `from` in the query; older clients `POST` with `next_batch` in the body. *Names* none besides the path. *Registration* no flag. *Versions* `org.matrix.msc3814`. *Off* unless the operator
//! names it.
//!
//! A user has one such device; a new one replaces it. Its messages stay until it is deleted.
//!
//! [proposal]: https://github.com/matrix-org/matrix-spec-proposals/pull/3814

use actors::Refusal;
use actors::hooks::{Change, DeviceChange, DeviceKeys, Part, ProposalHooks};
use schema::{Position, inbox};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::part;
use super::sheet::Msc;
use crate::http::answer::Json;
use crate::http::caller::{Auth, Caller};
use crate::http::error::{Error, Result};
use crate::http::incoming::Raw;
use crate::http::limits::LARGE_BODY;
use crate::http::registry::Routes;
use crate::state::App;

/// The data sheet of this proposal: its number, title, link and names.
pub const MSC: Msc = Msc {
    title: "Dehydrated devices with SSSS",
    flags: &["org.matrix.msc3814"],
    routes,
    hooks: ProposalHooks {
        number: 3814,
        changed: Some(changed),
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

const PATH: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";

/// The most messages of an answer.
const MESSAGES: i64 = 100;

fn routes(routes: Routes) -> Routes {
    routes
        .raw("PUT", PATH, Auth::User, put)
        .takes(LARGE_BODY)
        .raw("GET", PATH, Auth::User, get)
        .raw("DELETE", PATH, Auth::User, delete)
        .raw("GET", &format!("{PATH}/{{id}}/events"), Auth::User, events)
        .raw("POST", &format!("{PATH}/{{id}}/events"), Auth::User, events)
        .reads()
}

/// The dehydrated device of a user, stored under the user's id.
#[derive(Clone, Serialize, Deserialize)]
struct Dehydrated {
    device_id: String,
    device_data: Value,
}

/// Part of a write: delete the user's dehydrated device. Returns its id.
fn remove(part: &mut Part<'_, '_>, user: &str) -> actors::Result<Option<String>> {
    let Some(stored) = part.get(user)? else {
        return Ok(None);
    };
    let device: Dehydrated = stored.value()?;
    part.delete(user)?;
    part.delete_device(user, &device.device_id)?;
    Ok(Some(device.device_id))
}

async fn put(app: App, caller: Caller, request: Raw) -> Result<Json> {
    #[derive(Deserialize)]
    struct Body {
        device_id: String,
        device_data: Value,
        initial_device_display_name: Option<String>,
    }
    let (body, keys): (Body, DeviceKeys) = (request.json()?, request.json()?);
    if keys.device_keys.is_none() {
        return Err(Refusal::MissingParam("device_keys is missing".into()).into());
    }
    let device = Dehydrated {
        device_id: body.device_id,
        device_data: body.device_data,
    };
    let (user, name) = (
        caller.identity()?.user.to_string(),
        body.initial_device_display_name,
    );
    let about = json!({"user": user, "device": device.device_id});
    let answer = part::write(&app, &MSC, about, move |part| {
        remove(part, &user)?;
        if schema::accounts::has_device(part.db(), &user, &device.device_id)? {
            return Err(Refusal::InvalidParam("the user has a device of this id".into()).into());
        }
        part.create_device(&user, &device.device_id, name.as_deref())?;
        part.upload_keys(&user, &device.device_id, &keys)?;
        part.put(&user, &device)?;
        Ok(json!({"device_id": device.device_id}))
    });
    Json::write(&answer.await?)
}

fn none() -> Refusal {
    Refusal::NotFound("no dehydrated device".into())
}

async fn get(app: App, caller: Caller, _: Raw) -> Result<Json> {
    let user = caller.identity()?.user.to_string();
    let stored = part::stored(&app, &MSC, user).await?.ok_or_else(none)?;
    Json::write(&stored.value::<Dehydrated>()?)
}

async fn delete(app: App, caller: Caller, _: Raw) -> Result<Json> {
    let user = caller.identity()?.user.to_string();
    let answer = part::write(&app, &MSC, json!({"user": user}), move |part| {
        let id = remove(part, &user)?.ok_or_else(none)?;
        Ok(json!({"device_id": id}))
    });
    Json::write(&answer.await?)
}

/// A page of the messages to the dehydrated device. A client that sends `GET` goes on while there is a `next_batch`; one that sends
/// `POST` goes on until a page has no message.
async fn events(app: App, caller: Caller, request: Raw) -> Result<Json> {
    #[derive(Deserialize)]
    struct Body {
        next_batch: Option<String>,
    }
    let Body { next_batch } = request.json()?;
    let is_post = !request.body.is_empty();
    let param = |name| request.param(name).map(str::to_owned);
    let next_batch = next_batch.or_else(|| param("next_batch").or_else(|| param("from")));
    let invalid = |_| Error::invalid_param("next_batch is not a token of this endpoint");
    let after = next_batch.map_or(Ok(0), |token| token.parse().map_err(invalid))?;
    let user = caller.identity()?.user.to_string();
    let stored = part::stored(&app, &MSC, user.clone()).await?;
    let device: Dehydrated = stored.ok_or_else(none)?.value()?;
    if device.device_id != request.path[0] {
        return Err(none().into());
    }
    let store = &app.actors.env.store;
    let (after, head) = (Position(after), store.head());
    let read = move |db: &mut _| inbox::after(db, &user, &device.device_id, after, head, MESSAGES);
    let rows = store.read(read).await?;
    let last = rows.last().map_or(after.0, |row| row.position);
    let is_last = rows.len() < usize::try_from(MESSAGES).unwrap_or(usize::MAX);
    let events = rows.iter().map(|row| {
        let content: Value = serde_json::from_str(&row.content).map_err(actors::Error::from)?;
        Ok(json!({"type": row.kind, "sender": row.sender, "content": content}))
    });
    let events = events.collect::<Result<Vec<_>>>()?;
    Json::write(&if is_last && !is_post {
        json!({"events": events})
    } else {
        json!({"events": events, "next_batch": last.to_string()})
    })
}

/// A dehydrated device that is deleted like any other is forgotten.
fn changed(part: &mut Part<'_, '_>, change: &Change<'_>) -> actors::Result<()> {
    if let Change::Device {
        user,
        device,
        now: DeviceChange::Deleted,
    } = change
        && let Some(stored) = part.get(user)?
        && stored.value::<Dehydrated>()?.device_id == *device
    {
        part.delete(user)?;
    }
    Ok(())
}
