//! MSC9905, made up for this suite — lasting events. A parameter of the usual endpoint says how long an event is worth showing; the event
//! says it beside its content, and the answer says until when. An endpoint of its own sends an event that lasts for an hour.

use actors::hooks::{Change, NewEvent, Part, ProposalHooks, RoomEvent, Stored};
use actors::wire::Name;
use serde_json::{Value, json};
use understudy::http::answer::Json;
use understudy::http::around::{Answer, Next, Seen};
use understudy::http::caller::{Auth, Caller};
use understudy::http::error::{Error, Result};
use understudy::http::incoming::Raw;
use understudy::mscs::{self, Msc};
use understudy::state::App;

/// The data sheet.
pub(super) static MSC: Msc = Msc {
    title: "Lasting events",
    names: &[LASTS, UNTIL],
    routes: |routes| {
        routes
            .around("PUT", "/rooms/{room}/send/{type}/{txn}", lasting)
            .around("PUT", "/rooms/{room}/state/{type}/{key}", lasting)
            .raw("PUT", PATH, Auth::User, announce)
    },
    hooks: ProposalHooks {
        number: 9905,
        check_event: Some(check),
        changed: Some(changed),
        due: Some(over),
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

const PATH: &str = "/_matrix/client/unstable/org.example.msc9905/rooms/{room}/announce/{txn}";

const LASTS: Name = Name {
    unstable: "org.example.msc9905.lasts",
    stable: "lasts",
};

const UNTIL: Name = Name {
    unstable: "org.example.msc9905.until",
    stable: "until",
};

const HOUR: i64 = 3_600_000;

// ANCHOR: lasting
async fn lasting(_: App, _: Caller, mut request: Seen, next: Next) -> Result<Answer> {
    if let Some(lasts) = request.take_param(LASTS.unstable) {
        let invalid = || Error::invalid_param("a number of milliseconds");
        let lasts: i64 = lasts.parse().map_err(|_| invalid())?;
        request.carried.insert(LASTS.unstable.into(), lasts.into());
    }
    let mut answer = next.run(request).await?;
    if let Some(until) = answer.handed_back.remove(UNTIL.unstable) {
        answer.body[UNTIL.unstable] = until;
    }
    Ok(answer)
}

/// Say beside the content of the event how long it lasts.
fn check(new: &mut NewEvent<'_, '_>) -> actors::Result<()> {
    match new.carried(LASTS.unstable) {
        Some(lasts) => new.set_top_level(LASTS.unstable, lasts),
        None => Ok(()),
    }
}

/// Keep the event until it is over, and say in the answer when that is.
fn changed(part: &mut Part<'_, '_>, change: &Change<'_>) -> actors::Result<()> {
    let lasts = part
        .carried(LASTS.unstable)
        .and_then(|lasts| lasts.as_i64());
    if let (Change::Event { id, device, .. }, Some(lasts)) = (change, lasts) {
        let until = part.now() + lasts;
        part.put_until(id, device, until)?;
        part.hand_back(UNTIL.unstable, until);
    }
    Ok(())
}
// ANCHOR_END: lasting

fn over(part: &mut Part<'_, '_>, stored: &Stored) -> actors::Result<()> {
    part.delete(&stored.key).map(drop)
}

// ANCHOR: announce
async fn announce(app: App, caller: Caller, request: Raw) -> Result<Json> {
    let content: Value = request.json()?;
    let by = caller.identity()?.clone();
    let [room, txn] = [0, 1].map(|at| request.path[at].clone());
    let about = json!({"room": room});
    let answer = mscs::write(&app, &MSC, about, move |part| {
        part.once(&by, &room, &txn, |part| {
            let device = by.device.as_ref().map(|device| device.as_str());
            let id = part.send_event(RoomEvent {
                room: &room,
                sender: by.user.as_str(),
                kind: "org.example.msc9905.announcement",
                content: &content,
                origin: device.map(|device| (device, txn.as_str())),
                at: Some(0),
                top_level: &[(LASTS.unstable, HOUR.into())],
                ..RoomEvent::NONE
            })?;
            Ok(json!({"event_id": id}))
        })
    });
    Json::write(&answer.await?)
}
// ANCHOR_END: announce
