//! What a write changed in rooms, of which senders, clients and `device_lists` are notified after the commit.

use std::collections::BTreeSet;

use actix::Recipient;
use ruma::{OwnedRoomId, OwnedUserId};
use schema::ServiceId;

use crate::device_lists::MembershipChanged;
use crate::runtime::wake::NewReceipt;
use crate::{Env, tell};

/// The effects of one write.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Appservices that the write owes something.
    pub(crate) services: BTreeSet<ServiceId>,
    /// Rooms whose waiting clients are woken.
    pub(crate) rooms: BTreeSet<OwnedRoomId>,
    /// Users whose waiting clients are woken.
    pub(crate) users: BTreeSet<OwnedUserId>,
    /// The memberships that changed, in order.
    pub(crate) memberships: Vec<MembershipChanged>,
    /// The public and private receipts that were set.
    pub(crate) receipts: Vec<NewReceipt>,
}

/// Notify of what a committed write did.
pub(super) fn notify(env: &Env, device_lists: &Recipient<MembershipChanged>, effects: Effects) {
    for fact in effects.memberships {
        tell(env, "rooms", device_lists, "device_lists", fact);
    }
    // A sender woken before `device_lists` has processed the change holds the event back; `device_lists` wakes it again.
    env.wake.services(&effects.services, Some(env.store.head()));
    env.wake.rooms(effects.rooms.into_iter().collect());
    env.wake.users(effects.users.into_iter().collect());
    for receipt in effects.receipts {
        env.wake.receipt(receipt);
    }
}
