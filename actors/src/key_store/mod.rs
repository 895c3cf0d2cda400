//! The key store: the public keys of devices and users, with their signatures, and key backups.
//!
//! *Owns* `device_keys`, `one_time_keys`, `claimed_keys`, `fallback_keys`, `cross_signing_keys`, `key_signatures`,
//! `backup_versions`, `backup_sessions`.
//!
//! *Asks* no actor.
//!
//! *Tells* `device_lists` [`KeysChanged`]; and [`Wake`](crate::runtime::wake::Wake) to wake the senders of appservices that are
//! owed key counts, and the `/sync` requests of users who see a change or share a room with a user whose keys changed.
//!
//! *Promises* that a one-time key is given away once, the oldest first; that the appservices which decide over a device are owed
//! its key counts in the write that changed the counts; that keys keep their bytes; that only verified signatures are stored.
//!
//! *Spec* [End-to-end encryption](https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption),
//! [Cross-signing](https://spec.matrix.org/v1.19/client-server-api/#cross-signing),
//! [Key backups](https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups).

mod backup;
mod changed;
mod claim;
mod emptying;
mod messages;
pub mod queries;
pub mod rules;
mod signing;
mod upload;

use actix::{Actor, Context, Recipient, ResponseFuture};
use schema::Tx;

use crate::device_lists::KeysChanged;
use crate::runtime::watchdog::Watchdog;
use crate::{Env, Result, guarded};

use changed::Changed;
pub(crate) use emptying::empty_backups;
pub use messages::*;
pub(crate) use upload::upload_in;

/// The actor.
pub struct KeyStore {
    env: Env,
    device_lists: Recipient<KeysChanged>,
    watchdog: Watchdog,
}

impl KeyStore {
    /// The key store in this storage; it notifies `device_lists` of changed keys.
    pub fn new(env: Env, device_lists: Recipient<KeysChanged>) -> KeyStore {
        KeyStore {
            env,
            device_lists,
            watchdog: Watchdog::default(),
        }
    }

    /// Run one write, and send its notifications after the commit. A request that the checks refused needs no write.
    fn change<T, W>(&self, checked: Result<W>) -> ResponseFuture<Result<T>>
    where
        T: Send + 'static,
        W: Fn(&mut Tx<'_>) -> Result<(T, Changed)> + Send + 'static,
    {
        let (env, device_lists) = (self.env.clone(), self.device_lists.clone());
        let write = checked.map(|write| env.store.write(write));
        guarded(&self.env, "key_store", async move {
            let (answer, changed) = write?.await?;
            changed.announce(&env, &device_lists);
            Ok(answer)
        })
    }
}

impl Actor for KeyStore {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.watchdog.watch(ctx, &self.env, "key_store");
        ctx.set_mailbox_capacity(4096);
        empty_backups(&self.env);
    }
}

#[cfg(test)]
mod tests;
