//! The past of rooms, as far as each may see it.

use std::collections::BTreeSet;

use ruma::api::client::filter::RoomEventFilter;
use ruma::{EventId, RoomId};
use schema::events::EventRow;
use schema::{Conn, Position, events, relations};
use serde_json::value::RawValue;

use super::state::{Standing, of_user};
use super::{dressed, vision};
use crate::rooms::filter;
use crate::rooms::format::Dress;
use crate::rooms::rules::token;
use crate::rooms::visibility::Vision;
use crate::{Env, Error, Identity, Refusal, Result};

/// The most events of a page.
const PAGE: usize = 1000;

/// The most events that are looked at for one page: a filter that lets nothing pass must not read the whole room.
const LOOKED_AT: usize = 5000;

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
    let until = match of_user(db, &by.user, room)? {
        Standing::Now => Position(i64::MAX),
        Standing::Until(left) => left,
    };
    let (mut low, mut high) = if page.backwards {
        let newest = events::newest_first(db, room.as_str(), Position::START, until, 1)?;
        let newest = newest
            .first()
            .map_or(Position::START, |e| Position(e.position));
        (
            page.to.unwrap_or(Position::START),
            page.from.unwrap_or(newest).min(newest),
        )
    } else {
        (
            page.from.unwrap_or(Position::START),
            page.to.unwrap_or(until).min(until),
        )
    };
    let start = token(if page.backwards { high } else { low });
    let limit = page.limit.clamp(1, PAGE);
    let (mut rows, mut looked_at, mut more) = (Vec::new(), 0, true);
    while more && rows.len() < limit && looked_at < LOOKED_AT {
        let piece = limit.clamp(20, 200);
        let most = i64::try_from(piece).unwrap_or(i64::MAX);
        let found = if page.backwards {
            events::newest_first(db, room.as_str(), low, high, most)?
        } else {
            events::oldest_first(db, room.as_str(), low, high, most)?
        };
        more = found.len() == piece;
        looked_at += found.len();
        let sight = sight(db, by, room, &found)?;
        for row in found {
            if rows.len() == limit {
                more = true;
                break;
            }
            let at = Position(row.position);
            if page.backwards {
                high = at.before();
            } else {
                low = at;
            }
            if sight.sees(at) && filter::lets_pass(&page.filter, &row) {
                rows.push(row);
            }
        }
    }
    let end = more.then(|| token(if page.backwards { high } else { low }));
    let state = if !page.filter.lazy_load_options.is_disabled() {
        senders(db, room, &rows)?
    } else {
        Vec::new()
    };
    Ok(Messages {
        start,
        end,
        chunk: show(db, by, room, &rows, now)?,
        state: show(db, by, room, &state, now)?,
    })
}

/// What a user may see around these events.
fn sight(db: &mut Conn, by: &Identity, room: &RoomId, rows: &[EventRow]) -> Result<Vision> {
    let oldest = rows.iter().map(|e| e.position).min().unwrap_or_default();
    // The event before counts too: what changes the rule may be seen by who could see before it.
    vision(db, room.as_str(), by.user.as_str(), Position(oldest - 2))
}

/// Events in client format, with what their reader was at the time.
fn show(
    db: &mut Conn,
    by: &Identity,
    room: &RoomId,
    rows: &[EventRow],
    now: i64,
) -> Result<Vec<Box<RawValue>>> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let sight = sight(db, by, room, rows)?;
    let memberships: Vec<&str> = rows
        .iter()
        .map(|row| sight.membership(Position(row.position)))
        .collect();
    let dress = Dress {
        room_id: true,
        now: Some(now),
        reader: by.device.as_ref().map(|d| (by.user.as_str(), d.as_str())),
        ..Dress::default()
    };
    dressed(db, rows, &memberships, &dress)
}

/// The member events of those who sent these events.
fn senders(db: &mut Conn, room: &RoomId, rows: &[EventRow]) -> Result<Vec<EventRow>> {
    let senders: BTreeSet<&str> = rows.iter().map(|e| e.sender.as_str()).collect();
    let mut found = Vec::new();
    for sender in senders {
        found.extend(events::state(db, room.as_str(), "m.room.member", sender)?);
    }
    Ok(found)
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
    let sees = sight(db, by, room, std::slice::from_ref(&row))?.sees(Position(row.position));
    sees.then_some(row).ok_or_else(|| missing().into())
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
            let mut shown = show(db, &by, &room, &[row], now)?;
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
    const STATE: i64 = 100_000;
    let (now, by) = (env.clock.now(), by.clone());
    let (room, event) = (room.to_owned(), event.to_owned());
    env.store
        .read(move |db| {
            let row = visible(db, &by, &room, &event)?;
            let at = Position(row.position);
            let half = i64::try_from(limit.min(PAGE)).unwrap_or(i64::MAX) / 2;
            let end_of_time = Position(i64::MAX);
            let mut before =
                events::newest_first(db, room.as_str(), Position::START, at.before(), half)?;
            let mut after = events::oldest_first(db, room.as_str(), at, end_of_time, half)?;
            let first = before.last().map_or(at, |e| Position(e.position));
            let last = after.last().map_or(at, |e| Position(e.position));
            for rows in [&mut before, &mut after] {
                let sight = sight(db, &by, &room, rows)?;
                rows.retain(|e| sight.sees(Position(e.position)) && filter::lets_pass(&filter, e));
            }
            let state = if !filter.lazy_load_options.is_disabled() {
                let mut all = before.clone();
                all.extend(after.iter().cloned());
                all.push(row.clone());
                senders(db, &room, &all)?
            } else {
                events::state_between(db, room.as_str(), Position::START, last, STATE)?
            };
            let mut shown = show(db, &by, &room, &[row], now)?;
            Ok(Context {
                start: token(first.before()),
                end: token(last),
                event: shown.pop().ok_or(Error::Failed("rooms"))?,
                before: show(db, &by, &room, &before, now)?,
                after: show(db, &by, &room, &after, now)?,
                state: show(db, &by, &room, &state, now)?,
            })
        })
        .await
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
            let sight = sight(db, &by, &room, &found)?;
            let mut rows = Vec::new();
            let mut end = None;
            for row in found {
                let at = Position(row.position);
                let relation = relations::of(db, at)?;
                let relates =
                    which.rel_type.is_none() || relation.map(|r| r.rel_type) == which.rel_type;
                let is_kind = which.kind.as_ref().is_none_or(|kind| *kind == row.kind);
                if !(relates && is_kind && sight.sees(at)) {
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
                chunk: show(db, &by, &room, &rows, now)?,
                state: Vec::new(),
            })
        })
        .await
}
