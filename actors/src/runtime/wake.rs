//! Which senders and which waiting clients a commit concerns. Owners know this file, never the actors that they wake.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use actix::{Message, Recipient};
use ruma::{OwnedRoomId, OwnedUserId};
use schema::Position;
use schema::ServiceId;
use serde::{Serialize, Serializer};

use crate::runtime::faults::{Faults, Point};
use crate::runtime::trace::{self, Trace};

/// To a service's sender: there may be something for the service. Many are as good as one, and one at most is in its mailbox.
#[derive(Debug, Default, Message)]
#[rtype(result = "()")]
pub struct WakeSender(Option<Arc<AtomicI64>>);

/// In a [`WakeSender`]: no hint is in the mailbox.
const NONE: i64 = -1;

impl WakeSender {
    /// What the service is owed up to here is committed: a sender that has looked that far need not look again. None for what has
    /// no position, such as typing. What is committed after this is called needs another hint.
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

/// To `to_device_inbox`: a service has acknowledged a transaction, and the sender's write has recorded it. Said by the sender, and for each service
/// at start from what was recorded: a message that was lost costs room on the disk until then, and nothing else. A repeated one changes
/// nothing.
#[derive(Debug, Clone, Serialize, Message)]
#[rtype(result = "()")]
pub struct Acknowledged {
    /// The service.
    pub service: ServiceId,
    /// The transaction's id; none at start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn: Option<i64>,
    /// The position of the first to-device message in it.
    pub from: Position,
    /// The position up to which it carried everything.
    pub up_to: Position,
}

impl Acknowledged {
    /// What this, and what follows from it, is recorded under: the transaction.
    pub(crate) fn cause(&self) -> Arc<str> {
        let cause = |txn| format!("transaction {} {txn}", self.service);
        self.txn.map(cause).unwrap_or_default().into()
    }
}

/// The services that an open line of the device-list log holds back.
#[derive(Default)]
struct Held {
    /// How far the pass has read, as far as this process knows.
    read: Position,
    /// Which line each waits for.
    waiting: BTreeMap<ServiceId, Position>,
}

/// A sender, and whether a hint is in its mailbox.
struct Sender {
    to: Recipient<WakeSender>,
    /// Up to where the hint in its mailbox speaks, if one is there.
    waits: Arc<AtomicI64>,
}

/// The senders of the services, and the services whose hint is missing.
///
/// No delivery rests on one hint: a service that is owed something by a commit, and is given no hint for it by the request that made the
/// commit, is given one after the next commit, whatever that is about.
#[derive(Default)]
pub(crate) struct Senders {
    all: RwLock<BTreeMap<ServiceId, Sender>>,
    unhinted: Mutex<BTreeSet<ServiceId>>,
    faults: OnceLock<Faults>,
}

impl Senders {
    /// Give each of these services' senders a hint. The mailbox's bound is not asked: one hint at most is in it.
    fn hint(&self, services: &BTreeSet<&ServiceId>, up_to: Option<Position>) {
        let up_to = up_to.map_or(i64::MAX, |position| position.0);
        let Ok(senders) = self.all.read() else {
            return;
        };
        for service in services {
            let Some(sender) = senders.get(*service) else {
                self.unhinted().remove(*service);
                continue;
            };
            if self.faults.get().is_some_and(|f| f.lose(Point::SenderHint)) {
                self.unhinted().insert((*service).clone());
                continue;
            }
            self.unhinted().remove(*service);
            if sender.waits.fetch_max(up_to, Ordering::AcqRel) == NONE {
                let waits = Some(Arc::clone(&sender.waits));
                sender.to.do_send(WakeSender(waits));
            }
        }
    }

    /// A commit owes these services something. Those that an earlier commit owed something, and that were given no hint since, are
    /// given one now.
    pub(crate) fn owed_is_committed(&self, owed: &BTreeSet<ServiceId>) {
        let late = std::mem::replace(&mut *self.unhinted(), owed.clone());
        if !late.is_empty() {
            self.hint(&late.iter().collect(), None);
        }
    }

    fn unhinted(&self) -> std::sync::MutexGuard<'_, BTreeSet<ServiceId>> {
        self.unhinted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The register of who is to be woken.
#[derive(Default)]
pub struct Wake {
    senders: Arc<Senders>,
    held: Mutex<Held>,
    sync: OnceLock<Recipient<WakeSync>>,
    receipts: OnceLock<Recipient<NewReceipt>>,
    inbox: OnceLock<Recipient<Acknowledged>>,
    trace: OnceLock<Trace>,
}

impl Wake {
    pub(crate) fn observe(&self, trace: Trace, faults: Faults) {
        let _ = self.trace.set(trace);
        let _ = self.senders.faults.set(faults);
    }

    /// The senders, for the storage to say what is committed.
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

    /// There is something for these services, or there may be, up to a position; none for what has no position. Called after the commit
    /// that put it there.
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
                trace.told_as(from, "appservice_sender", "WakeSender", &body);
            }
        }
        self.senders.hint(&services, up_to);
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

    /// A service has acknowledged a transaction with to-device messages, and that is on the disk.
    pub(crate) fn acknowledged(&self, fact: Acknowledged) {
        if let Some(inbox) = self.inbox.get() {
            if let Some(trace) = self.trace.get() {
                trace::within(fact.cause(), || {
                    trace.told("appservice_sender", "to_device_inbox", &fact);
                });
            }
            inbox.do_send(fact);
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

    /// This service is held back by a line of the device-list log: wake it when the pass has read that line. The pass may have
    /// read it since the service looked; then it is woken now.
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

    /// The device-list pass has read up to here, and what follows from it is committed: the services that waited for it look again,
    /// and no others.
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
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use actix::{Actor, Context, Handler};

    use super::*;

    struct Counter(Arc<AtomicUsize>);

    impl Actor for Counter {
        type Context = Context<Self>;
    }

    impl Handler<WakeSender> for Counter {
        type Result = ();

        fn handle(&mut self, _: WakeSender, _: &mut Context<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[actix::test]
    async fn a_hint_that_is_lost_is_given_after_the_next_commit() {
        let (wake, irc, woken) = (Wake::default(), ServiceId::from("irc"), Arc::default());
        let sender = Counter(Arc::clone(&woken)).start();
        wake.set_sender(irc.clone(), sender.clone().recipient());
        let woken = async || {
            let _ = sender.send(WakeSender::default()).await;
            woken.swap(0, Ordering::Relaxed) - 1
        };
        let (owed, senders) = (BTreeSet::from([irc.clone()]), wake.senders());
        senders.owed_is_committed(&owed);
        assert_eq!(woken().await, 0, "the request that owes it gives the hint");
        senders.owed_is_committed(&BTreeSet::new());
        assert_eq!(woken().await, 1, "it did not");
        senders.owed_is_committed(&owed);
        wake.services([&irc], None);
        senders.owed_is_committed(&BTreeSet::new());
        assert_eq!(woken().await, 1, "it did");
    }

    #[actix::test]
    async fn one_hint_at_most_is_in_a_mailbox() {
        let (wake, irc, woken) = (Wake::default(), ServiceId::from("irc"), Arc::default());
        let sender = Counter(Arc::clone(&woken)).start();
        wake.set_sender(irc.clone(), sender.clone().recipient());
        for _ in 0..100 {
            wake.services([&irc], None);
        }
        let _ = sender.send(WakeSender::default()).await;
        assert_eq!(woken.swap(0, Ordering::Relaxed), 2);
        wake.services([&irc], None);
        let _ = sender.send(WakeSender::default()).await;
        assert_eq!(woken.load(Ordering::Relaxed), 2, "the first was taken");
    }

    #[actix::test]
    async fn a_held_service_is_woken_once_and_by_the_line_that_holds_it() {
        let (wake, irc, woken) = (Wake::default(), ServiceId::from("irc"), Arc::default());
        let sender = Counter(Arc::clone(&woken)).start();
        wake.set_sender(irc.clone(), sender.clone().recipient());
        let woken = async || {
            // Behind all that was sent before.
            let _ = sender.send(WakeSender::default()).await;
            woken.swap(0, Ordering::Relaxed) - 1
        };
        wake.pass_has_read(Position(4));
        wake.hold(&irc, Position(9));
        wake.pass_has_read(Position(5));
        wake.pass_has_read(Position(8));
        assert_eq!(woken().await, 0, "other lines are no business of its");
        wake.pass_has_read(Position(9));
        wake.pass_has_read(Position(12));
        assert_eq!(woken().await, 1);
        wake.hold(&irc, Position(11));
        assert_eq!(woken().await, 1, "the pass was faster than the sender");
    }
}
