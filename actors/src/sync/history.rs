//! What is shown of a room's history, and the state that goes with it.

use schema::events::EventRow;
use schema::{Conn, Position, events};
use serde::Serialize;
use serde_json::value::RawValue;

use super::gather::{Ask, PIECE, StateAt};
use super::room::Stretch;
use super::rules;
use super::token::Token;
use crate::Result;
use crate::rooms::format::Dress;
use crate::rooms::queries::{dressed, vision};

/// The most state events of a room that are sent.
const STATE: i64 = 100_000;

/// The part of a room's history that is shown.
#[derive(Debug, Default, Serialize)]
pub(super) struct Timeline {
    pub(super) events: Vec<Box<RawValue>>,
    pub(super) limited: bool,
    pub(super) prev_batch: String,
}

/// What is shown of a room's history.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) timeline: Timeline,
    pub(super) state: Vec<Box<RawValue>>,
    /// Whether somebody's membership is part of it.
    pub(super) has_members: bool,
}

/// How a room's history is asked for.
pub(super) struct Wanted {
    /// Events after this.
    pub(super) after: Position,
    /// Events up to this.
    pub(super) up_to: Position,
    /// All state, not only what changed.
    pub(super) whole_state: bool,
    /// Whether what the user may read must be looked up: its membership changed.
    pub(super) moved: bool,
}

/// Read a room's history and the state that goes with it.
pub(super) fn history(
    db: &mut Conn,
    ask: &Ask,
    room_id: &str,
    wanted: &Wanted,
    stretch: &Stretch,
) -> Result<History> {
    let limit = ask.filter.timeline_limit();
    // Where something is left out, more is read than is shown.
    let read = if ask.filter.wants_whole_timeline() {
        limit + 1
    } else {
        PIECE
    };
    let rows = events::newest_first(db, room_id, wanted.after, wanted.up_to, read as i64)?;
    let is_complete = rows.len() < read;
    let vision = match rows.last() {
        Some(oldest) if wanted.moved => {
            // The event before counts too: what changes the rule may be read by who could read before it.
            let before = Position(oldest.position - 2);
            Some(vision(db, room_id, &ask.user, before)?)
        }
        _ => None,
    };
    let timeline = rules::timeline(&rows, !is_complete, limit, wanted.up_to, |event| {
        let position = Position(event.position);
        ask.filter.wants_event(event) && vision.as_ref().is_none_or(|vision| vision.sees(position))
    });
    let mut events = Vec::with_capacity(timeline.events.len());
    for event in timeline.events {
        let membership = match &vision {
            Some(vision) => vision.membership(Position(event.position)),
            None => "join",
        };
        events.push(shown(db, ask, stretch, event, Some(membership))?);
    }

    let is_member = |event: &EventRow| event.kind == "m.room.member";
    let whole = is_complete.then_some(&rows[..]);
    let state = state(db, ask, room_id, wanted, whole, timeline.start)?;
    let has_members = rows.iter().any(is_member) || state.iter().any(is_member);
    let state = state
        .iter()
        .filter(|event| ask.filter.wants_state(event))
        .map(|event| shown(db, ask, stretch, event, None))
        .collect::<Result<Vec<_>>>()?;
    Ok(History {
        timeline: Timeline {
            events,
            limited: timeline.limited,
            prev_batch: Token::at(timeline.start).to_string(),
        },
        state,
        has_members,
    })
}

/// An event as this client reads it.
fn shown(
    db: &mut Conn,
    ask: &Ask,
    stretch: &Stretch,
    event: &EventRow,
    membership: Option<&str>,
) -> Result<Box<RawValue>> {
    let dress = Dress {
        now: Some(stretch.now),
        reader: ask.reader(),
        membership,
        ..Dress::default()
    };
    let mut shown = dressed(db, std::slice::from_ref(event), &[], &dress)?;
    Ok(shown.swap_remove(0))
}

/// The state that goes with a timeline. `rows` is the stretch of history it was cut from, when that was read in full.
fn state(
    db: &mut Conn,
    ask: &Ask,
    room_id: &str,
    wanted: &Wanted,
    rows: Option<&[EventRow]>,
    start: Position,
) -> Result<Vec<EventRow>> {
    let up_to = if ask.state_at == StateAt::Start {
        start
    } else {
        wanted.up_to
    };
    if wanted.whole_state {
        return Ok(events::state_between(
            db,
            room_id,
            Position::START,
            up_to,
            STATE,
        )?);
    }
    match rows {
        Some(rows) => {
            let part = rows.iter().filter(|event| event.position <= up_to.0);
            Ok(rules::latest_state(part).into_iter().cloned().collect())
        }
        None => Ok(events::state_between(
            db,
            room_id,
            wanted.after,
            up_to,
            STATE,
        )?),
    }
}
