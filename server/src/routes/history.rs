//! The history of rooms.

use actors::rooms::queries::{self, HistoryCriteria, Related};
use actors::rooms::rules::parse_token;
use ruma::api::Direction;
use ruma::api::client::context::get_context;
use ruma::api::client::message::get_message_events;
use ruma::api::client::relations::{
    get_relating_events, get_relating_events_with_rel_type,
    get_relating_events_with_rel_type_and_event_type,
};
use ruma::api::client::room::get_room_event;
use ruma::serde::Raw;
use ruma::{EventId, RoomId, UInt};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::http::answer::Json;
use crate::http::caller::Caller;
use crate::http::error::Result;
use crate::http::incoming::variable;
use crate::http::registry::Routes;
use crate::state::App;

/// The endpoints of this file.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .on(messages)
        .on(event)
        .on_json(context)
        .on(related)
        .on(related_so)
        .on_path(related_so_of_type)
}

fn raw<T>(events: Vec<Box<RawValue>>) -> Vec<Raw<T>> {
    events.into_iter().map(Raw::from_json).collect()
}

fn page(
    from: Option<&str>,
    to: Option<&str>,
    direction: Direction,
    limit: Option<UInt>,
) -> Result<HistoryCriteria> {
    Ok(HistoryCriteria {
        from: from.map(parse_token).transpose()?,
        to: to.map(parse_token).transpose()?,
        backwards: direction == Direction::Backward,
        limit: limit.map_or(10, |l| usize::try_from(u64::from(l)).unwrap_or(usize::MAX)),
        filter: Default::default(),
    })
}

/// A page of a room's history.
///
/// `GET /_matrix/client/*/rooms/{roomId}/messages` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages
async fn messages(
    app: App,
    caller: Caller,
    request: get_message_events::v3::Request,
) -> Result<get_message_events::v3::Response> {
    let (from, to) = (request.from.as_deref(), request.to.as_deref());
    let page = HistoryCriteria {
        filter: request.filter,
        ..page(from, to, request.dir, Some(request.limit))?
    };
    let by = caller.identity()?;
    let found = queries::messages(&app.actors.env, by, &request.room_id, page).await?;
    let mut response = get_message_events::v3::Response::new();
    response.start = found.start;
    response.end = found.end;
    response.chunk = raw(found.chunk);
    response.state = raw(found.state);
    Ok(response)
}

/// One event.
///
/// `GET /_matrix/client/*/rooms/{roomId}/event/{eventId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid
async fn event(
    app: App,
    caller: Caller,
    request: get_room_event::v3::Request,
) -> Result<get_room_event::v3::Response> {
    let (by, env) = (caller.identity()?, &app.actors.env);
    let event = queries::event(env, by, &request.room_id, &request.event_id).await?;
    Ok(get_room_event::v3::Response::new(Raw::from_json(event)))
}

/// The answer about the surroundings of an event.
#[derive(Debug, Serialize)]
struct EventContext {
    start: String,
    end: String,
    event: Box<RawValue>,
    events_before: Vec<Box<RawValue>>,
    events_after: Vec<Box<RawValue>>,
    state: Vec<Box<RawValue>>,
}

/// An event with the events and the state around it.
///
/// `GET /_matrix/client/*/rooms/{roomId}/context/{eventId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidcontexteventid
async fn context(app: App, caller: Caller, request: get_context::v3::Request) -> Result<Json> {
    let limit = usize::try_from(u64::from(request.limit)).unwrap_or(usize::MAX);
    let found = queries::context(
        &app.actors.env,
        caller.identity()?,
        &request.room_id,
        &request.event_id,
        limit,
        request.filter,
    )
    .await?;
    // Clients read each list without asking whether it is there, and ruma leaves out the empty ones.
    let answer = EventContext {
        start: found.start,
        end: found.end,
        event: found.event,
        events_before: found.before,
        events_after: found.after,
        state: found.state,
    };
    let answer = serde_json::to_string(&answer).map_err(actors::Error::from)?;
    Ok(Json(answer))
}

async fn about(
    app: &App,
    caller: &Caller,
    (room, event): (&RoomId, &EventId),
    which: Related,
    page: HistoryCriteria,
) -> Result<queries::HistoryPage> {
    let by = caller.identity()?;
    Ok(queries::related(&app.actors.env, by, room, event, which, page).await?)
}

/// How many relations away related events were looked for, if the request asks for indirect ones.
fn depth(recurse: bool) -> Option<UInt> {
    recurse.then(|| queries::RECURSION.into())
}

/// Events that relate to another. Clause: cs.relations.recurse
///
/// `GET /_matrix/client/*/rooms/{roomId}/relations/{eventId}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventid
async fn related(
    app: App,
    caller: Caller,
    request: get_relating_events::v1::Request,
) -> Result<get_relating_events::v1::Response> {
    let (from, to) = (request.from.as_deref(), request.to.as_deref());
    let page = page(from, to, request.dir, request.limit)?;
    let parent = (&*request.room_id, &*request.event_id);
    let which = Related {
        recurse: request.recurse,
        ..Related::default()
    };
    let found = about(&app, &caller, parent, which, page).await?;
    let mut response = get_relating_events::v1::Response::new(raw(found.chunk));
    response.prev_batch = request.from;
    response.next_batch = found.end;
    response.recursion_depth = depth(request.recurse);
    Ok(response)
}

/// Events with one relation type to another event.
///
/// `GET /_matrix/client/*/rooms/{roomId}/relations/{eventId}/{relType}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventidreltype
async fn related_so(
    app: App,
    caller: Caller,
    request: get_relating_events_with_rel_type::v1::Request,
) -> Result<get_relating_events_with_rel_type::v1::Response> {
    let (from, to) = (request.from.as_deref(), request.to.as_deref());
    let page = page(from, to, request.dir, request.limit)?;
    let parent = (&*request.room_id, &*request.event_id);
    let which = Related {
        rel_type: Some(request.rel_type.to_string()),
        kind: None,
        recurse: request.recurse,
    };
    let found = about(&app, &caller, parent, which, page).await?;
    let mut response = get_relating_events_with_rel_type::v1::Response::new(raw(found.chunk));
    response.prev_batch = request.from;
    response.next_batch = found.end;
    response.recursion_depth = depth(request.recurse);
    Ok(response)
}

/// Events of one type, with one relation type to another event.
///
/// `GET /_matrix/client/*/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}` ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventidreltypeeventtype
async fn related_so_of_type(
    app: App,
    caller: Caller,
    path: Vec<String>,
    request: get_relating_events_with_rel_type_and_event_type::v1::Request,
) -> Result<get_relating_events_with_rel_type_and_event_type::v1::Response> {
    let (from, to) = (request.from.as_deref(), request.to.as_deref());
    let page = page(from, to, request.dir, request.limit)?;
    let parent = (&*request.room_id, &*request.event_id);
    let which = Related {
        rel_type: Some(request.rel_type.to_string()),
        kind: Some(variable(path, 3)),
        recurse: request.recurse,
    };
    let found = about(&app, &caller, parent, which, page).await?;
    let chunk = raw(found.chunk);
    let mut response = get_relating_events_with_rel_type_and_event_type::v1::Response::new(chunk);
    response.prev_batch = request.from;
    response.next_batch = found.end;
    response.recursion_depth = depth(request.recurse);
    Ok(response)
}
