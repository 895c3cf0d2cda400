//! Wakes the senders and the waiting `/sync` requests that a commit concerns. The owners of data use this file and do not know
//! the actors that it wakes.
//!
//! Next on the way of a to-device message: `actors/src/appservice_sender/mod.rs`.

mod proposals;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use actix::{Message, Recipient};
use ruma::{OwnedRoomId, OwnedUserId};
use schema::{OwedServices, Position, ServiceId, covering};
use serde::{Serialize, Serializer};

use crate::runtime::faults::{DeliveryFaults, DeliveryPoint};
use crate::runtime::requests;
use crate::runtime::trace::{self, Trace};

pub use proposals::{ProposalEphemeral, TimerSet};

/// To the sender of an appservice: there may be something to send. At most one of these messages is in the sender's mailbox, since
/// one serves for many.
#[derive(Debug, Default, Message)]
#[rtype(result = "()")]
pub struct WakeSender(Option<Arc<AtomicI64>>);

/// The value that says that no [`WakeSender`] is in the mailbox of a sender.
const NONE: i64 = -1;

impl WakeSender {
    /// The position up to which the owed items are committed: a sender that has looked that far need not look again. `None` for
    /// items without a position, such as typing. Items that are committed after this call need another message.
    pub(crate) fn up_to(mut self) -> Option<Position> {
        let up_to = self.0.take()?.swap(NONE, Ordering::AcqRel);
        (up_to != i64::MAX).then_some(Position(up_to))
    }
}

impl Drop for WakeSender {
    fn drop(&mut self) {
        if let Some(up_to) = &self.0 {
            up_to.store(NONE, Ordering::Release);
        }
    }
}

impl Serialize for WakeSender {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit_struct("WakeSender")
    }
}

/// To `sync`: there may be something new for the requests that wait on these users or in these rooms.
#[derive(Debug, Clone, Default, Serialize, Message)]
#[rtype(result = "()")]
pub struct WakeSync {
    /// Users with something new of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<OwnedUserId>,
    /// Rooms with something new for every member.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rooms: Vec<OwnedRoomId>,
}

/// To `sync`: a user has sent a read receipt, and it is committed. It is passed on to the appservices that want receipts.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct NewReceipt {
    /// The room.
    pub room: OwnedRoomId,
    /// The user.
    pub user: OwnedUserId,
    /// `m.read` or `m.read.private`.
    pub kind: String,
    /// The event up to which the user has read.
    pub event: String,
    /// The time, in milliseconds since the epoch.
    pub ts: i64,
    /// The thread, `main`, or empty for none.
    pub thread: String,
}

/// To `to_device_inbox`: an appservice has acknowledged a transaction, and the sender's write has recorded it. The sender sends it
/// after that write. At start it is sent again for each appservice, so a lost one only costs disk space until then. A repeated one
/// changes nothing.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct Acknowledged {
    /// The appservice.
    pub service: ServiceId,
    /// The id of the transaction; `None` at start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn: Option<i64>,
    /// The position of the first to-device message in the transaction.
    pub from: Position,
    /// The position up to which the transaction carried everything.
    pub up_to: Position,
}

impl Acknowledged {
    /// The cause under which this message and its consequences are recorded: the transaction.
    pub(crate) fn cause(&self) -> Arc<str> {
        let cause = |txn| format!("transaction {} {txn}", self.service);
        self.txn.map(cause).unwrap_or_default().into()
    }
}

/// The appservices whose items are held back by an open line of the device-list log: one that `device_lists` has not read.
#[derive(Default)]
struct HeldServices {
    /// The position up to which `device_lists` has read the device-list log, as far as this process knows.
    read: Position,
    /// For each appservice that is held back, the position of the line that it waits for.
    waiting: BTreeMap<ServiceId, Position>,
}

/// The address of a sender, and whether a [`WakeSender`] is in its mailbox.
struct Sender {
    to: Recipient<WakeSender>,
    /// The position in the [`WakeSender`] that is in the mailbox, or [`NONE`].
    waits: Arc<AtomicI64>,
}

/// The senders of all appservices, and the appservices that a commit owes something and that were not woken yet.
///
/// No delivery depends on a single wake-up: if a commit owes something to an appservice and the request behind it sends no
/// wake-up, the next commit of any request sends one.
#[derive(Default)]
pub(crate) struct Senders {
    all: RwLock<BTreeMap<ServiceId, Sender>>,
    not_woken: Mutex<OwedServices>,
    faults: OnceLock<DeliveryFaults>,
}

impl Senders {
    /// Wake the senders of these appservices. `do_send` ignores the mailbox's capacity; at most one of these messages is in it.
    fn hint<'a>(&self, services: impl IntoIterator<Item = (&'a ServiceId, Option<Position>)>) {
        let Ok(senders) = self.all.read() else {
            return;
        };
        for (service, up_to) in services {
            let Some(sender) = senders.get(service) else {
                self.not_woken().remove(service);
                continue;
            };
            if self
                .faults
                .get()
                .is_some_and(|f| f.lose(DeliveryPoint::SenderHint))
            {
                let mut not_woken = self.not_woken();
                let known = not_woken.entry(service.clone()).or_insert(up_to);
                *known = covering(*known, up_to);
                continue;
            }
            self.unmark(service, up_to);
            let up_to = up_to.map_or(i64::MAX, |position| position.0);
            if sender.waits.fetch_max(up_to, Ordering::AcqRel) == NONE {
                let waits = Some(Arc::clone(&sender.waits));
                sender.to.do_send(WakeSender(waits));
            }
        }
    }

    /// Called after a commit that owes something to these appservices. The storage calls it (`Store::on_commit`, set in `start.rs`)
    /// with what `Tx::owes` collected. Wake those that an earlier commit owed something and that were not woken since. The request
    /// behind the earlier commit may be about to wake them too. A sender that has looked up to that position by then does not look
    /// again.
    pub(crate) fn owed_is_committed(&self, owed: &OwedServices) {
        let late = std::mem::replace(&mut *self.not_woken(), owed.clone());
        self.hint(late.iter().map(|(service, up_to)| (service, *up_to)));
    }

    /// Records that an appservice is woken for all items up to this position. If a later commit owes it something, it still counts
    /// as not woken.
    fn unmark(&self, service: &ServiceId, up_to: Option<Position>) {
        let mut not_woken = self.not_woken();
        let owed = not_woken.get(service);
        if owed.is_some_and(|owed| covering(*owed, up_to) == up_to) {
            not_woken.remove(service);
        }
    }

    fn not_woken(&self) -> std::sync::MutexGuard<'_, OwedServices> {
        self.not_woken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes senders and `sync`.
#[derive(Default)]
pub struct Wake {
    senders: Arc<Senders>,
    held: Mutex<HeldServices>,
    sync: OnceLock<Recipient<WakeSync>>,
    receipts: OnceLock<Recipient<NewReceipt>>,
    inbox: OnceLock<Recipient<Acknowledged>>,
    pub(crate) for_proposals: proposals::ForProposals,
    trace: OnceLock<Trace>,
}

impl Wake {
    pub(crate) fn observe(&self, trace: Trace, faults: DeliveryFaults) {
        let _ = self.trace.set(trace);
        let _ = self.senders.faults.set(faults);
    }

    /// The senders, which the storage notifies after each commit.
    pub(crate) fn senders(&self) -> Arc<Senders> {
        Arc::clone(&self.senders)
    }

    pub(crate) fn set_sync(&self, sync: Recipient<WakeSync>, receipts: Recipient<NewReceipt>) {
        let _ = self.sync.set(sync);
        let _ = self.receipts.set(receipts);
    }

    pub(crate) fn set_inbox(&self, inbox: Recipient<Acknowledged>) {
        let _ = self.inbox.set(inbox);
    }

    pub(crate) fn set_sender(&self, service: ServiceId, sender: Recipient<WakeSender>) {
        if let Ok(mut senders) = self.senders.all.write() {
            let waits = Arc::new(AtomicI64::new(NONE));
            senders.insert(service, Sender { to: sender, waits });
        }
    }

    pub(crate) fn remove_sender(&self, service: &ServiceId) {
        if let Ok(mut senders) = self.senders.all.write() {
            senders.remove(service);
        }
    }

    /// Wake the senders of these appservices: there may be something to send up to a position, or something without a position.
    /// Call it after the commit.
    pub fn services<'a>(
        &self,
        services: impl IntoIterator<Item = &'a ServiceId>,
        up_to: Option<Position>,
    ) {
        self.wake("wake", services, up_to);
    }

    fn wake<'a>(
        &self,
        from: &'static str,
        services: impl IntoIterator<Item = &'a ServiceId>,
        up_to: Option<Position>,
    ) {
        let services: BTreeSet<&ServiceId> = services.into_iter().collect();
        if let Some(trace) = self.trace.get()
            && trace.is_on()
            && let Ok(senders) = self.senders.all.read()
        {
            for service in services.iter().filter(|id| senders.contains_key(**id)) {
                let body = serde_json::json!({"service": service});
                trace.record_message_as(from, "appservice_sender", "WakeSender", &body);
            }
        }
        requests::log_owed(&services, up_to);
        let services = services.into_iter().map(|service| (service, up_to));
        self.senders.hint(services);
    }

    /// Wake the `/sync` requests of these users. Call it after the commit.
    pub fn users(&self, users: Vec<OwnedUserId>) {
        self.sync(WakeSync {
            users,
            rooms: Vec::new(),
        });
    }

    /// Wake the `/sync` requests of everyone in these rooms. Call it after the commit.
    pub fn rooms(&self, rooms: Vec<OwnedRoomId>) {
        self.sync(WakeSync {
            users: Vec::new(),
            rooms,
        });
    }

    /// Pass on a read receipt. Call it after the commit, in addition to waking the room.
    pub fn receipt(&self, receipt: NewReceipt) {
        if let Some(sync) = self.receipts.get() {
            if let Some(trace) = self.trace.get() {
                trace.record_message("wake", "sync", &receipt);
            }
            // A receipt may be dropped when the mailbox is full.
            let _ = sync.try_send(receipt);
        }
    }

    /// Notify the inbox that an appservice has acknowledged a transaction with to-device messages, after the write that recorded
    /// it.
    pub(crate) fn acknowledged(&self, fact: Acknowledged) {
        if let Some(inbox) = self.inbox.get() {
            if let Some(trace) = self.trace.get() {
                trace::within(fact.cause(), || {
                    trace.record_message("appservice_sender", "to_device_inbox", &fact);
                });
            }
            inbox.do_send(fact);
        }
    }

    fn sync(&self, wake: WakeSync) {
        if let Some(sync) = self.sync.get()
            && !(wake.users.is_empty() && wake.rooms.is_empty())
        {
            // Unlike a [`WakeSender`], each of these messages has its own content. `do_send` ignores the mailbox's capacity, so
            // that none is dropped.
            if let Some(trace) = self.trace.get() {
                trace.record_message("wake", "sync", &wake);
            }
            sync.do_send(wake);
        }
    }

    /// Hold an appservice back until `device_lists` has read this line of the device-list log, then wake the appservice's sender.
    /// If the line has been read already, wake the sender now.
    pub(crate) fn hold(&self, service: &ServiceId, line: Position) {
        let Ok(mut held) = self.held.lock() else {
            return;
        };
        if line > held.read {
            held.waiting.insert(service.clone(), line);
            return;
        }
        drop(held);
        self.wake("held back", [service], Some(line));
    }

    /// Whether this line of the device-list log is open: `device_lists` may not have read it yet. When it has, the appservices
    /// that are held back until then are woken.
    pub(crate) fn is_open(&self, line: Position) -> bool {
        self.held.lock().is_ok_and(|held| line > held.read)
    }

    /// Called when the device-list pass has read the log up to this position and its results are committed. Wakes the appservices
    /// that were held back until then, and no others.
    pub(crate) fn pass_has_read(&self, up_to: Position) {
        let Ok(mut held) = self.held.lock() else {
            return;
        };
        held.read = held.read.max(up_to);
        let waiting = std::mem::take(&mut held.waiting);
        let (due, waiting): (BTreeMap<_, _>, _) =
            waiting.into_iter().partition(|(_, line)| *line <= up_to);
        held.waiting = waiting;
        drop(held);
        self.wake("held back", due.keys(), Some(up_to));
    }
}

#[cfg(test)]
mod tests;
