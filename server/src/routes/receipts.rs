//! Read receipts and the read marker.
//!
//! Parsed without ruma's types: bridges send ids of remote events that ruma rejects; a receipt for one has no effect.

use actors::ask;
use actors::rooms::{MarkRead, ReadMarker, ReadMarkerKind};
use ruma::OwnedRoomId;
use serde_json::{Map, Value};

use crate::http::answer::Json;
use crate::http::caller::{Auth, Caller};
use crate::http::error::{Error, Result};
use crate::http::incoming::Raw;
use crate::http::registry::Routes;
use crate::state::App;

/// The receipt types on the wire, including unstable names that clients still use.
const KINDS: [(&str, ReadMarkerKind); 4] = [
    ("m.fully_read", ReadMarkerKind::FullyRead),
    ("m.read", ReadMarkerKind::Read),
    ("m.read.private", ReadMarkerKind::ReadPrivate),
    (
        "org.matrix.msc2285.read.private",
        ReadMarkerKind::ReadPrivate,
    ),
];

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    ["r0", "v3"].into_iter().fold(routes, |routes, version| {
        let room = format!("/_matrix/client/{version}/rooms/{{room_id}}");
        let receipts = format!("{room}/receipt/{{receipt_type}}/{{event_id}}");
        routes.raw("POST", &receipts, Auth::User, receipt).raw(
            "POST",
            &format!("{room}/read_markers"),
            Auth::User,
            markers,
        )
    })
}

/// Set a receipt or the read marker to an event.
///
/// `POST /_matrix/client/*/rooms/{roomId}/receipt/{receiptType}/{eventId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreceiptreceipttypeeventid
async fn receipt(app: App, caller: Caller, request: Raw) -> Result<Json> {
    let body: Map<String, Value> = request.json()?;
    let [room, name, event] = <[String; 3]>::try_from(request.path)
        .map_err(|_| Error::invalid_param("the path has three variables"))?;
    let Some((_, kind)) = KINDS.iter().find(|(known, _)| *known == name) else {
        return Err(Error::invalid_param(format!("unknown receipt type {name}")));
    };
    let thread = match body.get("thread_id") {
        None => String::new(),
        // The read marker has no threads.
        Some(_) if *kind == ReadMarkerKind::FullyRead => {
            return Err(Error::invalid_param("the read marker knows no threads"));
        }
        Some(Value::String(thread)) if !thread.is_empty() => thread.clone(),
        Some(_) => {
            return Err(Error::invalid_param("thread_id: an event id, or `main`"));
        }
    };
    let mark = ReadMarker {
        kind: *kind,
        event,
        thread,
    };
    set(&app, &caller, &room, vec![mark]).await
}

/// Set the read marker, and optionally receipts.
///
/// `POST /_matrix/client/*/rooms/{roomId}/read_markers` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidread_markers
async fn markers(app: App, caller: Caller, request: Raw) -> Result<Json> {
    let body: Map<String, Value> = request.json()?;
    let mut marks = Vec::new();
    for (name, kind) in KINDS {
        match body.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::String(event)) => marks.push(ReadMarker {
                kind,
                event: event.clone(),
                thread: String::new(),
            }),
            Some(_) => {
                let what = format!("{name}: an event id");
                return Err(Error::Request(400, "M_BAD_JSON", what));
            }
        }
    }
    let room = request.path.first().map_or("", String::as_str);
    set(&app, &caller, room, marks).await
}

async fn set(app: &App, caller: &Caller, room: &str, marks: Vec<ReadMarker>) -> Result<Json> {
    let marks = MarkRead {
        by: caller.identity()?.clone(),
        room: OwnedRoomId::try_from(room).map_err(|e| Error::invalid_param(e.to_string()))?,
        marks,
    };
    ask(&app.actors.rooms, marks).await?;
    Ok(Json("{}".to_owned()))
}
