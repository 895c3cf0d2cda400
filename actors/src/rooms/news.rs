//! What a write did that others must know once it is committed.

use std::collections::BTreeSet;

use actix::Recipient;
use ruma::{OwnedRoomId, OwnedUserId};
use schema::ServiceId;

use crate::device_lists::MembershipChanged;
use crate::runtime::wake::NewReceipt;
use crate::{Env, tell};

/// What a write did.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Who is owed something.
    pub(crate) services: BTreeSet<ServiceId>,
    /// Rooms in which something happened.
    pub(crate) rooms: BTreeSet<OwnedRoomId>,
    /// Users to whom something happened.
    pub(crate) users: BTreeSet<OwnedUserId>,
    /// The memberships that changed, in order.
    pub(crate) memberships: Vec<MembershipChanged>,
    /// Who has read how far.
    pub(crate) receipts: Vec<NewReceipt>,
}

/// Tell what a committed write did.
pub(super) fn announce(env: &Env, device_lists: &Recipient<MembershipChanged>, news: News) {
    for fact in news.memberships {
        tell(env, "rooms", device_lists, "device_lists", fact);
    }
    // A sender that is woken before the pass finds its cut held back, and is woken by the pass again.
    env.wake.services(&news.services, Some(env.store.head()));
    env.wake.rooms(news.rooms.into_iter().collect());
    env.wake.users(news.users.into_iter().collect());
    for receipt in news.receipts {
        env.wake.receipt(receipt);
    }
}
