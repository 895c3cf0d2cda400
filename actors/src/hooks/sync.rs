//! What hooks add to answers to `/sync`, and the events that they keep in them.

use std::collections::BTreeMap;

use schema::events::EventRow;
use schema::{Conn, Position, memberships, scratch};
use serde_json::Value;

use super::part::{AT_ONCE, Stored, after_prefix};
use crate::wire::{Name, Naming};
use crate::{Refusal, Result};

/// What a hook adds to an answer to `/sync`, and what it can read for it.
pub struct SyncPart<'a> {
    pub(crate) db: &'a mut Conn,
    pub(crate) number: u16,
    pub(crate) naming: Naming,
    pub(crate) asked: &'a SyncAsked<'a>,
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

    /// The client's filter: see [`SyncAsked::filter`].
    pub fn filter(&self) -> &Value {
        self.asked.filter()
    }

    /// A parameter of the query.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.asked.param(name)
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

/// What a client asks `/sync` for.
#[derive(Debug)]
pub struct SyncAsked<'a> {
    /// The syncing user.
    pub user: &'a str,
    filter: Value,
    query: &'a [(String, String)],
}

impl<'a> SyncAsked<'a> {
    /// The filter is parsed only if a hook reads it.
    pub(crate) fn new(
        is_read: bool,
        user: &'a str,
        filter: &str,
        query: &'a [(String, String)],
    ) -> Result<SyncAsked<'a>> {
        let filter = match is_read {
            // The typed filter does not look at the values of keys that it does not know.
            true => serde_json::from_str(filter)
                .map_err(|e| Refusal::InvalidParam(format!("filter: {e}").into()))?,
            false => Value::Null,
        };
        Ok(SyncAsked {
            user,
            filter,
            query,
        })
    }

    /// The client's filter, stored or inline, with the keys that only a proposal knows; `{}` for no filter.
    pub fn filter(&self) -> &Value {
        &self.filter
    }

    /// A parameter of the query.
    pub fn param(&self, name: &str) -> Option<&str> {
        let pair = self.query.iter().find(|(key, _)| key == name);
        pair.map(|(_, value)| value.as_str())
    }
}

/// The part of a room in an answer to `/sync` to which a filter is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilteredPart {
    /// The timeline.
    Timeline,
    /// The state.
    State,
}

/// Whether an event stays in a part of an answer to `/sync`.
pub type KeepsEvent = fn(&SyncAsked<'_>, FilteredPart, &EventRow) -> bool;

/// The hooks that keep events in an answer.
#[derive(Debug)]
pub(crate) struct Keeps<'a> {
    asked: &'a SyncAsked<'a>,
    hooks: Vec<KeepsEvent>,
}

impl<'a> Keeps<'a> {
    pub(crate) fn new(hooks: Vec<KeepsEvent>, asked: &'a SyncAsked<'a>) -> Keeps<'a> {
        Keeps { asked, hooks }
    }

    /// Whether every event stays.
    pub(crate) fn is_all(&self) -> bool {
        self.hooks.is_empty()
    }

    /// Whether this event stays.
    pub(crate) fn keeps(&self, part: FilteredPart, event: &EventRow) -> bool {
        (self.hooks.iter()).all(|keeps| keeps(self.asked, part, event))
    }
}
