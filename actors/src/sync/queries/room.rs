//! The parts of an answer for one room.

use std::collections::BTreeMap;

use schema::memberships::MembershipRow;
use schema::receipts::ReceiptRow;
use schema::user_data::DataRow;
use schema::{Conn, Position, events, memberships, receipts, rooms, user_data};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::ask::{AnswerRange, StateAt, SyncQuery, was};
use super::events::{Events, data_event};
use super::history::{History, HistoryRequest, TimelineSection, history};
use super::pieces::{PIECE, all};
use super::unread::{Counter, Unread};
use crate::Result;
use crate::rooms::rules::format::content;
use crate::sync::rules::token::Token;
use crate::sync::rules::{self, Receipt};
use crate::sync::volatile::VolatileState;

/// The most members after whom a client names a room without a name. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#calculating-the-display-name-for-a-room
const HEROES: usize = 5;

/// The state of a room under the field that the client requested.
#[derive(Debug, Default)]
struct StateSections {
    before: Option<Events>,
    after: Option<Events>,
    after_unstable: Option<Events>,
}

impl StateSections {
    fn new(at: StateAt, events: Vec<Box<RawValue>>) -> StateSections {
        let events = Some(Events::from(events));
        match at {
            StateAt::Start => StateSections {
                before: events.filter(|e| !e.is_empty()),
                ..StateSections::default()
            },
            // Sent even when empty: the field tells the client that the server supports it.
            StateAt::End => StateSections {
                after: events,
                ..StateSections::default()
            },
            StateAt::EndUnstable => StateSections {
                after_unstable: events,
                ..StateSections::default()
            },
        }
    }
}

#[derive(Debug, Serialize)]
struct Summary {
    #[serde(rename = "m.heroes", skip_serializing_if = "Option::is_none")]
    heroes: Option<Vec<String>>,
    #[serde(rename = "m.joined_member_count")]
    joined: i64,
    #[serde(rename = "m.invited_member_count")]
    invited: i64,
}

/// The reasons for a joined room to be in the answer.
#[derive(Debug, Default)]
pub(crate) struct Reasons {
    /// The user was not joined at `since`.
    pub(crate) is_new: bool,
    /// The user left the room once, so the client may know it from before.
    pub(crate) returned: bool,
    /// The user's own membership changed, perhaps to leave and back, so its access must be checked for each event.
    pub(crate) moved: bool,
    /// A user began or stopped typing.
    pub(crate) typing: bool,
    /// There are new receipts.
    pub(crate) receipts: bool,
    /// There are new events.
    pub(crate) events: bool,
    /// The user's account data for the room that changed.
    pub(crate) account_data: Vec<Box<RawValue>>,
    /// The keys that proposals add to the room.
    pub(crate) added: BTreeMap<&'static str, Value>,
}

/// A room that the user is joined to.
#[derive(Debug, Serialize)]
pub(crate) struct Joined {
    #[serde(skip_serializing_if = "Option::is_none")]
    summary: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Events>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_after: Option<Events>,
    #[serde(
        rename = "org.matrix.msc4222.state_after",
        skip_serializing_if = "Option::is_none"
    )]
    state_after_unstable: Option<Events>,
    timeline: TimelineSection,
    #[serde(skip_serializing_if = "Events::is_empty")]
    ephemeral: Events,
    #[serde(skip_serializing_if = "Events::is_empty")]
    account_data: Events,
    #[serde(skip_serializing_if = "Option::is_none")]
    unread_notifications: Option<Unread>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unread_thread_notifications: BTreeMap<String, Unread>,
    /// The keys that proposals add.
    #[serde(flatten)]
    added: BTreeMap<&'static str, Value>,
    /// Users whose presence to send: they joined the room, or were in it when the syncing user joined.
    #[serde(skip)]
    pub(crate) arrived: Vec<String>,
}

/// A room that the user left or was banned from.
#[derive(Debug, Serialize)]
pub(crate) struct Left {
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Events>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_after: Option<Events>,
    #[serde(
        rename = "org.matrix.msc4222.state_after",
        skip_serializing_if = "Option::is_none"
    )]
    state_after_unstable: Option<Events>,
    timeline: TimelineSection,
    #[serde(skip_serializing_if = "Events::is_empty")]
    account_data: Events,
}

/// A room that the user is invited to, or knocks on.
#[derive(Debug, Serialize)]
pub(crate) struct Stripped {
    #[serde(skip_serializing_if = "Option::is_none")]
    invite_state: Option<Events>,
    #[serde(skip_serializing_if = "Option::is_none")]
    knock_state: Option<Events>,
}

impl Stripped {
    pub(crate) fn of(row: &MembershipRow, state: Vec<Box<RawValue>>) -> Stripped {
        let is_knock = row.membership == "knock";
        let (invite, knock) = if is_knock {
            (None, Some(state.into()))
        } else {
            (Some(state.into()), None)
        };
        Stripped {
            invite_state: invite,
            knock_state: knock,
        }
    }
}

/// A room that the user is joined to; `None` if nothing is new.
pub(crate) fn joined(
    db: &mut Conn,
    volatile: &VolatileState,
    ask: &SyncQuery,
    room_id: &str,
    why: Reasons,
    range: &AnswerRange<'_>,
    unread: &mut Counter<'_>,
) -> Result<Option<Joined>> {
    let whole = why.is_new || ask.full_state;
    let history = if whole || why.events {
        let wanted = HistoryRequest {
            after: if why.is_new {
                Position::START
            } else {
                range.after
            },
            up_to: range.head,
            whole_state: whole,
            state_up_to: range.head,
            moved: why.moved,
        };
        history(db, ask, room_id, &wanted, range)?
    } else {
        History {
            timeline: TimelineSection {
                prev_batch: Token::at(range.head).to_string(),
                ..TimelineSection::default()
            },
            ..History::default()
        }
    };
    let ephemeral = ephemeral(db, volatile, ask, room_id, &why, range)?;
    let account_data = if why.is_new && ask.since.is_some() {
        whole_account_data(db, ask, room_id, range.head)?
    } else {
        why.account_data
    };
    let added = why.added;
    let has_news = whole
        || !history.timeline.events.is_empty()
        || history.timeline.limited
        || !history.state.is_empty()
        || !ephemeral.is_empty()
        || !account_data.is_empty()
        || !added.is_empty();
    if !has_news {
        return Ok(None);
    }
    let summary = if whole || history.changes_summary {
        summary(db, ask, room_id)?
    } else {
        None
    };
    let state = StateSections::new(ask.state_at, history.state);
    let by_thread = ask.filter.wants_thread_counts();
    let unread = unread.room(db, room_id, range.head, by_thread)?;
    let arrived = if why.is_new && ask.since.is_some() {
        let members = memberships::in_room(db, room_id, "join", "", PIECE as i64)?;
        members.into_iter().map(|row| row.user_id).collect()
    } else {
        history.members
    };
    Ok(Some(Joined {
        summary,
        state: state.before,
        state_after: state.after,
        state_after_unstable: state.after_unstable,
        timeline: history.timeline,
        ephemeral: ephemeral.into(),
        account_data: account_data.into(),
        unread_notifications: unread.room,
        unread_thread_notifications: unread.threads,
        added,
        arrived,
    }))
}

/// A room that the user left: the events up to its leave. If the user never joined it, or has forgotten it since, only its own
/// leave event. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#syncing
pub(crate) fn left(
    db: &mut Conn,
    ask: &SyncQuery,
    row: &MembershipRow,
    account_data: Vec<Box<RawValue>>,
    range: &AnswerRange<'_>,
) -> Result<Left> {
    let (gone, left_at) = (Position(row.position), Position(row.left_at));
    // Not joined since `after`. In an initial sync (`after` is 0), this includes a user that never joined (`left_at` is 0).
    let is_closed = row.is_forgotten() || left_at <= ask.after();
    let is_known = was(db, ask, &row.room_id)?.as_deref() == Some("join");
    let wanted = HistoryRequest {
        after: match (is_closed, is_known) {
            (true, _) => gone.before().max(range.after),
            (false, true) => range.after,
            (false, false) => Position::START,
        },
        up_to: gone,
        whole_state: !is_closed && (!is_known || ask.full_state),
        state_up_to: if is_closed { gone } else { left_at },
        moved: true,
    };
    let history = history(db, ask, &row.room_id, &wanted, range)?;
    let mut state = StateSections::new(ask.state_at, history.state);
    if ask.state_at == StateAt::Start {
        state.before.get_or_insert_default();
    }
    Ok(Left {
        state: state.before,
        state_after: state.after,
        state_after_unstable: state.after_unstable,
        timeline: history.timeline,
        account_data: account_data.into(),
    })
}

fn ephemeral(
    db: &mut Conn,
    volatile: &VolatileState,
    ask: &SyncQuery,
    room_id: &str,
    why: &Reasons,
    range: &AnswerRange<'_>,
) -> Result<Vec<Box<RawValue>>> {
    let mut events = Vec::new();
    if (why.typing || why.is_new) && ask.filter.wants_ephemeral(room_id, "m.typing") {
        let mut users = volatile.typing(room_id);
        users.retain(|user| !range.ignored.contains(user));
        // A client that does not know the room assumes that no user is typing, so skip an empty list. A client that knows the room
        // may still show the users that were typing when its user left.
        let is_known = !why.is_new || (why.returned && ask.since.is_some());
        if is_known || !users.is_empty() {
            events.push(to_raw_value(&rules::typing(None, &users))?);
        }
    }
    if (why.receipts || why.is_new) && ask.filter.wants_ephemeral(room_id, "m.receipt") {
        let first = if why.is_new {
            Position::START
        } else {
            range.after
        };
        let rows = all(|last: Option<&ReceiptRow>| {
            let after = last.map_or(first, |row| Position(row.position));
            Ok(receipts::after(
                db,
                room_id,
                after,
                range.head,
                PIECE as i64,
            )?)
        })?;
        let receipts: Vec<Receipt> = rows
            .into_iter()
            .map(Receipt::from)
            .filter(|receipt| receipt.is_for(&ask.user))
            .filter(|receipt| !range.ignored.contains(receipt.user()))
            .collect();
        for event in rules::receipts(None, &receipts) {
            events.push(to_raw_value(&event)?);
        }
    }
    Ok(events)
}

/// All account data for a room that is new to the client.
fn whole_account_data(
    db: &mut Conn,
    ask: &SyncQuery,
    room_id: &str,
    head: Position,
) -> Result<Vec<Box<RawValue>>> {
    let rows: Vec<DataRow> = user_data::of_room(db, &ask.user, room_id, head, PIECE as i64)?;
    rows.iter()
        .filter(|row| ask.filter.wants_account_data(room_id, &row.kind))
        .map(|row| data_event(&row.kind, &row.content))
        .collect()
}

/// The number of members, and the heroes if the room has no name. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
fn summary(db: &mut Conn, ask: &SyncQuery, room_id: &str) -> Result<Option<Summary>> {
    let Some(room) = rooms::room(db, room_id)? else {
        return Ok(None);
    };
    let mut is_named = false;
    for (kind, key) in [("m.room.name", "name"), ("m.room.canonical_alias", "alias")] {
        if let Some(event) = events::state(db, room_id, kind, "")? {
            is_named |= rules::has_text(content(&event)?, key);
        }
    }
    let heroes = if is_named {
        None
    } else {
        let heroes = memberships::heroes(db, room_id, &ask.user, HEROES)?;
        Some(heroes.into_iter().map(|hero| hero.user_id).collect())
    };
    Ok(Some(Summary {
        heroes,
        joined: room.joined,
        invited: room.invited,
    }))
}
