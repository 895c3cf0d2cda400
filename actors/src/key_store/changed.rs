//! Which devices, users and rooms a write to the key store concerns: collected during the write, announced after its commit.
//!
//! Next on the way of a claim: `schema/src/counts.rs`.

use std::collections::BTreeSet;

use actix::Recipient;
use ruma::{OwnedRoomId, OwnedUserId, UserId};
use schema::ServiceId;
use schema::accounts::Addressed;
use schema::{Tx, counts, device_log, memberships};

use crate::device_lists::KeysChanged;
use crate::hooks::{Change, OwedDraft, ReportsChanges, Withholding};
use crate::services::{CarriesInterests, receivers_of_counts};
use crate::{Env, Result, tell};

/// The most rooms of a user whose `/sync` requests are woken when the user's keys change. Those in other rooms get the change
/// with their next response.
const ROOMS: i64 = 10_000;

/// The devices, users and rooms that a write concerns.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    services: BTreeSet<ServiceId>,
    users: BTreeSet<OwnedUserId>,
    rooms: BTreeSet<OwnedRoomId>,
    device_lists: Vec<KeysChanged>,
}

impl Changed {
    /// The key counts of a device of this user changed: owe them to the appservices that decide over the device
    /// (`receivers_of_counts` in `services/authority.rs`). Clause: as.counts.changed
    pub(super) fn counts(&mut self, tx: &mut Tx<'_>, to: &Addressed, user: &UserId) -> Result<()> {
        let interests = tx.interests();
        let mut services = receivers_of_counts(&interests, to);
        let (withholding, item) = (Withholding::of(tx), OwedDraft::counts(&to.device));
        services.retain(|id| withholding.lets(interests.service(id), &item));
        counts::owe_counts(tx, &services, &to.device)?;
        self.services.extend(services);
        self.users.insert(user.to_owned());
        Ok(())
    }

    /// The user's keys changed for all users who see them: append a line to the device-list log.
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
        tx.changed(&Change::Keys {
            user: user.as_str(),
        })
    }

    /// The keys of `subject` changed for this user alone: append a line to the device-list log.
    pub(super) fn private(&mut self, tx: &mut Tx<'_>, user: &UserId, subject: &str) -> Result<()> {
        let position = device_log::private_keys_changed(tx, user.as_str(), subject)?;
        self.users.insert(user.to_owned());
        self.device_lists.push(KeysChanged {
            user: user.to_owned(),
            position,
        });
        Ok(())
    }

    /// Wake the senders and the requests that see the change, once the write is committed.
    pub(crate) fn wake(self, env: &Env) {
        env.wake.services(&self.services, Some(env.store.head()));
        env.wake.users(self.users.into_iter().collect());
        env.wake.rooms(self.rooms.into_iter().collect());
    }

    /// Send the notifications, once the write is committed.
    pub(super) fn announce(mut self, env: &Env, to: &Recipient<KeysChanged>) {
        for fact in std::mem::take(&mut self.device_lists) {
            tell(env, "key_store", to, "device_lists", fact);
        }
        self.wake(env);
    }
}
