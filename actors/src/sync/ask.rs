//! What a client asks, prepared, and the stretch of history that the answer covers.

use schema::{Conn, Position, memberships};

use super::filter::Filter;
use super::token::Token;
use crate::Result;
use crate::accounts::ignored::Ignored;
use crate::runtime::clock::Times;

/// Where a room's state stands in an answer, as the client asked for it. (MSC4222, [spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateAt {
    /// In `state`, as of the start of the timeline.
    Start,
    /// In `state_after`, as of its end.
    End,
    /// The same under the name before it was stable.
    EndUnstable,
}

/// What a client asks, prepared.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) user: String,
    pub(super) device: Option<String>,
    /// How far it has come; `None` at first.
    pub(super) since: Option<Token>,
    pub(super) filter: Filter,
    pub(super) full_state: bool,
    pub(super) state_at: StateAt,
}

impl Ask {
    /// After which position something is new.
    pub(super) fn after(&self) -> Position {
        self.since.map_or(Position::START, |since| since.position)
    }

    /// User and device, as events remember who sent them.
    pub(super) fn reader(&self) -> Option<(&str, &str)> {
        Some((&self.user, self.device.as_deref()?))
    }
}

/// The stretch of history that an answer covers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch<'a> {
    /// After this.
    pub(super) after: Position,
    /// Up to this.
    pub(super) head: Position,
    /// The time.
    pub(super) now: Times,
    /// The users that the user ignores.
    pub(super) ignored: &'a Ignored,
}

/// The user's membership in a room when it last asked; `None` for none, and at first.
pub(super) fn was(db: &mut Conn, ask: &Ask, room_id: &str) -> Result<Option<String>> {
    match ask.since {
        Some(since) => Ok(memberships::as_of(db, room_id, &ask.user, since.position)?),
        None => Ok(None),
    }
}
