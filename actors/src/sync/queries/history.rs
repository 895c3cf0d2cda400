//! The timeline of a room in an answer, and the state that goes with it.

use std::collections::BTreeMap;

use schema::events::EventRow;
use schema::{Conn, Position, events};
use serde::Serialize;
use serde_json::value::RawValue;

use super::ask::{AnswerRange, StateAt, SyncQuery};
use super::pieces::PIECE;
use crate::Result;
use crate::hooks::FilteredPart;
use crate::rooms::queries::{access, client_events};
use crate::rooms::rules::format::EventFormat;
use crate::rooms::rules::visibility::HistoryAccess;
use crate::sync::rules;
use crate::sync::rules::token::Token;

/// The most state events of a room that are sent.
const STATE: i64 = 100_000;

/// The `timeline` of a room.
#[derive(Debug, Default, Serialize)]
pub(crate) struct TimelineSection {
    pub(crate) events: Vec<Box<RawValue>>,
    pub(crate) limited: bool,
    pub(crate) prev_batch: String,
}

/// A room's timeline and state.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) timeline: TimelineSection,
    pub(crate) state: Vec<Box<RawValue>>,
    /// Whether the timeline or the state contains an event that the summary depends on: a member, the name or the alias.
    pub(crate) changes_summary: bool,
    /// The users whose member events are part of the timeline.
    pub(crate) members: Vec<String>,
}

/// The part of a room's history to read.
pub(crate) struct HistoryRequest {
    /// Events after this position.
    pub(crate) after: Position,
    /// Events up to this position.
    pub(crate) up_to: Position,
    /// Whether to read all state, not only what changed.
    pub(crate) whole_state: bool,
    /// State up to this position; for a room that the user left, the position of the leave.
    pub(crate) state_up_to: Position,
    /// Whether the user's membership changed, so that its access must be checked for each event.
    pub(crate) moved: bool,
}

/// Read a room's history and the state that goes with it.
pub(crate) fn history(
    db: &mut Conn,
    ask: &SyncQuery,
    room_id: &str,
    wanted: &HistoryRequest,
    range: &AnswerRange<'_>,
) -> Result<History> {
    let limit = ask.filter.timeline_limit();
    // If events may be filtered out, read more than the limit.
    let wants_all = ask.filter.wants_whole_timeline() && range.keeps.is_all();
    let read = if wants_all && range.ignored.is_empty() {
        limit + 1
    } else {
        PIECE
    };
    let rows = events::newest_first(db, room_id, wanted.after, wanted.up_to, read as i64)?;
    let is_complete = rows.len() < read;
    let access = match rows.last() {
        Some(oldest) if wanted.moved => {
            let before = Position(oldest.position).before();
            Some(access(db, room_id, &ask.user, before, Position(i64::MAX))?)
        }
        _ => None,
    };
    let access = access.as_ref();
    let is_shown = |event: &EventRow| {
        let position = Position(event.position);
        ask.filter.wants_event(event)
            && !range.ignored.hides(event)
            && range.keeps.keeps(FilteredPart::Timeline, event)
            && access.is_none_or(|access| access.sees(position))
    };
    let (cut, at_start) = (!is_complete, ask.state_at == StateAt::Start);
    let timeline = rules::timeline(&rows, cut, limit, wanted.up_to, at_start, is_shown);
    let mut events = Vec::with_capacity(timeline.events.len());
    for event in &timeline.events {
        let membership = access.map_or("join", |a| a.membership(Position(event.position)));
        events.push(shown(db, ask, range, event, access, Some(membership))?);
    }

    let is_member = |event: &EventRow| event.kind == "m.room.member";
    let whole = is_complete.then_some(&rows[..]);
    // A state event that was replaced before the user could see the state is not shown. Every event that replaced state of the
    // start of the range is among `rows`.
    let replaced: BTreeMap<&str, Position> = rows
        .iter()
        .filter(|row| row.position <= wanted.state_up_to.0)
        .filter_map(|row| Some((row.replaces.as_deref()?, Position(row.position))))
        .collect();
    let may_see = |event: &EventRow| {
        let by = replaced.get(event.event_id.as_str());
        access
            .zip(by)
            .is_none_or(|(access, by)| access.sees_replaced(Position(event.position), *by))
    };
    let state = state(db, ask, room_id, wanted, whole, &timeline, may_see)?;
    let matters = |event: &EventRow| {
        let kind = event.kind.as_str();
        is_member(event) || matches!(kind, "m.room.name" | "m.room.canonical_alias")
    };
    let changes_summary = rows.iter().any(matters) || state.iter().any(matters);
    let state = state
        .iter()
        .filter(|event| ask.filter.wants_state(event))
        .filter(|event| range.keeps.keeps(FilteredPart::State, event))
        .map(|event| shown(db, ask, range, event, access, None))
        .collect::<Result<Vec<_>>>()?;
    let members = rows.iter().filter(|event| is_member(event));
    let members = members.filter_map(|event| event.state_key.clone());
    Ok(History {
        members: members.collect(),
        timeline: TimelineSection {
            events,
            limited: timeline.limited,
            prev_batch: Token::at(timeline.start).to_string(),
        },
        state,
        changes_summary,
    })
}

/// An event in client format.
fn shown(
    db: &mut Conn,
    ask: &SyncQuery,
    range: &AnswerRange<'_>,
    event: &EventRow,
    access: Option<&HistoryAccess>,
    membership: Option<&str>,
) -> Result<Box<RawValue>> {
    let format = EventFormat {
        now: Some(range.now.wall),
        reader: ask.reader(),
        membership,
        access,
        ..EventFormat::default()
    };
    let mut shown = client_events(db, std::slice::from_ref(event), &[], &format)?;
    Ok(shown.swap_remove(0))
}

/// The state that goes with a timeline: as of its start or its end, with the state events filtered out of it. `rows` is the range
/// that the timeline was cut from, if it was read in full. State as of the start holds only what `may_see` accepts. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
fn state(
    db: &mut Conn,
    ask: &SyncQuery,
    room_id: &str,
    wanted: &HistoryRequest,
    rows: Option<&[EventRow]>,
    timeline: &rules::Timeline<'_>,
    may_see: impl Fn(&EventRow) -> bool,
) -> Result<Vec<EventRow>> {
    let at_start = ask.state_at == StateAt::Start;
    let up_to = if at_start {
        timeline.start.min(wanted.state_up_to)
    } else {
        wanted.state_up_to
    };
    let mut found = match rows {
        Some(rows) if !wanted.whole_state => {
            let part = rows.iter().filter(|event| event.position <= up_to.0);
            part.cloned().collect()
        }
        _ => {
            let after = if wanted.whole_state {
                Position::START
            } else {
                wanted.after
            };
            events::state_between(db, room_id, after, up_to, STATE)?
        }
    };
    if at_start {
        let left_out = timeline.left_out.iter();
        let seen = left_out.filter(|event| event.position <= wanted.state_up_to.0);
        found.extend(seen.map(|event| (*event).clone()));
        found.retain(may_see);
    }
    Ok(rules::latest_state(found.iter())
        .into_iter()
        .cloned()
        .collect())
}
