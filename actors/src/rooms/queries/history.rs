//! The past of rooms, as far as each may see it.

use std::collections::BTreeSet;

use ruma::api::client::filter::RoomEventFilter;
use ruma::{EventId, RoomId};
use schema::events::EventRow;
use schema::{Conn, Position, events, relations};
use serde_json::value::RawValue;

use super::access::{access, state_access_of_user};
use super::reader::{LOOKED_AT, Reader, Stretch};
use crate::accounts::queries::ignored::Ignored;
use crate::rooms::rules::token;
use crate::rooms::rules::visibility::StateAccess;
use crate::{Env, Error, Identity, Refusal, Result};

/// The most events of a page.
const PAGE: usize = 1000;

/// Which page of a room's history is asked for.
#[derive(Debug, Clone)]
pub struct Page {
    /// Begin here; `None` for the end from which the direction leads away.
    pub from: Option<Position>,
    /// Do not go past this.
    pub to: Option<Position>,
    /// Newest first.
    pub backwards: bool,
    /// At most so many events.
    pub limit: usize,
    /// Only such events.
    pub filter: RoomEventFilter,
}

/// A page of history: tokens where it begins and where the next one does, and the events in between in client format.
#[derive(Debug)]
pub struct Messages {
    /// Where it begins.
    pub start: String,
    /// Where the next page begins; `None` at the edge.
    pub end: Option<String>,
    /// The events, in the direction that was asked for.
    pub chunk: Vec<Box<RawValue>>,
    /// The member events of their senders, if the filter asks for members as they are needed.
    pub state: Vec<Box<RawValue>>,
}

/// A page of a room's history. ([spec])
///
/// # Errors
/// [`Refusal::Forbidden`] for who has never been in the room.
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidmessages
pub async fn messages(env: &Env, by: &Identity, room: &RoomId, page: Page) -> Result<Messages> {
    let (now, by, room) = (env.clock.now(), by.clone(), room.to_owned());
    env.store
        .read(move |db| read_page(db, &by, &room, &page, now))
        .await
}

fn read_page(
    db: &mut Conn,
    by: &Identity,
    room: &RoomId,
    page: &Page,
    now: i64,
) -> Result<Messages> {
    let until = match state_access_of_user(db, &by.user, room)? {
        StateAccess::Now => Position(i64::MAX),
        StateAccess::Until(left) => left,
    };
    let stretch = if page.backwards {
        let newest = events::newest_first(db, room.as_str(), Position::START, until, 1)?;
        let newest = newest
            .first()
            .map_or(Position::START, |e| Position(e.position));
        Stretch {
            low: page.to.unwrap_or(Position::START),
            high: page.from.unwrap_or(newest).min(newest),
            backwards: true,
        }
    } else {
        Stretch {
            low: page.from.unwrap_or(Position::START),
            high: page.to.unwrap_or(until).min(until),
            backwards: false,
        }
    };
    let start = token(if page.backwards {
        stretch.high
    } else {
        stretch.low
    });
    let reader = Reader::new(by, room, now);
    let limit = page.limit.clamp(1, PAGE);
    let walked = reader.walk(db, &stretch, limit, &page.filter)?;
    // Deviation: at the live edge a page that holds something has an end, where the next events will come, so that the client can
    // go on later; Synapse answers the same. An empty page has none, nor has the last one that a user who left may see.
    let goes_on = until == Position(i64::MAX) && !page.backwards && walked.looked_at > 0;
    let state = if page.filter.lazy_load_options.is_disabled() {
        Vec::new()
    } else {
        reader.senders(db, &walked.rows)?
    };
    Ok(Messages {
        start,
        end: (walked.more || goes_on).then(|| token(walked.end)),
        chunk: reader.show(db, &walked.rows)?,
        state: reader.show_state(db, &state)?,
    })
}

/// An event that a user may see.
///
/// # Errors
/// [`Refusal::NotFound`]: what one may not see is not there.
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
            let mut shown = Reader::new(&by, &room, now).show(db, &[row])?;
            shown.pop().ok_or(Error::Failed("rooms"))
        })
        .await
}

/// An event and what stands around it.
#[derive(Debug)]
pub struct Context {
    /// Where what stands before it begins: a page backwards from here goes on.
    pub start: String,
    /// Where what stands after it ends: a page forwards from here goes on.
    pub end: String,
    /// The event.
    pub event: Box<RawValue>,
    /// What stands before it, newest first.
    pub before: Vec<Box<RawValue>>,
    /// What stands after it, oldest first.
    pub after: Vec<Box<RawValue>>,
    /// The state as of the last of these events.
    pub state: Vec<Box<RawValue>>,
}

/// An event and what stands around it, at most `limit` events in all. ([spec])
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
) -> Result<Context> {
    let (now, by) = (env.clock.now(), by.clone());
    let (room, event) = (room.to_owned(), event.to_owned());
    env.store
        .read(move |db| {
            let row = visible(db, &by, &room, &event)?;
            let reader = Reader::new(&by, &room, now);
            let at = Position(row.position);
            let limit = limit.min(PAGE);
            let before = Stretch {
                low: Position::START,
                high: at.before(),
                backwards: true,
            };
            let before = reader.walk(db, &before, limit / 2, &filter)?;
            let after = Stretch {
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
            Ok(Context {
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

/// The state as of the last of these events, as far as the user may see it; where members are loaded as they are needed, with
/// the member events of the senders only. A user who may see nothing but its own leave is shown that.
fn context_state(
    db: &mut Conn,
    reader: &Reader<'_>,
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

/// Which events about another are asked for.
#[derive(Debug, Clone, Default)]
pub struct Related {
    /// Only those that relate in this way.
    pub rel_type: Option<String>,
    /// Only those of this type.
    pub kind: Option<String>,
}

/// Events that say something about another. ([spec])
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
    page: Page,
) -> Result<Messages> {
    let (now, by) = (env.clock.now(), by.clone());
    let (room, event) = (room.to_owned(), event.to_owned());
    env.store
        .read(move |db| {
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
            let most = i64::try_from(LOOKED_AT).unwrap_or(i64::MAX);
            let (parent, backwards) = (event.as_str(), page.backwards);
            let found = relations::about(db, room.as_str(), parent, low, high, backwards, most)?;
            let reader = Reader::new(&by, &room, now);
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
                    // The next page begins with this one.
                    end = Some(token(if backwards { at } else { at.before() }));
                    break;
                }
                rows.push(row);
            }
            Ok(Messages {
                start: token(if backwards { high } else { low }),
                end,
                chunk: reader.show(db, &rows)?,
                state: Vec::new(),
            })
        })
        .await
}

/// The event of a room that is nearest to a time, at or before it or at or after it, as far as the user may see: its id and
/// its time. ([spec])
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
            let access = Reader::new(&by, &room, now).access(db, &found)?;
            let mut seen = found.into_iter();
            let seen = seen.find(|row| access.sees(Position(row.position)));
            let row = seen.ok_or(Refusal::NotFound("there is no such event".into()))?;
            Ok((row.event_id, row.origin_server_ts))
        })
        .await
}
