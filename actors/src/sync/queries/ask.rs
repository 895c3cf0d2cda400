//! A parsed request to `/sync`, and the range of positions that its answer covers.

use std::sync::Arc;

use schema::{Conn, Position, memberships};

use crate::Result;
use crate::accounts::queries::ignored::Ignored;
use crate::hooks::Keeps;
use crate::runtime::clock::Times;
use crate::sync::rules::filter::Filter;
use crate::sync::rules::token::Token;

/// The field of an answer that holds a room's state, and its point in time. (MSC4222, [spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateAt {
    /// The field `state` holds the state as of the start of the timeline.
    Start,
    /// The field `state_after` holds the state as of the end of the timeline.
    End,
    /// The field `org.matrix.msc4222.state_after` holds the state as of the end of the timeline.
    EndUnstable,
}

/// A request to `/sync` with its token and filter parsed.
#[derive(Debug, Clone)]
pub(crate) struct SyncQuery {
    pub(crate) user: String,
    pub(crate) device: Option<String>,
    /// The token of the last answer; `None` for an initial sync.
    pub(crate) since: Option<Token>,
    pub(crate) filter: Filter,
    pub(crate) full_state: bool,
    pub(crate) state_at: StateAt,
    /// The pairs of the query, for proposals.
    pub(crate) query: Arc<[(String, String)]>,
}

impl SyncQuery {
    /// The position after which changes are new to the client.
    pub(crate) fn after(&self) -> Position {
        self.since.map_or(Position::START, |since| since.position)
    }

    /// The user and device, for [`unsigned.transaction_id`](crate::rooms::rules::format).
    pub(crate) fn reader(&self) -> Option<(&str, &str)> {
        Some((&self.user, self.device.as_deref()?))
    }
}

/// The range of positions that an answer covers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnswerRange<'a> {
    /// The range begins after this position.
    pub(crate) after: Position,
    /// The range ends with this position.
    pub(crate) head: Position,
    /// The current time.
    pub(crate) now: Times,
    /// The users that the syncing user ignores.
    pub(crate) ignored: &'a Ignored,
    /// The events that proposals keep.
    pub(crate) keeps: &'a Keeps<'a>,
}

/// The user's membership in a room at `since`; `None` for none, and for an initial sync.
pub(crate) fn was(db: &mut Conn, ask: &SyncQuery, room_id: &str) -> Result<Option<String>> {
    match ask.since {
        Some(since) => Ok(memberships::as_of(db, room_id, &ask.user, since.position)?),
        None => Ok(None),
    }
}
