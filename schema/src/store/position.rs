//! The counter that orders everything.

use serde::{Deserialize, Serialize};

/// A position in the one order of all stored facts. Matrix's `since` tokens are made of positions.
///
/// Positions are assigned in the order of the commits: a snapshot that contains a position contains all positions below it.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub i64);

impl Position {
    /// The position before all others.
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
