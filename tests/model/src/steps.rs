//! How the state changes: what clients do, the work of the server and the services, and failures.

use std::fmt;

use crate::state::{DEVICES, Device, Process, SERVICES, Sender, Service, Set, State, Transaction};
use crate::{Fault, LIMIT, MESSAGES, Protocol};

// ANCHOR: actions
/// One step. Each write of the server is one step, because a crash never keeps half of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client sends the next message to a device. (`to_device_inbox/deposit.rs`)
    Send(Device),
    /// A device is deleted. (`forget_device` in `schema/src/inbox.rs`)
    Delete(Device),
    /// The phone sends its token, which acknowledges what it has received, and gets what waits. The answer can be lost.
    /// (`Acknowledge` in `to_device_inbox/acknowledge.rs`)
    Sync {
        /// Whether the answer arrives.
        answered: bool,
    },
    /// A sender freezes a transaction, or finds the one that was frozen before a crash. (`appservice_sender/freeze.rs`)
    Look(Service),
    /// A sender makes a request. (`appservice_sender/send.rs`)
    Put(Service),
    /// A request arrives, for the first time or again.
    Take(Service, Transaction),
    /// A request is lost for good. If its sender waits for the answer, the attempt has failed.
    Lose(Service, Transaction),
    /// The 2xx arrives. (`appservice_sender/send.rs`)
    Answer(Service),
    /// The connection ends without an answer: the answer is lost, or the request arrives later. (`wait` in `appservice_sender/send.rs`)
    Fail(Service),
    /// A sender records the 2xx, and tells the inbox. (`appservice_sender/acknowledge.rs`)
    Record(Service),
    /// The inbox deletes what was acknowledged. (`acknowledge_service` in `schema/src/inbox.rs`)
    Empty(Service),
    /// The process ends, wherever it is, and starts again. (`started` in `to_device_inbox/mod.rs` and `appservice_sender/mod.rs`)
    Crash,
}
// ANCHOR_END: actions

impl Action {
    /// Whether the step is work of the server, a service or the phone: what goes on when no client acts and nothing fails.
    pub fn is_work(self) -> bool {
        match self {
            Action::Sync { answered } => answered,
            Action::Look(_)
            | Action::Put(_)
            | Action::Take(..)
            | Action::Answer(_)
            | Action::Record(_)
            | Action::Empty(_) => true,
            Action::Send(_)
            | Action::Delete(_)
            | Action::Lose(..)
            | Action::Fail(_)
            | Action::Crash => false,
        }
    }
}

impl Protocol {
    /// The work that can be done now.
    pub(crate) fn work(&self, state: &State) -> Vec<Action> {
        let mut work = Vec::new();
        if !state.database.inbox.and(state.to(Device::Phone)).is_empty()
            && !state.is_deleted(Device::Phone)
        {
            work.push(Action::Sync { answered: true });
        }
        for service in SERVICES {
            let far = &state.far[service as usize];
            let rows = &state.database.of[service as usize];
            match state.process.senders[service as usize] {
                Sender::Idle if rows.frozen.is_some() || !rows.waiting.is_empty() => {
                    work.push(Action::Look(service));
                }
                Sender::Idle => {}
                Sender::Ready(_) => work.push(Action::Put(service)),
                Sender::Sending(txn) if far.taken.has(txn.id) => {
                    work.push(Action::Answer(service));
                }
                Sender::Sending(_) => {}
                Sender::Answered(_) => work.push(Action::Record(service)),
            }
            work.extend(far.network.iter().map(|txn| Action::Take(service, *txn)));
            if state.process.acknowledged[service as usize].is_some() {
                work.push(Action::Empty(service));
            }
        }
        work
    }

    /// What clients can do now, and what can fail.
    pub(crate) fn environment(&self, state: &State) -> Vec<Action> {
        let mut actions = vec![Action::Crash];
        let alive = DEVICES
            .into_iter()
            .filter(|device| !state.is_deleted(*device));
        for device in alive {
            if state.head() < MESSAGES {
                actions.push(Action::Send(device));
            }
            actions.push(Action::Delete(device));
            if device == Device::Phone {
                actions.push(Action::Sync { answered: false });
            }
        }
        for service in SERVICES {
            let far = &state.far[service as usize];
            if matches!(state.process.senders[service as usize], Sender::Sending(_)) {
                actions.push(Action::Fail(service));
            }
            actions.extend(far.network.iter().map(|txn| Action::Lose(service, *txn)));
        }
        actions
    }

    /// The state after a step.
    pub(crate) fn after(&self, before: &State, action: Action) -> State {
        let mut state = before.clone();
        match action {
            Action::Send(device) => self.send(&mut state, device),
            Action::Delete(device) => self.delete(&mut state, device),
            Action::Sync { answered } => sync(&mut state, answered),
            Action::Look(service) => self.look(&mut state, service),
            Action::Put(service) => self.put(&mut state, service),
            Action::Take(service, txn) => self.take(&mut state, service, txn),
            Action::Lose(service, txn) => {
                state.far[service as usize].network.remove(&txn);
                let sender = &mut state.process.senders[service as usize];
                if *sender == Sender::Sending(txn) {
                    *sender = Sender::Ready(txn);
                }
            }
            Action::Answer(service) => {
                let sender = &mut state.process.senders[service as usize];
                if let Sender::Sending(txn) = *sender {
                    *sender = Sender::Answered(txn);
                }
            }
            Action::Fail(service) => {
                let sender = &mut state.process.senders[service as usize];
                if let Sender::Sending(txn) = *sender {
                    *sender = Sender::Ready(txn);
                }
            }
            Action::Record(service) => self.record(&mut state, service),
            Action::Empty(service) => self.empty(&mut state, service),
            Action::Crash => self.crash(&mut state),
        }
        state
    }

    // ANCHOR: send
    /// One write: the inbox row, and what each service that gets a copy is owed.
    fn send(&self, state: &mut State, device: Device) {
        state.messages.push(device);
        let message = Set::one(state.head());
        state.database.inbox = state.database.inbox.or(message);
        for service in SERVICES
            .into_iter()
            .filter(|service| device.concerns(*service))
        {
            let rows = &mut state.database.of[service as usize];
            rows.waiting = rows.waiting.or(message);
        }
    }
    // ANCHOR_END: send

    /// One write: a deleted device takes its messages along, but for what a frozen transaction carries.
    fn delete(&self, state: &mut State, device: Device) {
        let messages = state.to(device);
        state.database.deleted[device as usize] = true;
        for service in SERVICES {
            let (rows, history) = (
                &mut state.database.of[service as usize],
                &mut state.history[service as usize],
            );
            let carried = history.confirmed.or(rows.carried);
            history.dead = history.dead.or(messages.without(carried));
            if !self.has(Fault::DeviceLeavesRows) {
                rows.waiting = rows.waiting.without(messages);
            }
        }
        if !self.has(Fault::DeviceLeavesRows) {
            let database = &mut state.database;
            database.inbox = database.inbox.without(messages);
            database.for_services = database.for_services.without(messages);
        }
    }

    // ANCHOR: look
    /// One write: the frozen transaction, or else the next one, frozen now: the oldest messages that wait.
    fn look(&self, state: &mut State, service: Service) {
        let (head, stored) = (
            state.head(),
            state.database.inbox.or(state.database.for_services),
        );
        let rows = &mut state.database.of[service as usize];
        let mut wanted = rows.waiting;
        if let Some(txn) = rows.frozen {
            if !self.has(Fault::BodyNotStored) {
                state.process.senders[service as usize] = Sender::Ready(txn);
                return;
            }
            wanted = wanted.or(rows.carried);
        }
        // What is not stored any more cannot be sent, and is set aside.
        rows.waiting = rows.waiting.and(stored);
        wanted = wanted.and(stored);
        if wanted.is_empty() {
            (rows.carried, rows.frozen) = (Set::NONE, None);
            return;
        }
        let items: Set = if self.has(Fault::NewestFirst) {
            wanted.iter().rev().take(LIMIT).collect()
        } else {
            wanted.iter().take(LIMIT).collect()
        };
        let left_over = wanted.without(items).iter().next();
        let cut = left_over.map_or(head, |next| next - 1);
        let id = rows.frozen.map_or(rows.last_id + 1, |txn| txn.id);
        let txn = Transaction { id, items, cut };
        rows.waiting = wanted.without(items);
        rows.carried = items;
        rows.last_id = id;
        rows.frozen = Some(txn);
        state.process.senders[service as usize] = Sender::Ready(txn);
    }
    // ANCHOR_END: look

    /// The request goes onto the network. A request from before a failure may still be there; it has the same bytes.
    fn put(&self, state: &mut State, service: Service) {
        let Sender::Ready(txn) = state.process.senders[service as usize] else {
            return;
        };
        let far = &mut state.far[service as usize];
        if !far.taken.has(txn.id) || self.has(Fault::IdsNotRecognized) {
            far.network.insert(txn);
        }
        state.history[service as usize].sent = Some(txn);
        state.process.senders[service as usize] = Sender::Sending(txn);
        if self.has(Fault::NoAcknowledgement) {
            self.forget(state, service, txn);
        }
    }

    /// The service takes a request, unless it recognizes the id.
    fn take(&self, state: &mut State, service: Service, txn: Transaction) {
        let far = &mut state.far[service as usize];
        far.network.remove(&txn);
        if !far.taken.has(txn.id) || self.has(Fault::IdsNotRecognized) {
            far.given.extend(txn.items.iter());
        }
        far.taken = far.taken.or(Set::one(txn.id));
    }

    // ANCHOR: record
    /// The 2xx is recorded.
    fn record(&self, state: &mut State, service: Service) {
        let Sender::Answered(txn) = state.process.senders[service as usize] else {
            return;
        };
        let history = &mut state.history[service as usize];
        history.last_recorded = history.last_recorded.max(txn.id);
        history.confirmed = history.confirmed.or(txn.items);
        history.sent = None;
        self.forget(state, service, txn);
    }

    /// One write: forget the transaction and what it carried, and store how far the service has acknowledged. Then the inbox is sent
    /// `Acknowledged`. (The server freezes the next transaction in the same write if it can; here that is a step of its own, so that
    /// a crash can come between the two.)
    fn forget(&self, state: &mut State, service: Service, txn: Transaction) {
        let rows = &mut state.database.of[service as usize];
        rows.carried = Set::NONE;
        rows.frozen = None;
        rows.acknowledged = txn.cut;
        state.process.senders[service as usize] = Sender::Idle;
        state.process.acknowledged[service as usize] = Some(txn.cut);
    }
    // ANCHOR_END: record

    // ANCHOR: empty
    /// One write: the inbox deletes the messages over whose devices the service decides, and those that stayed only for the service.
    /// A message that another service is owed stays, with a mark.
    fn empty(&self, state: &mut State, service: Service) {
        let Some(up_to) = state.process.acknowledged[service as usize].take() else {
            return;
        };
        let between = Set::between(1, up_to);
        let (own, owed) = (state.owed(service), state.owed_to_any());
        let decided = match self.has(Fault::CopyAcknowledges) {
            true => between.and(state.database.inbox),
            false => between
                .and(state.database.inbox)
                .and(state.decided_by(service)),
        };
        let kept = match self.has(Fault::OwedRowsDeleted) {
            true => Set::NONE,
            false => owed,
        };
        let database = &mut state.database;
        let gone = decided.without(kept);
        let marked = decided.without(gone).without(own);
        database.inbox = database.inbox.without(gone).without(marked);
        let stayed = between.and(database.for_services.or(marked)).without(owed);
        database.for_services = database.for_services.or(marked).without(stayed);
    }
    // ANCHOR_END: empty

    // ANCHOR: crash
    /// The process starts again: senders look, and the inbox repeats what it may not have done.
    fn crash(&self, state: &mut State) {
        state.process = Process::default();
        for service in SERVICES {
            let rows = &mut state.database.of[service as usize];
            if self.has(Fault::IdsInMemory) {
                rows.last_id = 0;
            }
            if rows.acknowledged > 0 && !self.has(Fault::NotRepeatedAtStart) {
                state.process.acknowledged[service as usize] = Some(rows.acknowledged);
            }
        }
    }
    // ANCHOR_END: crash
}

/// The token acknowledges what came up to it; a row that a service is owed stays, with a mark. Then the answer carries the rest.
fn sync(state: &mut State, answered: bool) {
    let (own, owed, head) = (state.to(Device::Phone), state.owed_to_any(), state.head());
    let (database, phone) = (&mut state.database, &mut state.phone);
    let seen = database.inbox.and(own).and(Set::between(1, phone.since));
    database.inbox = database.inbox.without(seen);
    database.for_services = database.for_services.or(seen.and(owed));
    if answered {
        phone.received = phone.received.or(database.inbox.and(own));
        phone.since = head;
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Service::Bridge => "bridge",
            Service::Watcher => "watcher",
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::Ghost => "the ghost's device",
            Device::Phone => "the phone",
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Send(device) => write!(f, "a client sends a message to {device}"),
            Action::Delete(device) => write!(f, "{device} is deleted"),
            Action::Sync { answered: true } => f.write_str("the phone syncs"),
            Action::Sync { answered: false } => f.write_str("the phone syncs, the answer is lost"),
            Action::Look(service) => write!(f, "the sender of {service} looks"),
            Action::Put(service) => write!(f, "the sender of {service} makes its request"),
            Action::Take(service, txn) => {
                write!(
                    f,
                    "{service} receives transaction {} with {}",
                    txn.id, txn.items
                )
            }
            Action::Lose(service, txn) => {
                write!(
                    f,
                    "the request to {service} with transaction {} is lost",
                    txn.id
                )
            }
            Action::Answer(service) => write!(f, "the 2xx of {service} arrives"),
            Action::Fail(service) => write!(f, "the request to {service} ends without an answer"),
            Action::Record(service) => write!(f, "the 2xx of {service} is recorded"),
            Action::Empty(service) => write!(f, "the inbox deletes what {service} acknowledged"),
            Action::Crash => f.write_str("the process ends, and starts again"),
        }
    }
}
