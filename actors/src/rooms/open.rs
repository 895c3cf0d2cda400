//! A room's row and rules, read in the write that changes it.

use ruma::room_version_rules::RoomVersionRules;
use ruma::{OwnedRoomId, RoomId};
use schema::rooms::RoomRow;
use schema::{Tx, events, rooms};

use super::rules::judged::Judged;
use super::rules::power::Powers;
use super::rules::{parsed, rules_of};
use crate::{Env, Refusal, Result};

/// A room in the write that changes it.
pub(crate) struct OpenRoom<'e> {
    pub(super) env: &'e Env,
    pub(super) rules: RoomVersionRules,
    pub(super) id: OwnedRoomId,
    pub(super) row: RoomRow,
}

impl<'e> OpenRoom<'e> {
    /// Read a room for a user that wants to change it.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when there is no such room: the same answer as for a user that is not a member.
    pub(crate) fn room(env: &'e Env, tx: &mut Tx<'_>, room_id: &RoomId) -> Result<OpenRoom<'e>> {
        let row = rooms::room(tx, room_id.as_str())?
            .ok_or(Refusal::Forbidden("you are not in this room".into()))?;
        OpenRoom::row(env, row)
    }

    /// From a row that was read already.
    pub(crate) fn row(env: &'e Env, row: RoomRow) -> Result<OpenRoom<'e>> {
        Ok(OpenRoom {
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

    /// The current power levels.
    pub(crate) fn powers(&self, tx: &mut Tx<'_>) -> Result<Powers> {
        let create = self.state(tx, "m.room.create", "")?;
        let levels = self.state(tx, "m.room.power_levels", "")?;
        Powers::new(create, levels, &self.rules.authorization)
    }

    /// A current state event, in the form that the authorisation rules read.
    pub(crate) fn state(&self, tx: &mut Tx<'_>, kind: &str, key: &str) -> Result<Option<Judged>> {
        events::state(tx, &self.row.room_id, kind, key)?
            .map(|row| Judged::stored(&row, &self.rules))
            .transpose()
    }
}
