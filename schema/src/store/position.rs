//! The one counter that orders everything.

use serde::{Deserialize, Serialize};

/// A place in the one order of all durable facts: what Matrix calls a `since` token is made of it.
///
/// Positions are handed out in commit order: whoever has seen the head has seen everything below it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub i64);

impl Position {
    /// Before everything.
    pub const START: Position = Position(0);

    /// The position just before this one.
    #[must_use]
    pub fn before(self) -> Position {
        Position(self.0 - 1)
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
