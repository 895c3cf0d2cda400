//! What a client asks, prepared, and the stretch of history that the answer covers.

use schema::{Conn, Position, memberships};

use crate::Result;
use crate::accounts::queries::ignored::Ignored;
use crate::runtime::clock::Times;
use crate::sync::rules::filter::Filter;
use crate::sync::rules::token::Token;

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
pub(crate) struct Ask {
    pub(crate) user: String,
    pub(crate) device: Option<String>,
    /// How far it has come; `None` at first.
    pub(crate) since: Option<Token>,
    pub(crate) filter: Filter,
    pub(crate) full_state: bool,
    pub(crate) state_at: StateAt,
}

impl Ask {
    /// After which position something is new.
    pub(crate) fn after(&self) -> Position {
        self.since.map_or(Position::START, |since| since.position)
    }

    /// User and device, as events remember who sent them.
    pub(crate) fn reader(&self) -> Option<(&str, &str)> {
        Some((&self.user, self.device.as_deref()?))
    }
}

/// The stretch of history that an answer covers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch<'a> {
    /// After this.
    pub(crate) after: Position,
    /// Up to this.
    pub(crate) head: Position,
    /// The time.
    pub(crate) now: Times,
    /// The users that the user ignores.
    pub(crate) ignored: &'a Ignored,
}

/// The user's membership in a room when it last asked; `None` for none, and at first.
pub(crate) fn was(db: &mut Conn, ask: &Ask, room_id: &str) -> Result<Option<String>> {
    match ask.since {
        Some(since) => Ok(memberships::as_of(db, room_id, &ask.user, since.position)?),
        None => Ok(None),
    }
}
