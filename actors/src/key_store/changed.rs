//! Whom a write concerns: collected in it, told and woken after its commit.

use std::collections::BTreeSet;

use actix::Recipient;
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use schema::ServiceId;
use schema::accounts::Addressed;
use schema::{Tx, counts, device_log, memberships};

use crate::device_lists::KeysChanged;
use crate::services::{CarriesInterests, told_counts};
use crate::{Env, Result, tell};

/// How many rooms of a user are woken when its keys change; whoever waits in another hears of it with the next thing there.
const ROOMS: i64 = 10_000;

/// Whom a write concerns.
#[derive(Debug, Default)]
pub(super) struct Changed {
    services: BTreeSet<ServiceId>,
    users: BTreeSet<OwnedUserId>,
    rooms: BTreeSet<OwnedRoomId>,
    device_lists: Vec<KeysChanged>,
}

impl Changed {
    /// The key counts of a device of this user changed: the write owes them to the services that decide over it.
    pub(super) fn counts(&mut self, tx: &mut Tx<'_>, to: &Addressed, user: &UserId) -> Result<()> {
        let services = told_counts(&tx.interests(), to);
        counts::owe_counts(tx, &services, &to.device)?;
        self.services.extend(services);
        self.users.insert(user.to_owned());
        Ok(())
    }

    /// The user's keys changed for everybody: the write logs it.
    pub(super) fn device_lists(&mut self, tx: &mut Tx<'_>, user: &UserId) -> Result<()> {
        let position = device_log::keys_changed(tx, user.as_str())?;
        let rooms = memberships::of_user(tx, user.as_str(), "join", "", ROOMS)?;
        let rooms = rooms
            .into_iter()
            .map(|row| OwnedRoomId::try_from(row.room_id));
        self.rooms.extend(rooms.filter_map(|id| id.ok()));
        self.users.insert(user.to_owned());
        self.device_lists.push(KeysChanged {
            user: user.to_owned(),
            position,
        });
        Ok(())
    }

    /// The keys of `subject` look different to this user and to no other: the write logs it.
    pub(super) fn private(&mut self, tx: &mut Tx<'_>, user: &UserId, subject: &str) -> Result<()> {
        let position = device_log::private_keys_changed(tx, user.as_str(), subject)?;
        self.users.insert(user.to_owned());
        self.device_lists.push(KeysChanged {
            user: user.to_owned(),
            position,
        });
        Ok(())
    }

    /// The write is committed.
    pub(super) fn announce(self, env: &Env, to: &Recipient<KeysChanged>) {
        for fact in self.device_lists {
            tell(env, "key_store", to, "device_lists", fact);
        }
        env.wake.services(&self.services, Some(env.store.head()));
        env.wake.users(self.users.into_iter().collect());
        env.wake.rooms(self.rooms.into_iter().collect());
    }
}
