//! What must hold in every state: the promises of the README.

use stateright::Property;

use crate::Protocol;
use crate::state::{Device, SERVICES, Sender, Service, Set, State};

/// The device's side: see [`COPIES`] for the services that only observe.
pub const ACKNOWLEDGED: &str = "a message stays in the inbox until its device, or the service that decides over it, has acknowledged it";
/// An observing service's acknowledgement is its own.
pub const COPIES: &str = "a copy stays until the service that observes has acknowledged it";
/// A retry, and what is sent after a crash, repeats the bytes.
pub const SAME_BYTES: &str = "the same id has the same bytes";
/// Ids only grow.
pub const NEW_IDS: &str = "no id is used again after its 2xx";
/// What a service is given, repeated transactions apart.
pub const IN_ORDER: &str = "each service is given the messages in order, each once";
/// A message dies with its device, unless a transaction carries it already.
pub const DEAD_STAY_DEAD: &str = "no later transaction carries a message to a deleted device";
/// To the service that decides over the device, or to the device.
pub const NOTHING_LOST: &str = "when no work is left, every message has reached its device";
/// To the service that only observes.
pub const NO_COPY_LOST: &str = "when no work is left, every copy has reached its service";
/// Neither messages nor what services are owed.
pub const NOTHING_KEPT: &str = "when no work is left, every table is empty";

/// All of them.
pub const NAMES: [&str; 9] = [
    ACKNOWLEDGED,
    COPIES,
    SAME_BYTES,
    NEW_IDS,
    IN_ORDER,
    DEAD_STAY_DEAD,
    NOTHING_LOST,
    NO_COPY_LOST,
    NOTHING_KEPT,
];

/// The promises, and a few situations that must occur, so that the promises are not kept for want of trouble.
pub(crate) fn all() -> Vec<Property<Protocol>> {
    vec![
        // ANCHOR: promises
        promise(ACKNOWLEDGED, |_, state| {
            let (inbox, confirmed) = (
                state.database.inbox,
                state.history[Service::Bridge as usize].confirmed,
            );
            let ghost = state.to(Device::Ghost).without(inbox).without(confirmed);
            let phone = state
                .to(Device::Phone)
                .without(inbox)
                .without(state.phone.received);
            ghost.or(phone).and(state.alive()).is_empty()
        }),
        promise(COPIES, |_, state| {
            let stored = state.database.inbox.or(state.database.for_services);
            let gone = state.alive().without(stored);
            gone.without(state.history[Service::Watcher as usize].confirmed)
                .is_empty()
        }),
        promise(SAME_BYTES, |_, state| {
            let both = state.database.of.iter().zip(&state.history);
            both.into_iter()
                .all(|(rows, history)| match (rows.frozen, history.sent) {
                    (Some(frozen), Some(sent)) => frozen.id != sent.id || frozen == sent,
                    _ => true,
                })
        }),
        promise(NEW_IDS, |_, state| {
            let both = state.database.of.iter().zip(&state.history);
            both.into_iter()
                .all(|(rows, history)| rows.frozen.is_none_or(|txn| txn.id > history.last_recorded))
        }),
        promise(IN_ORDER, |_, state| {
            state
                .far
                .iter()
                .all(|far| far.given.is_sorted_by(|a, b| a < b))
        }),
        promise(DEAD_STAY_DEAD, |_, state| {
            SERVICES.into_iter().all(|service| {
                let history = &state.history[service as usize];
                let frozen = state.database.of[service as usize].frozen;
                frozen.is_none_or(|txn| txn.items.and(history.dead).is_empty())
            })
        }),
        promise(NOTHING_LOST, |model, state| {
            let ghost = state
                .to(Device::Ghost)
                .without(given(state, Service::Bridge));
            let phone = state.to(Device::Phone).without(state.phone.received);
            ghost.or(phone).and(state.alive()).is_empty() || !model.work(state).is_empty()
        }),
        promise(NO_COPY_LOST, |model, state| {
            let lost = state.alive().without(given(state, Service::Watcher));
            lost.is_empty() || !model.work(state).is_empty()
        }),
        promise(NOTHING_KEPT, |model, state| {
            let database = &state.database;
            let rows = database
                .inbox
                .or(database.for_services)
                .or(state.owed_to_any());
            let is_empty = rows.is_empty() && database.of.iter().all(|rows| rows.frozen.is_none());
            is_empty || !model.work(state).is_empty()
        }),
        // ANCHOR_END: promises
        situation("a 2xx is lost", |_, state| {
            let mut both = state.process.senders.iter().zip(&state.far);
            both.any(|(sender, far)| matches!(sender, Sender::Ready(txn) if far.taken.has(txn.id)))
        }),
        situation(
            "the process ends between a 2xx and its record",
            |_, state| {
                let (senders, rows) = (state.process.senders, &state.database.of);
                SERVICES.into_iter().any(|service| {
                    let (sender, frozen) =
                        (senders[service as usize], rows[service as usize].frozen);
                    let taken = &state.far[service as usize].taken;
                    sender == Sender::Idle && frozen.is_some_and(|txn| taken.has(txn.id))
                })
            },
        ),
        situation("a message stays only for a copy", |_, state| {
            !state.database.for_services.is_empty()
        }),
        situation(
            "a transaction carries a message to a deleted device",
            |_, state| {
                state.database.of[Service::Bridge as usize]
                    .carried
                    .and(state.alive())
                    .is_empty()
                    && !state.database.of[Service::Bridge as usize]
                        .carried
                        .is_empty()
            },
        ),
        situation(
            "what is owed does not fit into one transaction",
            |_, state| {
                state.database.of.iter().any(|rows| {
                    rows.frozen
                        .is_some_and(|txn| txn.cut < 3 && rows.waiting.len() == 1)
                })
            },
        ),
        situation(
            "all three messages have arrived, one of them at the phone",
            |model, state| {
                let phone = state.phone.received.len();
                phone == 1
                    && given(state, Service::Watcher).len() == 3
                    && model.work(state).is_empty()
            },
        ),
    ]
}

fn promise(what: &'static str, holds: fn(&Protocol, &State) -> bool) -> Property<Protocol> {
    Property::always(what, holds)
}

fn situation(what: &'static str, occurs: fn(&Protocol, &State) -> bool) -> Property<Protocol> {
    Property::sometimes(what, occurs)
}

fn given(state: &State, service: Service) -> Set {
    state.far[service as usize].given.iter().copied().collect()
}
