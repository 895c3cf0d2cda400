//! Who wants to be woken for which services, users and rooms. Owners know this file, never the actors they wake.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, OnceLock, RwLock};

use actix::{Message, Recipient};
use ruma::{OwnedRoomId, OwnedUserId};
use schema::registration::ServiceId;
use serde::Serialize;

use crate::trace::Trace;

/// To a service's sender: there may be something for your service. Many are as good as one.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct WakeSender;

/// To `sync`: there may be something new for who waits on these users or in these rooms.
#[derive(Debug, Clone, Default, Serialize, Message)]
#[rtype(result = "()")]
pub struct WakeSync {
    /// Users with news of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<OwnedUserId>,
    /// Rooms with news for everybody in them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<OwnedRoomId>,
}

/// To `sync`: a user has read up to an event, and the receipt is on the disk. Services hear of it, if they listen.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct NewReceipt {
    /// In which room.
    pub room: OwnedRoomId,
    /// Who.
    pub user: OwnedUserId,
    /// `m.read` or `m.read.private`.
    pub kind: String,
    /// Up to which event.
    pub event: String,
    /// When, in milliseconds since the epoch.
    pub ts: i64,
    /// The thread, `main`, or empty for none.
    pub thread: String,
}

/// The register of who is to be woken.
#[derive(Default)]
pub struct Wake {
    senders: RwLock<BTreeMap<ServiceId, Recipient<WakeSender>>>,
    held: Mutex<BTreeSet<ServiceId>>,
    sync: OnceLock<Recipient<WakeSync>>,
    receipts: OnceLock<Recipient<NewReceipt>>,
    trace: OnceLock<Trace>,
}

impl Wake {
    pub(crate) fn observe(&self, trace: Trace) {
        let _ = self.trace.set(trace);
    }

    pub(crate) fn set_sync(&self, sync: Recipient<WakeSync>, receipts: Recipient<NewReceipt>) {
        let _ = self.sync.set(sync);
        let _ = self.receipts.set(receipts);
    }

    pub(crate) fn set_sender(&self, service: ServiceId, sender: Recipient<WakeSender>) {
        if let Ok(mut senders) = self.senders.write() {
            senders.insert(service, sender);
        }
    }

    pub(crate) fn remove_sender(&self, service: &ServiceId) {
        if let Ok(mut senders) = self.senders.write() {
            senders.remove(service);
        }
    }

    /// There may be something for these services. Called after the commit that put it there.
    pub fn services<'a>(&self, services: impl IntoIterator<Item = &'a ServiceId>) {
        let Ok(senders) = self.senders.read() else {
            return;
        };
        for service in services {
            if let Some(sender) = senders.get(service) {
                self.tell(sender, WakeSender);
            }
        }
    }

    /// There may be something new for these users' clients. Called after the commit that put it there.
    pub fn users(&self, users: Vec<OwnedUserId>) {
        self.sync(WakeSync {
            users,
            rooms: Vec::new(),
        });
    }

    /// There may be something new for everybody in these rooms. Called after the commit that put it there.
    pub fn rooms(&self, rooms: Vec<OwnedRoomId>) {
        self.sync(WakeSync {
            users: Vec::new(),
            rooms,
        });
    }

    /// A user has read. Called after the commit, besides waking who waits in the room.
    pub fn receipt(&self, receipt: NewReceipt) {
        if let Some(sync) = self.receipts.get() {
            if let Some(trace) = self.trace.get() {
                trace.told("wake", "sync", &receipt);
            }
            // What is fleeting may be lost when there is too much of everything.
            let _ = sync.try_send(receipt);
        }
    }

    fn sync(&self, news: WakeSync) {
        if let Some(sync) = self.sync.get()
            && !(news.users.is_empty() && news.rooms.is_empty())
        {
            // Unlike a sender's wake this one says who: none may be dropped, so the bound of the mailbox is not asked.
            if let Some(trace) = self.trace.get() {
                trace.told("wake", "sync", &news);
            }
            sync.do_send(news);
        }
    }

    /// A nudge: a full mailbox of nudges is simply awake.
    fn tell(&self, to: &Recipient<WakeSender>, nudge: WakeSender) {
        if let Some(trace) = self.trace.get() {
            trace.told("wake", "appservice_sender", &nudge);
        }
        let _ = to.try_send(nudge);
    }

    /// This service is about to look for work and must hear of the next finished device-list pass.
    pub(crate) fn hold(&self, service: &ServiceId) {
        if let Ok(mut held) = self.held.lock() {
            held.insert(service.clone());
        }
    }

    /// This service found nothing that a device-list pass holds back.
    pub(crate) fn release(&self, service: &ServiceId) {
        if let Ok(mut held) = self.held.lock() {
            held.remove(service);
        }
    }

    /// A device-list pass is committed: whoever it held back looks again.
    pub(crate) fn pass_finished(&self) {
        let held = self
            .held
            .lock()
            .map(|mut h| std::mem::take(&mut *h))
            .unwrap_or_default();
        self.services(&held);
    }
}
