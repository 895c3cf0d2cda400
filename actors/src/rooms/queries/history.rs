//! The history of rooms, as far as the caller may see it.

use std::collections::{BTreeMap, BTreeSet};

use ruma::api::client::filter::RoomEventFilter;
use ruma::{EventId, RoomId};
use schema::events::EventRow;
use schema::{Conn, Position, events, relations};
use serde_json::value::RawValue;

use super::access::{access, state_access_of_user};
use super::reader::{HistoryRange, LOOKED_AT, RoomReader};
use crate::accounts::queries::ignored::Ignored;
use crate::rooms::rules::token;
use crate::rooms::rules::visibility::StateAccess;
use crate::{Env, Error, Identity, Refusal, Result};

/// The most events of a page.
const PAGE: usize = 1000;

/// Criteria for a page of a room's history.
#[derive(Debug, Clone)]
pub struct HistoryCriteria {
    /// The position at which the page begins; `None` for the newest event if `backwards`, else the oldest.
    pub from: Option<Position>,
    /// The position at which the page ends at the latest.
    pub to: Option<Position>,
    /// Whether the page is read newest first.
    pub backwards: bool,
    /// The most events.
    pub limit: usize,
    /// Which events are wanted.
    pub filter: RoomEventFilter,
}

/// A page of history: events in client format, and tokens.
#[derive(Debug)]
pub struct HistoryPage {
    /// The token where this page begins.
    pub start: String,
    /// The token of the next page; `None` if there is none.
    pub end: Option<String>,
    /// The events, in the requested direction.
    pub chunk: Vec<Box<RawValue>>,
    /// The member events of the senders, if the filter asks for lazy-loaded members.
    pub state: Vec<Box<RawValue>>,
}

/// A page of a room's history. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`] for a user that has never been in the room.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages
pub async fn messages(
    env: &Env,
    by: &Identity,
    room: &RoomId,
    page: HistoryCriteria,
) -> Result<HistoryPage> {
    let (now, by, room) = (env.clock.now(), by.clone(), room.to_owned());
    env.store
        .read(move |db| read_page(db, &by, &room, &page, now))
        .await
}

fn read_page(
    db: &mut Conn,
    by: &Identity,
    room: &RoomId,
    page: &HistoryCriteria,
    now: i64,
) -> Result<HistoryPage> {
    let until = match state_access_of_user(db, &by.user, room)? {
        StateAccess::Now => Position(i64::MAX),
        StateAccess::Until(left) => left,
    };
    let range = if page.backwards {
        let newest = events::newest_first(db, room.as_str(), Position::START, until, 1)?;
        let newest = newest
            .first()
            .map_or(Position::START, |e| Position(e.position));
        HistoryRange {
            low: page.to.unwrap_or(Position::START),
            high: page.from.unwrap_or(newest).min(newest),
            backwards: true,
        }
    } else {
        HistoryRange {
            low: page.from.unwrap_or(Position::START),
            high: page.to.unwrap_or(until).min(until),
            backwards: false,
        }
    };
    let start = token(if page.backwards {
        range.high
    } else {
        range.low
    });
    let reader = RoomReader::new(by, room, now);
    let limit = page.limit.clamp(1, PAGE);
    let walked = reader.walk(db, &range, limit, &page.filter)?;
    // Deviation: a forward page that reaches the newest event has an `end` token unless it is empty, so that the client can
    // continue when more events come; Synapse does the same. The last page that a user who left may see has none.
    let goes_on = until == Position(i64::MAX) && !page.backwards && walked.looked_at > 0;
    let state = if page.filter.lazy_load_options.is_disabled() {
        Vec::new()
    } else {
        reader.senders(db, &walked.rows)?
    };
    Ok(HistoryPage {
        start,
        end: (walked.more || goes_on).then(|| token(walked.end)),
        chunk: reader.show(db, &walked.rows)?,
        state: reader.show_state(db, &state)?,
    })
}

/// An event that a user may see.
///
/// # Errors
/// [`Refusal::NotFound`], also when the user may not see it.
fn visible(db: &mut Conn, by: &Identity, room: &RoomId, event: &EventId) -> Result<EventRow> {
    let missing = || Refusal::NotFound("there is no such event, or you may not see it".into());
    let row = events::by_id(db, event.as_str())?
        .filter(|e| e.room_id == room.as_str())
        .ok_or_else(missing)?;
    let at = Position(row.position);
    let access = access(db, room.as_str(), by.user.as_str(), at.before(), at)?;
    access
        .sees(at)
        .then_some(row)
        .ok_or_else(|| missing().into())
}

/// One event. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomideventeventid
pub async fn event(
    env: &Env,
    by: &Identity,
    room: &RoomId,
    event: &EventId,
) -> Result<Box<RawValue>> {
    let (now, by) = (env.clock.now(), by.clone());
    let (room, event) = (room.to_owned(), event.to_owned());
    env.store
        .read(move |db| {
            let row = visible(db, &by, &room, &event)?;
            let mut shown = RoomReader::new(&by, &room, now).show(db, &[row])?;
            shown.pop().ok_or(Error::Failed("rooms"))
        })
        .await
}

/// An event and the events around it.
#[derive(Debug)]
pub struct EventContext {
    /// The token from which a backward page continues.
    pub start: String,
    /// The token from which a forward page continues.
    pub end: String,
    /// The event.
    pub event: Box<RawValue>,
    /// The events before it, newest first.
    pub before: Vec<Box<RawValue>>,
    /// The events after it, oldest first.
    pub after: Vec<Box<RawValue>>,
    /// The state as of the last of these events.
    pub state: Vec<Box<RawValue>>,
}

/// An event with at most `limit` events around it. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidcontexteventid
pub async fn context(
    env: &Env,
    by: &Identity,
    room: &RoomId,
    event: &EventId,
    limit: usize,
    filter: RoomEventFilter,
) -> Result<EventContext> {
    let (now, by) = (env.clock.now(), by.clone());
    let (room, event) = (room.to_owned(), event.to_owned());
    env.store
        .read(move |db| {
            let row = visible(db, &by, &room, &event)?;
            let reader = RoomReader::new(&by, &room, now);
            let at = Position(row.position);
            let limit = limit.min(PAGE);
            let before = HistoryRange {
                low: Position::START,
                high: at.before(),
                backwards: true,
            };
            let before = reader.walk(db, &before, limit / 2, &filter)?;
            let after = HistoryRange {
                low: at,
                high: Position(i64::MAX),
                backwards: false,
            };
            let after = reader.walk(db, &after, limit - limit / 2, &filter)?;
            let all: Vec<EventRow> = before
                .rows
                .iter()
                .chain([&row])
                .chain(&after.rows)
                .cloned()
                .collect();
            let state = context_state(db, &reader, &row, &all, &filter)?;
            let mut shown = reader.show(db, &[row])?;
            Ok(EventContext {
                start: token(before.end),
                end: token(after.end),
                event: shown.pop().ok_or(Error::Failed("rooms"))?,
                before: reader.show(db, &before.rows)?,
                after: reader.show(db, &after.rows)?,
                state: reader.show_state(db, &state)?,
            })
        })
        .await
}

/// The state as of the newest event in `all` whose state the user may see, as far as the user may see it; if the filter asks for
/// lazy-loaded members, only the senders' member events. If there is no such event, the state is `event` alone (its own leave).
fn context_state(
    db: &mut Conn,
    reader: &RoomReader<'_>,
    event: &EventRow,
    all: &[EventRow],
    filter: &RoomEventFilter,
) -> Result<Vec<EventRow>> {
    const STATE: i64 = 100_000;
    let Some(then) = reader.newest_with_state(db, all)? else {
        return Ok(vec![event.clone()]);
    };
    let mut state = events::state_between(db, &event.room_id, Position::START, then, STATE)?;
    if !filter.lazy_load_options.is_disabled() {
        let senders: BTreeSet<&str> = all.iter().map(|e| e.sender.as_str()).collect();
        state.retain(|e| {
            let member = e.state_key.as_deref().filter(|_| e.kind == "m.room.member");
            member.is_none_or(|user| senders.contains(user))
        });
    }
    reader.seen_as_of(db, then, state)
}

/// Criteria for the events that relate to an event.
#[derive(Debug, Clone, Default)]
pub struct Related {
    /// The relation type; `None` for all.
    pub rel_type: Option<String>,
    /// The event type; `None` for all.
    pub kind: Option<String>,
    /// Whether events that relate to such an event count too, up to [`RECURSION`] relations away; whatever relations lie between.
    pub recurse: bool,
}

/// How many relations away from an event its indirect relations are looked for.
pub const RECURSION: u32 = 3;

/// The most events of which the relations are followed.
const FOLLOWED: usize = 50_000;

/// How many events are asked for their relations at once.
const PARENTS: usize = 500;

/// The events after `low` and up to `high` that relate to an event, directly or through others; those nearest to where reading begins,
/// if there are more than a query looks at.
fn relating(
    db: &mut Conn,
    room: &str,
    event: &str,
    (low, high): (Position, Position),
    backwards: bool,
) -> Result<Vec<EventRow>> {
    let (mut parents, mut found) = (vec![event.to_owned()], BTreeMap::new());
    for _ in 0..RECURSION {
        let mut level = Vec::new();
        for some in parents.chunks(PARENTS) {
            let room_left = FOLLOWED.saturating_sub(found.len() + level.len());
            let most = i64::try_from(room_left).unwrap_or(0);
            level.extend(relations::children(db, room, some, most)?);
        }
        parents = level.iter().map(|(_, id)| id.clone()).collect();
        found.extend(level);
    }
    let positions = found.into_keys().map(Position);
    let in_range = positions.filter(|at| *at > low && *at <= high);
    let positions: Vec<Position> = in_range.collect();
    if backwards {
        let nearest = positions.len().saturating_sub(LOOKED_AT);
        let rows = events::at(db, &positions[nearest..])?;
        return Ok(rows.into_iter().rev().collect());
    }
    Ok(events::at(
        db,
        &positions[..positions.len().min(LOOKED_AT)],
    )?)
}

/// The events that relate to an event. ([spec])
///
/// # Errors
/// [`Refusal::NotFound`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidrelationseventid
pub async fn related(
    env: &Env,
    by: &Identity,
    room: &RoomId,
    event: &EventId,
    which: Related,
    page: HistoryCriteria,
) -> Result<HistoryPage> {
    let (now, by) = (env.clock.now(), by.clone());
    let (room, event) = (room.to_owned(), event.to_owned());
    let recurse = which.recurse;
    let read = move |db: &mut Conn| {
        visible(db, &by, &room, &event)?;
        let limit = page.limit.clamp(1, PAGE);
        let (low, high) = if page.backwards {
            (
                page.to.unwrap_or_default(),
                page.from.unwrap_or(Position(i64::MAX)),
            )
        } else {
            (
                page.from.unwrap_or_default(),
                page.to.unwrap_or(Position(i64::MAX)),
            )
        };
        let (parent, backwards) = (event.as_str(), page.backwards);
        let found = if recurse {
            relating(db, room.as_str(), parent, (low, high), backwards)?
        } else {
            let most = i64::try_from(LOOKED_AT).unwrap_or(i64::MAX);
            relations::about(db, room.as_str(), parent, low, high, backwards, most)?
        };
        let reader = RoomReader::new(&by, &room, now);
        let access = reader.access(db, &found)?;
        let ignored = Ignored::of(db, by.user.as_str())?;
        let mut rows = Vec::new();
        let mut end = None;
        for row in found {
            let at = Position(row.position);
            let relation = relations::of(db, at)?;
            let relates =
                which.rel_type.is_none() || relation.map(|r| r.rel_type) == which.rel_type;
            let is_kind = which.kind.as_ref().is_none_or(|kind| *kind == row.kind);
            if !(relates && is_kind && access.sees(at)) || ignored.hides(&row) {
                continue;
            }
            if rows.len() == limit {
                // The next page begins with this event.
                end = Some(token(if backwards { at } else { at.before() }));
                break;
            }
            rows.push(row);
        }
        Ok(HistoryPage {
            start: token(if backwards { high } else { low }),
            end,
            chunk: reader.show(db, &rows)?,
            state: Vec::new(),
        })
    };
    if recurse {
        return env.store.read_slow(read).await;
    }
    env.store.read(read).await
}

/// The id and `origin_server_ts` of the event nearest to a time, before it if `backwards`, else after it; only events that the
/// user may see count. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`], [`Refusal::NotFound`]
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event
pub async fn nearest(
    env: &Env,
    by: &Identity,
    room: &RoomId,
    ts: i64,
    backwards: bool,
) -> Result<(String, i64)> {
    const MOST: i64 = 1000;
    let (now, by, room) = (env.clock.now(), by.clone(), room.to_owned());
    env.store
        .read(move |db| {
            state_access_of_user(db, &by.user, &room)?;
            let found = events::near(db, room.as_str(), ts, backwards, MOST)?;
            let access = RoomReader::new(&by, &room, now).access(db, &found)?;
            let mut seen = found.into_iter();
            let seen = seen.find(|row| access.sees(Position(row.position)));
            let row = seen.ok_or(Refusal::NotFound("there is no such event".into()))?;
            Ok((row.event_id, row.origin_server_ts))
        })
        .await
}
