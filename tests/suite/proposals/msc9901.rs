//! MSC9901, made up for this suite — read state for appservices. A user sets a marker in a room, the user's other devices get it with
//! `/sync`, and the appservices that opt in get it in a transaction.

use actors::Refusal;
use actors::hooks::{DurableSection, ProposalHooks, SyncPart};
use actors::services::OwedKind;
use actors::wire::Name;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use understudy::http::answer::Json;
use understudy::http::caller::{Auth, Caller};
use understudy::http::error::Result;
use understudy::http::incoming::Raw;
use understudy::mscs::{self, Msc};
use understudy::state::App;

// ANCHOR: sheet
/// The data sheet.
pub(super) static MSC: Msc = Msc {
    title: "Read state for appservices",
    registration: &[MARKERS.unstable],
    flags: &["org.example.msc9901"],
    names: &[MARKER, MARKERS],
    routes: |routes| {
        let routes = routes.raw("PUT", PATH, Auth::User, put);
        routes.raw("GET", PATH, Auth::User, get)
    },
    hooks: ProposalHooks {
        number: 9901,
        owes: &[DurableSection {
            kind: OwedKind {
                kind: MARKERS.unstable,
                is_wanted: |registration| registration.has_flag(MARKERS.unstable),
            },
            section: MARKERS,
        }],
        sync: Some(sync),
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};
// ANCHOR_END: sheet

const PATH: &str = "/_matrix/client/unstable/org.example.msc9901/rooms/{room_id}/marker";

const MARKER: Name = Name {
    unstable: "org.example.msc9901.marker",
    stable: "m.marker",
};

const MARKERS: Name = Name {
    unstable: "org.example.msc9901.markers",
    stable: "markers",
};

/// A marker, as it is set, stored and sent.
#[derive(Clone, Serialize, Deserialize)]
struct Marker {
    event_id: String,
    label: String,
}

fn key(user: &str, room: &str) -> String {
    format!("{user}|{room}")
}

// ANCHOR: put
async fn put(app: App, caller: Caller, request: Raw) -> Result<Json> {
    let marker: Marker = request.json().map_err(|e| e.with_code(400, "M_BAD_JSON"))?;
    if marker.label.len() > 64 {
        return Err(Refusal::TooLarge("a label has at most 64 bytes".into()).into());
    }
    let user = caller.identity()?.user.to_string();
    let room = request.path[0].clone();
    let about = json!({"user": user, "room": room});
    let answer = mscs::write(&app, &MSC, about, move |part| {
        if !part.is_joined(&room, &user)? {
            return Err(Refusal::Forbidden("you are not in this room".into()).into());
        }
        part.put(&key(&user, &room), &marker)?;
        let item = json!({"user_id": user, "room_id": room, "marker": marker});
        let services = part.services_in_room(&room)?;
        part.owe(&services, MARKERS.unstable, &[&user, &room], &item)?;
        part.wake_user(&user);
        Ok(json!({}))
    });
    Json::write(&answer.await?)
}
// ANCHOR_END: put

async fn get(app: App, caller: Caller, request: Raw) -> Result<Json> {
    let key = key(caller.identity()?.user.as_str(), &request.path[0]);
    let stored = mscs::stored(&app, &MSC, key).await?;
    let stored = stored.ok_or_else(|| Refusal::NotFound("no marker is set".into()))?;
    Json::write(&stored.value::<Value>()?)
}

// ANCHOR: sync
fn sync(part: &mut SyncPart<'_>) -> actors::Result<()> {
    let prefix = key(part.user, "");
    for stored in part.changed_in(&prefix)? {
        let room = stored.key[prefix.len()..].to_owned();
        part.add_to_room(&room, MARKER, stored.value::<Value>()?)?;
    }
    Ok(())
}
// ANCHOR_END: sync
