//! `/sync`: waiting requests, typing, presence, and the answers.
//!
//! *Owns* no table. In memory it holds the waiting requests, typing, presence, and the ephemeral events not yet sent to
//! application services.
//!
//! *Asks* no actor. The future that answers `/sync` asks `to_device_inbox` to delete what its `since` acknowledges.
//!
//! *Tells* [`Wake`](crate::runtime::wake::Wake): requests that wait in a room where typing changes, and the senders of appservices
//! that receive ephemeral events.
//!
//! *Promises* that a waiting request is woken by every commit that concerns it after what it has seen; that a wake costs in
//! proportion to the requests it concerns; that no change falls between two successive answers.
//!
//! *Spec* [Syncing](https://spec.matrix.org/v1.19/client-server-api/#syncing),
//! [Typing](https://spec.matrix.org/v1.19/client-server-api/#typing-notifications),
//! [Presence](https://spec.matrix.org/v1.19/client-server-api/#presence),
//! [ephemeral data for appservices](https://spec.matrix.org/v1.19/application-service-api/#pushing-ephemeral-data).

mod answer;
mod ephemeral;
mod messages;
mod of_proposals;
mod online;
mod pending;
mod presence;
pub mod queries;
mod receipts;
pub mod rules;
#[cfg(test)]
mod tests;
mod typing;
mod volatile;
mod waiters;
mod waiting;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{Actor, Context, Handler};
use schema::ServiceId;

use crate::runtime::trace::Busy;
use crate::runtime::watchdog::Watchdog;
use crate::services::CarriesInterests;
use crate::{Env, Result};
use pending::PendingEphemeral;
use waiters::Waiters;

pub use answer::{SyncRequest, answer};
pub use messages::*;
pub use queries::ask::StateAt;
pub use queries::devices::SyncDeviceLists;
pub use rules::filter::Filter;
pub use rules::token::Token;
pub use volatile::{Presence, VolatileState};

/// The actor that holds waiting requests, typing and presence.
pub struct Sync {
    env: Env,
    /// Shared with each [`Wait`], which removes itself when it is dropped.
    waiters: Arc<Mutex<Waiters<Busy>>>,
    pending: PendingEphemeral,
    volatile: Arc<VolatileState>,
    watchdog: Watchdog,
}

impl Sync {
    /// Without waiting requests.
    pub fn new(env: Env, volatile: Arc<VolatileState>) -> Sync {
        Sync {
            env,
            waiters: Arc::default(),
            pending: PendingEphemeral::default(),
            volatile,
            watchdog: Watchdog::default(),
        }
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters<Busy>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of these appservices whose registration asks for ephemeral events.
    fn listening(&self, services: BTreeSet<ServiceId>) -> BTreeSet<ServiceId> {
        let interests = self.env.store.interests();
        let listens = |id: &ServiceId| {
            interests.service(id).is_some_and(|s| {
                s.is_reachable()
                    && (s.registration.receive_ephemeral || s.registration.push_ephemeral)
            })
        };
        services.into_iter().filter(listens).collect()
    }
}

impl Actor for Sync {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.watchdog.watch(ctx, &self.env, "sync");
        ctx.set_mailbox_capacity(4096);
    }
}

impl Handler<Observe> for Sync {
    type Result = Result<MemorySizes>;

    fn handle(&mut self, _: Observe, _: &mut Context<Self>) -> Self::Result {
        Ok(MemorySizes {
            waiting: self.waiters().len(),
            pending: self.pending.sizes(),
        })
    }
}
