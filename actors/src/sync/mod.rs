//! Answers to `/sync`: who waits for what, and what is never written down.
//!
//! *Owns* no table: the waiters, typing and presence, and what services have still to be told of these and of receipts, all in
//! memory.
//!
//! *Asks* nobody. A request to `/sync` asks `to_device_inbox` to delete what its `since` acknowledges.
//!
//! *Tells* [`Wake`](crate::runtime::wake::Wake): who waits in a room where somebody types, and the senders of services that want to know.
//!
//! *Promises* that whoever waits is woken by whatever is committed after what it has seen; that a wake costs no more than those
//! it concerns; that two answers in a row leave nothing out between them.
//!
//! *Spec* [Syncing](https://spec.matrix.org/v1.19/client-server-api/#syncing),
//! [Typing](https://spec.matrix.org/v1.19/client-server-api/#typing-notifications),
//! [Presence](https://spec.matrix.org/v1.19/client-server-api/#presence),
//! [ephemeral data for services](https://spec.matrix.org/v1.19/application-service-api/#pushing-ephemeral-data).

mod answer;
mod ephemeral;
mod fleeting;
mod messages;
mod online;
mod pending;
mod presence;
pub mod queries;
mod receipts;
pub mod rules;
#[cfg(test)]
mod tests;
mod typing;
mod waiters;
mod waiting;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actix::{Actor, Context, Handler};
use schema::ServiceId;

use crate::runtime::life::Life;
use crate::runtime::trace::Busy;
use crate::services::CarriesInterests;
use crate::{Env, Result};
use pending::Pending;
use waiters::Waiters;

pub use answer::{Question, answer};
pub use fleeting::{Fleeting, Presence};
pub use messages::*;
pub use queries::ask::StateAt;
pub use queries::devices::DeviceLists;
pub use rules::filter::Filter;
pub use rules::token::Token;

/// The actor.
pub struct Sync {
    env: Env,
    /// Shared with the waits themselves, which take themselves out when they are given up.
    waiters: Arc<Mutex<Waiters<Busy>>>,
    pending: Pending,
    fleeting: Arc<Fleeting>,
    life: Life,
}

impl Sync {
    /// Nobody waits yet.
    #[must_use]
    pub fn new(env: Env, fleeting: Arc<Fleeting>) -> Sync {
        Sync {
            env,
            waiters: Arc::default(),
            pending: Pending::default(),
            fleeting,
            life: Life::default(),
        }
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters<Busy>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of these services, those that are sent what is fleeting.
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
        self.life.watch(ctx, &self.env, "sync");
        ctx.set_mailbox_capacity(4096);
    }
}

impl Handler<Observe> for Sync {
    type Result = Result<View>;

    fn handle(&mut self, _: Observe, _: &mut Context<Self>) -> Self::Result {
        Ok(View {
            waiting: self.waiters().len(),
            pending: self.pending.sizes(),
        })
    }
}
