//! Accounts: users, devices, access tokens, profiles, and the data that clients store with an account.
//!
//! *Owns* `users`, `erased_users`, `devices`, `access_tokens`, `account_data`, `filters`, `client_transactions`. The write that
//! deletes a device also deletes its rows in the tables of other actors: its keys, the messages in its inbox, and the messages and
//! key counts that appservices are owed for it.
//!
//! *Asks* no actor.
//!
//! *Tells* `device_lists` [`KeysChanged`], and [`Wake`](crate::runtime::wake::Wake): the `/sync` requests that wait, and the
//! senders of appservices that are owed account data.
//!
//! *Promises* that a revoked token is rejected as soon as the logout has been answered; that nothing of a deleted device is left
//! when the deletion is answered; that neither the error nor the duration of a failed log-in reveals whether the user exists.
//!
//! *Spec* [Client authentication](https://spec.matrix.org/v1.19/client-server-api/#client-authentication),
//! [Device management](https://spec.matrix.org/v1.19/client-server-api/#device-management),
//! [Client config](https://spec.matrix.org/v1.19/client-server-api/#client-config),
//! [MSC4190](https://github.com/matrix-org/matrix-spec-proposals/pull/4190).

pub(crate) mod account_data;
mod client_data;
mod confirmations;
pub(crate) mod devices;
mod log_in;
pub mod messages;
mod passwords;
pub mod queries;
mod register;
pub mod rules;
mod seen;
#[cfg(test)]
mod tests;

use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Recipient, WrapFuture};
use ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId};
use schema::sessions::GoneDevice;
use schema::{Position, Tx, client_transactions, memberships};

use crate::device_lists::KeysChanged;
use crate::runtime::watchdog::Watchdog;
use crate::{Env, Error, Result, tell};

use crate::runtime::identity_cache::Removed;
use confirmations::Confirmations;
use passwords::Passwords;

pub use messages::*;
pub use seen::seen;

/// How often old answers to client transactions are deleted.
const PRUNE_EVERY: Duration = Duration::from_secs(60 * 60);

/// How long the answer to a client transaction is kept, in milliseconds: clients repeat a request for minutes, not for days.
const REMEMBER: i64 = 24 * 60 * 60 * 1000;

/// The most rooms of a user whose waiting clients are woken when its devices change; other rooms' clients see it with their next
/// event.
const ROOMS: i64 = 10_000;

/// The actor that writes accounts.
pub struct Accounts {
    env: Env,
    passwords: Passwords,
    confirmations: Confirmations,
    after: AfterCommit,
    watchdog: Watchdog,
}

impl Accounts {
    /// `keys_changed` is sent each change of a device, after its commit.
    pub fn new(env: Env, keys_changed: Recipient<KeysChanged>) -> Accounts {
        let passwords = Passwords::new(env.clone());
        Accounts {
            confirmations: Confirmations::new(env.clone(), passwords.clone()),
            passwords,
            after: AfterCommit {
                env: env.clone(),
                keys_changed,
            },
            env,
            watchdog: Watchdog::default(),
        }
    }

    fn prune_later(&self, ctx: &mut Context<Self>) {
        let sleep = self.env.clock.sleep(PRUNE_EVERY).into_actor(self);
        ctx.spawn(sleep.map(|(), _, ctx| ctx.notify(PruneTransactions)));
    }
}

impl Actor for Accounts {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.watchdog.watch(ctx, &self.env, "accounts");
        ctx.set_mailbox_capacity(4096);
        self.prune_later(ctx);
    }
}

impl Handler<PruneTransactions> for Accounts {
    type Result = ();

    fn handle(&mut self, _: PruneTransactions, ctx: &mut Context<Self>) {
        let before = self.env.clock.now() - REMEMBER;
        let busy = self.env.trace.busy();
        let write = self
            .env
            .store
            .write_always(move |tx| Ok::<_, Error>(client_transactions::prune(tx, before)?));
        let done = async move {
            if let Err(error) = write.await {
                tracing::warn!(%error, "could not delete old answers to client transactions; trying again in an hour");
            }
            drop(busy);
        };
        ctx.spawn(done.into_actor(self));
        self.prune_later(ctx);
    }
}

/// What a write did to the devices of a user; used after the commit.
#[derive(Debug, Default)]
pub(crate) struct DeviceChanges {
    /// Deleted devices, with their tokens.
    gone: Vec<GoneDevice>,
    /// Revoked tokens of devices that stay.
    tokens: Vec<String>,
    /// The position of the line that the write appended to the device-list log.
    listed: Option<Position>,
    /// The rooms that the user is joined to; empty unless `listed` is set.
    rooms: Vec<OwnedRoomId>,
}

impl DeviceChanges {
    /// Part of the write, after it has appended a line to the device-list log: record the position of the line, and the rooms whose
    /// members see the change.
    fn listed(mut self, tx: &mut Tx<'_>, user: &str) -> Result<DeviceChanges> {
        let rooms = memberships::of_user(tx, user, "join", "", ROOMS)?;
        self.rooms = rooms
            .into_iter()
            .filter_map(|row| OwnedRoomId::try_from(row.room_id).ok())
            .collect();
        self.listed = Some(tx.head());
        Ok(self)
    }

    /// Whether a device was deleted.
    pub(crate) fn has_deleted(&self) -> bool {
        !self.gone.is_empty()
    }

    /// After the commit: drop what the cache holds of deleted devices and tokens, and wake the requests that see the change. Must run
    /// before the reply: once a client has the reply, a revoked token must not be accepted from the cache.
    pub(crate) fn settle(self, env: &Env, user: &OwnedUserId) {
        let devices: Vec<OwnedDeviceId> = self
            .gone
            .iter()
            .map(|gone| gone.device_id.as_str().into())
            .collect();
        let of_gone = self.gone.into_iter().flat_map(|gone| gone.tokens);
        let gone = Removed {
            tokens: of_gone.chain(self.tokens).collect(),
            devices: devices.iter().map(|d| (user.clone(), d.clone())).collect(),
            ..Removed::default()
        };
        if gone != Removed::default() {
            env.identities.forget(&gone);
        }
        if self.listed.is_some() {
            env.wake.users(vec![user.clone()]);
            env.wake.rooms(self.rooms);
        }
    }
}

/// Updates the cache and notifies others after a commit that changed devices.
#[derive(Clone)]
struct AfterCommit {
    env: Env,
    keys_changed: Recipient<KeysChanged>,
}

impl AfterCommit {
    fn commit(&self, user: &OwnedUserId, changed: DeviceChanges) {
        if let Some(position) = changed.listed {
            let fact = KeysChanged {
                user: user.clone(),
                position,
            };
            let to = &self.keys_changed;
            tell(&self.env, "accounts", to, "device_lists", fact);
        }
        changed.settle(&self.env, user);
    }
}
