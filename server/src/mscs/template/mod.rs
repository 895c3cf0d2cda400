//! MSC9999 — TITLE. ([proposal])
//!
//! | on the wire until it is accepted | after |
//! |---|---|
//! | `org.example.msc9999.item` | `item` |
//! | `org.example.msc9999.items` | `items` | (adds: transaction)
//!
//! *Where* say which endpoints and sections use the names. *Registration* say which keys opt in. *Versions* `org.example.msc9999`.
//! *Off* unless the operator names it.
//!
//! [proposal]: https://github.com/matrix-org/matrix-spec-proposals/pull/9999

use actors::Refusal; // adds: event
use actors::hooks::Change; // adds: change
use actors::hooks::DurableSection; // adds: transaction
use actors::hooks::NewEvent; // adds: event
use actors::hooks::Part; // adds: change, timer
use actors::hooks::ProposalHooks;
use actors::hooks::Stored; // adds: timer
use actors::hooks::SyncPart; // adds: sync
use actors::services::OwedKind; // adds: transaction
use actors::wire::Name;
use serde_json::Value; // adds: endpoint, sync
use serde_json::json; // adds: endpoint, around

use super::part; // adds: endpoint, around
use super::sheet::Msc;
use crate::http::answer::Json; // adds: endpoint
use crate::http::around::{Answer, Next, Seen}; // adds: around
use crate::http::caller::Auth; // adds: endpoint
use crate::http::caller::Caller; // adds: endpoint, around
use crate::http::error::Result; // adds: endpoint, around
use crate::http::incoming::Raw; // adds: endpoint
use crate::state::App; // adds: endpoint, around

/// The data sheet of this proposal: its number, title, link and names.
pub const MSC: Msc = Msc {
    title: "TITLE",
    flags: &["org.example.msc9999"],
    registration: &[OWED_ITEMS.unstable], // adds: transaction
    names: NAMES,
    routes: |routes| {
        let routes = routes.raw("PUT", PATH, Auth::User, put); // adds: endpoint
        let routes = routes.raw("GET", PATH, Auth::User, get); // adds: endpoint
        let routes = routes.around("GET", "/profile/{user_id}", around_profile); // adds: around
        routes
    },
    hooks: ProposalHooks {
        number: 9999,
        owes: OWES,               // adds: transaction
        changed: Some(changed),   // adds: change
        check_event: Some(check), // adds: event
        due: Some(due),           // adds: timer
        sync: Some(sync),         // adds: sync
        ..ProposalHooks::NONE
    },
    ..Msc::NONE
};

const NAMES: &[Name] = &[
    STORED_ITEM,
    // adds: transaction {
    OWED_ITEMS,
    // }
];

const STORED_ITEM: Name = Name {
    unstable: "org.example.msc9999.item",
    stable: "item",
};

// adds: transaction {
const OWED_ITEMS: Name = Name {
    unstable: "org.example.msc9999.items",
    stable: "items",
};

/// What appservices are owed: a registration with this key set to true gets the items under the same name in its transactions.
const OWES: &[DurableSection] = &[DurableSection {
    kind: OwedKind {
        kind: OWED_ITEMS.unstable,
        is_wanted: |registration| registration.has_flag(OWED_ITEMS.unstable),
    },
    section: OWED_ITEMS,
}];

// }
// adds: endpoint {
const PATH: &str = "/_matrix/client/unstable/org.example.msc9999/item";

/// Store an item for the user.
async fn put(app: App, caller: Caller, request: Raw) -> Result<Json> {
    let item: Value = request.json()?;
    let user = caller.identity()?.user.to_string();
    let about = json!({"user": user});
    let answer = part::write(&app, &MSC, about, move |part| {
        part.put(&user, &item)?;
        // adds: transaction {
        let services = part.services_of_user(&user);
        let owed = json!({"user_id": user, "item": item});
        part.owe(&services, OWED_ITEMS.unstable, &[&user], &owed)?;
        // }
        // adds: timer {
        // The hook `due` is called a minute from now.
        let due = part.now() + 60_000;
        part.put_until(&user, &item, due)?;
        // }
        part.wake_user(&user);
        Ok(json!({}))
    });
    Json::write(&answer.await?)
}

/// The item of the user; `{}` for none.
async fn get(app: App, caller: Caller, _: Raw) -> Result<Json> {
    let user = caller.identity()?.user.to_string();
    match part::stored(&app, &MSC, user).await? {
        Some(stored) => Json::write(&stored.value::<Value>()?),
        None => Json::write(&json!({})),
    }
}

// }
// adds: around {
/// Change the answer of an existing endpoint. `next.run` calls it; what is not changed keeps its bytes.
async fn around_profile(app: App, _: Caller, request: Seen, next: Next) -> Result<Answer> {
    let mut answer = next.run(request).await?;
    for name in part::forms(&app, &MSC, STORED_ITEM) {
        answer.body[name] = json!(true);
    }
    Ok(answer)
}

// }
// adds: sync {
/// Add the user's item to `/sync` if it was stored since the client's token.
fn sync(part: &mut SyncPart<'_>) -> actors::Result<()> {
    let user = part.user.to_owned();
    for stored in part.changed_in(&user)? {
        if stored.key == user {
            part.add(STORED_ITEM, stored.value::<Value>()?);
        }
    }
    Ok(())
}

// }
// adds: change {
/// Part of the write that made a change. An error refuses the change.
fn changed(part: &mut Part<'_, '_>, change: &Change<'_>) -> actors::Result<()> {
    if let Change::Membership {
        room, user, after, ..
    } = change
    {
        part.put(&format!("membership|{room}|{user}"), after)?;
    }
    Ok(())
}

// }
// adds: event {
/// Refuse an event before it is authorised.
fn check(new: &mut NewEvent<'_, '_>) -> actors::Result<()> {
    if new.event.kind == "org.example.msc9999.refused" {
        return Err(Refusal::OfProposal {
            status: 403,
            errcode: "ORG.EXAMPLE.MSC9999.M_REFUSED",
            error: "this event type is refused".into(),
        }
        .into());
    }
    Ok(())
}

// }
// adds: timer {
/// The time of a stored value has come.
fn due(part: &mut Part<'_, '_>, stored: &Stored) -> actors::Result<()> {
    part.delete(&stored.key).map(drop)
}

// }
