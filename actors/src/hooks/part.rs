//! What a hook can read, store and cause in a write.

use std::collections::BTreeSet;
use std::sync::Arc;

use ruma::{OwnedRoomId, OwnedUserId};
use schema::owed::{self, Owed};
use schema::scratch::{self, ScratchRow};
use schema::{Conn, Position, Tx, accounts, events, memberships};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::to_raw_value;

use super::host::{DeviceKeys, Host, RoomEvent, ToDeviceMessage};
use crate::runtime::exchange::Exchange;
use crate::runtime::once::once;
use crate::runtime::wake::ProposalEphemeral;
use crate::services::{CarriesInterests, Service, authorities, interested_in_room};
use crate::{Identity, Refusal, Result};

/// The most values that one call of [`Part::range`] or [`SyncPart::changed`](super::SyncPart::changed) returns.
pub const AT_ONCE: i64 = 10_000;

/// The largest key of a stored value, in bytes: it is part of an index.
const KEY: usize = 1_000;

/// The content of a state event of a room.
pub(super) fn state(
    db: &mut Conn,
    room: &str,
    kind: &str,
    state_key: &str,
) -> Result<Option<Value>> {
    let Some(row) = events::state(db, room, kind, state_key)? else {
        return Ok(None);
    };
    let mut pdu: Value = serde_json::from_str(&row.pdu)?;
    Ok(Some(pdu["content"].take()))
}

/// What the request that caused a write exchanges with hooks.
fn exchange(tx: &Tx<'_>) -> Option<Arc<Exchange>> {
    tx.context()?.downcast().ok()
}

/// A value that the request carries that caused a write.
pub(super) fn carried(tx: &Tx<'_>, name: &str) -> Option<Value> {
    exchange(tx)?.carried(name).cloned()
}

/// A value that a proposal has stored.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its key.
    pub key: String,
    /// The position at which it was stored.
    pub position: Position,
    /// The time that was set for it, in milliseconds since the epoch.
    pub due: Option<i64>,
    json: String,
}

impl Stored {
    /// The value.
    ///
    /// # Errors
    /// It has another type.
    pub fn value<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(serde_json::from_str(&self.json)?)
    }
}

impl From<ScratchRow> for Stored {
    fn from(row: ScratchRow) -> Self {
        Stored {
            key: row.key,
            position: Position(row.position),
            due: row.due,
            json: row.value,
        }
    }
}

/// A part of a write: what a hook can read, store and cause. What it causes outside the database happens after the commit.
///
/// A write can run twice, after a rollback. So a hook changes nothing but what this type offers.
pub struct Part<'a, 'c> {
    tx: &'a mut Tx<'c>,
    host: &'a dyn Host,
    number: u16,
}

impl<'a, 'c> Part<'a, 'c> {
    pub(super) fn new(tx: &'a mut Tx<'c>, host: &'a dyn Host, number: u16) -> Part<'a, 'c> {
        Part { tx, host, number }
    }

    /// The time in milliseconds since the epoch.
    pub fn now(&self) -> i64 {
        self.host.now()
    }

    /// The server's name.
    pub fn server_name(&self) -> String {
        self.host.server_name()
    }

    /// The database, for the reads of `schema`.
    pub fn db(&mut self) -> &mut Conn {
        self.tx
    }

    /// A value that the request carries that caused this write, from the code around its endpoint.
    pub fn carried(&self, name: &str) -> Option<Value> {
        carried(self.tx, name)
    }

    /// After the commit, hand a value back to the code around the endpoint whose request caused this write.
    pub fn hand_back(&mut self, name: &str, value: impl Into<Value>) {
        if let Some(exchange) = exchange(self.tx) {
            let (name, value) = (name.to_owned(), value.into());
            self.tx
                .after_commit(move || exchange.hand_back(&name, value));
        }
    }

    /// Do something once for each transaction id that this device, or this appservice for the user, uses in a scope of this proposal.
    /// A repetition gets the answer of the first time.
    ///
    /// # Errors
    /// Those of `act`; [`Refusal::TooLarge`] for a transaction id of more than 255 bytes.
    pub fn once(
        &mut self,
        by: &Identity,
        scope: &str,
        txn: &str,
        act: impl FnOnce(&mut Part<'_, '_>) -> Result<Value>,
    ) -> Result<Value> {
        let (host, number, now) = (self.host, self.number, self.now());
        let scope = format!("msc{number}/{scope}");
        let answer = once(self.tx, by, &scope, txn, now, |tx| {
            Ok(act(&mut Part::new(tx, host, number))?.to_string())
        });
        Ok(serde_json::from_str(&answer?)?)
    }

    /// The last position that was taken.
    pub fn head(&self) -> Position {
        self.tx.head()
    }

    /// Whether a user is joined to a room.
    pub fn is_joined(&mut self, room: &str, user: &str) -> Result<bool> {
        Ok(memberships::is_joined(self.tx, room, user)?)
    }

    /// The content of a state event of a room.
    pub fn state(&mut self, room: &str, kind: &str, state_key: &str) -> Result<Option<Value>> {
        state(self.tx, room, kind, state_key)
    }

    /// The value that this proposal stored under a key.
    pub fn get(&mut self, key: &str) -> Result<Option<Stored>> {
        Ok(scratch::get(self.tx, self.number, key)?.map(Stored::from))
    }

    /// The values of this proposal whose key begins with `prefix`, in the order of the keys, at most [`AT_ONCE`].
    pub fn range(&mut self, prefix: &str) -> Result<Vec<Stored>> {
        let rows = scratch::range(self.tx, self.number, prefix, &after_prefix(prefix), AT_ONCE)?;
        Ok(rows.into_iter().map(Stored::from).collect())
    }

    /// Store a value in place of an older one. It gets a position, so that [`SyncPart::changed`](super::SyncPart::changed) finds it.
    ///
    /// # Errors
    /// [`Refusal::InvalidParam`] for a key of more than 1,000 bytes.
    pub fn put(&mut self, key: &str, value: &impl Serialize) -> Result<Position> {
        self.store(key, value, None)
    }

    /// Store a value as [`Part::put`] does, and call the hook `due` with it at a time, in milliseconds since the epoch.
    pub fn put_until(&mut self, key: &str, value: &impl Serialize, due: i64) -> Result<Position> {
        let position = self.store(key, value, Some(due))?;
        self.host.set_timer(self.tx);
        Ok(position)
    }

    fn store(&mut self, key: &str, value: &impl Serialize, due: Option<i64>) -> Result<Position> {
        if key.len() > KEY {
            return Err(Refusal::InvalidParam("a key has at most 1,000 bytes".into()).into());
        }
        let position = self.tx.next_position();
        let row = ScratchRow {
            position: position.0,
            due,
            ..ScratchRow::new(self.number, key, &serde_json::to_string(value)?)
        };
        scratch::put(self.tx, &row)?;
        Ok(position)
    }

    /// Delete a value. Returns whether there was one.
    pub fn delete(&mut self, key: &str) -> Result<bool> {
        Ok(scratch::delete(self.tx, self.number, key)?)
    }

    /// The appservices that something in a room concerns.
    pub fn services_in_room(&mut self, room: &str) -> Result<Vec<Arc<Service>>> {
        let interests = self.tx.interests();
        let found = interested_in_room(self.tx, &interests, room)?;
        let found = found.iter().filter_map(|id| interests.service(id));
        Ok(found.map(Arc::clone).collect())
    }

    /// The appservices that claim a user.
    pub fn services_of_user(&self, user: &str) -> Vec<Arc<Service>> {
        let interests = self.tx.interests();
        let claims = interests.in_user(user).into_iter();
        claims.map(|(service, _)| Arc::clone(service)).collect()
    }

    /// The appservices that decide over a device: by their namespaces, the account or the device. They get its to-device messages and
    /// its key counts. Empty for a device that does not exist.
    pub fn services_deciding(&mut self, user: &str, device: &str) -> Result<Vec<Arc<Service>>> {
        let Some(to) = accounts::device(self.tx, user, device)? else {
            return Ok(Vec::new());
        };
        let interests = self.tx.interests();
        let found = authorities(&interests, &to).into_iter();
        let found = found.filter_map(|id| interests.service(&id).cloned());
        Ok(found.collect())
    }

    /// Whether a user of this server is a person: no appservice has registered the account.
    pub fn is_person(&mut self, user: &str) -> Result<bool> {
        let row = accounts::user(self.tx, user)?;
        Ok(row.is_some_and(|row| row.appservice_id.is_none()))
    }

    /// Owe an item to those of these appservices that opt in to its kind, one of the proposal's `owes`. With a key, a later item
    /// replaces an earlier one of the same key that was not acknowledged.
    pub fn owe(
        &mut self,
        services: &[Arc<Service>],
        kind: &str,
        key: &[&str],
        item: &impl Serialize,
    ) -> Result<()> {
        let item = serde_json::to_string(item)?;
        let mut woken = BTreeSet::new();
        for service in services.iter().filter(|service| service.takes(kind)) {
            let position = self.tx.next_position();
            let row = Owed {
                key: owed::key(key),
                item: item.clone(),
                ..service.owed(position, kind)
            };
            if key.is_empty() {
                owed::owe(self.tx, &row)?;
            } else {
                owed::owe_latest(self.tx, &row)?;
            }
            woken.insert(service.id.clone());
        }
        let up_to = self.tx.head();
        if !woken.is_empty() {
            self.host.wake_services(self.tx, woken, up_to);
        }
        Ok(())
    }

    /// Send an event to those of these appservices that take ephemeral events, once: it is dropped while an appservice is down. Of
    /// several events with the same type and subject, only the latest is sent.
    pub fn send_ephemeral(
        &mut self,
        services: &[Arc<Service>],
        subject: &str,
        event: &Value,
    ) -> Result<()> {
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        let event = ProposalEphemeral {
            services: services.iter().map(|service| service.id.clone()).collect(),
            kind,
            subject: subject.to_owned(),
            event: to_raw_value(event)?,
        };
        self.host.send_ephemeral(self.tx, event);
        Ok(())
    }

    /// Wake the `/sync` requests of a user, after the commit.
    pub fn wake_user(&mut self, user: &str) {
        let user = OwnedUserId::try_from(user).into_iter().collect();
        self.host.wake(self.tx, user, Vec::new());
    }

    /// Wake the `/sync` requests of the members of a room, after the commit.
    pub fn wake_room(&mut self, room: &str) {
        let room = OwnedRoomId::try_from(room).into_iter().collect();
        self.host.wake(self.tx, Vec::new(), room);
    }

    /// Put a message into the inbox of a device, as a request to `/sendToDevice` does.
    pub fn send_to_device(&mut self, message: ToDeviceMessage<'_>) -> Result<()> {
        self.host.send_to_device(self.tx, message)
    }

    /// Add an event to a room on behalf of a user of this server. Returns its id.
    ///
    /// # Errors
    /// The room's rules refuse it.
    pub fn send_event(&mut self, event: RoomEvent<'_>) -> Result<String> {
        self.host.send_event(self.tx, event)
    }

    /// Create a device of a registered user, without a token.
    ///
    /// # Errors
    /// The id cannot be used, or the user has too many devices.
    pub fn create_device(&mut self, user: &str, device: &str, name: Option<&str>) -> Result<()> {
        self.host.create_device(self.tx, user, device, name)
    }

    /// Delete a device with its tokens, keys and messages. Returns whether it existed.
    pub fn delete_device(&mut self, user: &str, device: &str) -> Result<bool> {
        self.host.delete_device(self.tx, user, device)
    }

    /// Store keys of a device, as a request to `/keys/upload` does.
    ///
    /// # Errors
    /// The device does not exist, or a key is malformed or belongs to another device.
    pub fn upload_keys(&mut self, user: &str, device: &str, keys: &DeviceKeys) -> Result<()> {
        self.host.upload_keys(self.tx, user, device, keys)
    }

    /// Store account data of a user; `room` is empty for global data.
    pub fn put_account_data(
        &mut self,
        user: &str,
        room: &str,
        kind: &str,
        content: &Value,
    ) -> Result<()> {
        self.host
            .put_account_data(self.tx, user, room, kind, content)
    }
}

/// The least text that is greater than every text with this prefix.
#[must_use]
pub fn after_prefix(prefix: &str) -> String {
    let mut text: Vec<char> = prefix.chars().collect();
    while let Some(last) = text.pop() {
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            text.push(next);
            return text.into_iter().collect();
        }
    }
    char::MAX.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_a_prefix_ends_behind_every_key_with_it() {
        for (prefix, end) in [("a", "b"), ("@a:b|", "@a:b}"), ("a\u{d7ff}", "a\u{e000}")] {
            assert_eq!(after_prefix(prefix), end);
        }
        assert_eq!(after_prefix(""), char::MAX.to_string());
        assert_eq!(after_prefix("a\u{10ffff}"), "b");
    }
}
