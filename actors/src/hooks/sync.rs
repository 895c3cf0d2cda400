//! What hooks add to answers to `/sync`.

use std::collections::BTreeMap;

use schema::{Conn, Position, memberships, scratch};
use serde_json::Value;

use super::part::{AT_ONCE, Stored, after_prefix};
use crate::Result;
use crate::wire::{Name, Naming};

/// What a hook adds to an answer to `/sync`, and what it can read for it.
pub struct SyncPart<'a> {
    pub(crate) db: &'a mut Conn,
    pub(crate) number: u16,
    pub(crate) naming: Naming,
    /// The syncing user.
    pub user: &'a str,
    /// The syncing device.
    pub device: Option<&'a str>,
    /// Whether the client has no token yet.
    pub is_initial: bool,
    /// The position of the client's token; what has a later position is new to the client.
    pub after: Position,
    /// The position that the answer's token gets.
    pub up_to: Position,
    pub(crate) added: &'a mut SyncAdditions,
}

/// What the hooks add to an answer to `/sync`: keys of the answer, and keys of joined rooms.
#[derive(Debug, Default)]
pub(crate) struct SyncAdditions {
    pub(crate) top: BTreeMap<&'static str, Value>,
    pub(crate) rooms: AddedToRooms,
}

/// The keys that hooks add to joined rooms of an answer to `/sync`, by room.
pub(crate) type AddedToRooms = BTreeMap<String, BTreeMap<&'static str, Value>>;

impl SyncPart<'_> {
    /// The database, for the reads of `schema`.
    pub fn db(&mut self) -> &mut Conn {
        self.db
    }

    /// The values that this proposal has stored since the client's token, in order, at most [`AT_ONCE`].
    pub fn changed(&mut self) -> Result<Vec<Stored>> {
        let rows = scratch::since(self.db, self.number, self.after, self.up_to, AT_ONCE)?;
        Ok(rows.into_iter().map(Stored::from).collect())
    }

    /// The values of this proposal whose key begins with `prefix`, in the order of the keys, at most [`AT_ONCE`].
    pub fn range(&mut self, prefix: &str) -> Result<Vec<Stored>> {
        let rows = scratch::range(self.db, self.number, prefix, &after_prefix(prefix), AT_ONCE)?;
        Ok(rows.into_iter().map(Stored::from).collect())
    }

    /// Those of the values in [`SyncPart::range`] that were stored since the client's token.
    pub fn changed_in(&mut self, prefix: &str) -> Result<Vec<Stored>> {
        let (after, up_to) = (self.after, self.up_to);
        let mut values = self.range(prefix)?;
        values.retain(|value| value.position > after && value.position <= up_to);
        Ok(values)
    }

    /// Whether the user is joined to a room.
    pub fn is_joined(&mut self, room: &str) -> Result<bool> {
        Ok(memberships::is_joined(self.db, room, self.user)?)
    }

    /// Add a key to the answer.
    pub fn add(&mut self, name: Name, value: impl Into<Value>) {
        let value = value.into();
        for key in self.naming.forms(name) {
            self.added.top.insert(key, value.clone());
        }
    }

    /// Add a key to a room of the answer, if the user is joined to it.
    pub fn add_to_room(&mut self, room: &str, name: Name, value: impl Into<Value>) -> Result<()> {
        if self.is_joined(room)? {
            let value = value.into();
            let keys = self.added.rooms.entry(room.to_owned()).or_default();
            for key in self.naming.forms(name) {
                keys.insert(key, value.clone());
            }
        }
        Ok(())
    }
}
