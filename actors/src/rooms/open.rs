//! A room that is being written to, as it is read in the same write.

use ruma::room_version_rules::RoomVersionRules;
use ruma::{OwnedRoomId, RoomId};
use schema::rooms::RoomRow;
use schema::{Tx, events, rooms};

use super::rules::judged::Judged;
use super::rules::power::Powers;
use super::rules::{parsed, rules_of};
use crate::{Env, Refusal, Result};

/// A room that is being written to: its row, read in the same write.
pub(crate) struct Open<'e> {
    pub(super) env: &'e Env,
    pub(super) rules: RoomVersionRules,
    pub(super) id: OwnedRoomId,
    pub(super) row: RoomRow,
}

impl<'e> Open<'e> {
    /// Open a room for a user who wants to write to it.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when there is no such room: who is not in a room is not told whether it exists.
    pub(crate) fn room(env: &'e Env, tx: &mut Tx<'_>, room_id: &RoomId) -> Result<Open<'e>> {
        let row = rooms::room(tx, room_id.as_str())?
            .ok_or(Refusal::Forbidden("you are not in this room".into()))?;
        Open::row(env, row)
    }

    /// Open a room whose row is known.
    ///
    /// # Errors
    /// When the row is damaged.
    pub(crate) fn row(env: &'e Env, row: RoomRow) -> Result<Open<'e>> {
        Ok(Open {
            env,
            rules: rules_of(&row.version)?,
            id: parsed(&row.room_id)?,
            row,
        })
    }

    /// The room's id.
    pub(crate) fn id(&self) -> &OwnedRoomId {
        &self.id
    }

    /// Who may what in the room now.
    ///
    /// # Errors
    /// When the database fails or a stored event is damaged.
    pub(crate) fn powers(&self, tx: &mut Tx<'_>) -> Result<Powers> {
        let create = self.state(tx, "m.room.create", "")?;
        let levels = self.state(tx, "m.room.power_levels", "")?;
        Powers::new(create, levels, &self.rules.authorization)
    }

    /// A current state event, as the rules look at it.
    ///
    /// # Errors
    /// When the database fails or the stored event is damaged.
    pub(crate) fn state(&self, tx: &mut Tx<'_>, kind: &str, key: &str) -> Result<Option<Judged>> {
        events::state(tx, &self.row.room_id, kind, key)?
            .map(|row| Judged::stored(&row, &self.rules))
            .transpose()
    }
}
