//! The key store: what lets others encrypt to a device, and trust it.
//!
//! *Owns* `device_keys`, `one_time_keys`, `claimed_keys`, `fallback_keys`, `cross_signing_keys`, `key_signatures`, `backup_versions`,
//! `backup_sessions`.
//!
//! *Asks* nobody.
//!
//! *Tells* `device_lists`: [`KeysChanged`]; and [`Wake`](crate::runtime::wake::Wake): the services that are owed counts, the users
//! whose clients see a change, the rooms of a user whose keys changed.
//!
//! *Promises* that a one-time key is given away once, the oldest first; that who decides over a device is owed its counts in
//! the write that changed them; that keys come out as their bytes went in; that a signature is kept only when it verifies.
//!
//! *Spec* [End-to-end encryption](https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption),
//! [Cross-signing](https://spec.matrix.org/v1.19/client-server-api/#cross-signing),
//! [Key backups](https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups).

mod backup;
mod changed;
mod claim;
mod emptying;
mod messages;
mod present;
pub mod queries;
pub mod rules;
mod signing;
mod upload;

use actix::{Actor, Context, Handler, Recipient, ResponseFuture};
use schema::Tx;

use crate::device_lists::KeysChanged;
use crate::runtime::life::Life;
use crate::{Env, Result, guarded};

use changed::Changed;
pub(crate) use emptying::empty_backups;
pub use messages::*;

/// The actor.
pub struct KeyStore {
    env: Env,
    device_lists: Recipient<KeysChanged>,
    life: Life,
}

impl KeyStore {
    /// A key store over this storage, which tells `device_lists` whose keys changed.
    #[must_use]
    pub fn new(env: Env, device_lists: Recipient<KeysChanged>) -> KeyStore {
        KeyStore {
            env,
            device_lists,
            life: Life::default(),
        }
    }

    /// One write, and after its commit the word to those whom it concerns. What was refused before needs no write.
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
        self.life.watch(ctx, &self.env, "key_store");
        ctx.set_mailbox_capacity(4096);
        empty_backups(&self.env);
    }
}

impl Handler<Upload> for KeyStore {
    type Result = ResponseFuture<Result<Counts>>;

    fn handle(&mut self, msg: Upload, _: &mut Context<Self>) -> Self::Result {
        let checked = upload::check(&msg, &self.env.hooks);
        self.change(checked.map(|()| move |tx: &mut Tx<'_>| upload::upload(tx, &msg)))
    }
}

// ANCHOR: claim
impl Handler<Claim> for KeyStore {
    type Result = ResponseFuture<Result<Claimed>>;

    fn handle(&mut self, msg: Claim, _: &mut Context<Self>) -> Self::Result {
        let from = if msg.or_fallback {
            claim::From::Any
        } else {
            claim::From::OneTime
        };
        let checked = rules::upload::check_claim(&msg.wanted);
        self.change(checked.map(|()| move |tx: &mut Tx<'_>| claim::claim(tx, &msg.wanted, from)))
    }
}
// ANCHOR_END: claim

impl Handler<ClaimFallback> for KeyStore {
    type Result = ResponseFuture<Result<Claimed>>;

    fn handle(&mut self, msg: ClaimFallback, _: &mut Context<Self>) -> Self::Result {
        let from = claim::From::Fallback;
        let checked = rules::upload::check_claim(&msg.wanted);
        self.change(checked.map(|()| move |tx: &mut Tx<'_>| claim::claim(tx, &msg.wanted, from)))
    }
}

impl Handler<UploadSigning> for KeyStore {
    type Result = ResponseFuture<Result<SigningUploaded>>;

    fn handle(&mut self, msg: UploadSigning, _: &mut Context<Self>) -> Self::Result {
        let parsed = signing::parse(&msg);
        self.change(parsed.map(|keys| move |tx: &mut Tx<'_>| signing::upload(tx, &msg, &keys)))
    }
}

impl Handler<UploadSignatures> for KeyStore {
    type Result = ResponseFuture<Result<Failures>>;

    fn handle(&mut self, msg: UploadSignatures, _: &mut Context<Self>) -> Self::Result {
        let objects = msg.signed.values().map(|of_user| of_user.len()).sum();
        let checked = rules::signing::check_objects(objects);
        let env = self.env.clone();
        self.change(
            checked
                .map(|()| move |tx: &mut Tx<'_>| signing::upload_signatures(tx, &msg, &env.hooks)),
        )
    }
}

impl Handler<CreateBackup> for KeyStore {
    type Result = ResponseFuture<Result<String>>;

    fn handle(&mut self, msg: CreateBackup, _: &mut Context<Self>) -> Self::Result {
        let description = rules::backup::description(&msg.description);
        self.change(description.map(|new| {
            move |tx: &mut Tx<'_>| {
                let user = msg.user.as_str();
                let version = schema::backup::create(tx, user, &new.algorithm, &new.auth_data)?;
                Ok((version.to_string(), Changed::default()))
            }
        }))
    }
}

impl Handler<UpdateBackup> for KeyStore {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: UpdateBackup, _: &mut Context<Self>) -> Self::Result {
        let description = rules::backup::description(&msg.description);
        self.change(description.map(|new| {
            move |tx: &mut Tx<'_>| Ok((backup::update(tx, &msg, &new)?, Changed::default()))
        }))
    }
}

impl Handler<DeleteBackup> for KeyStore {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: DeleteBackup, _: &mut Context<Self>) -> Self::Result {
        let env = self.env.clone();
        let deleted = self.change(Ok(move |tx: &mut Tx<'_>| {
            Ok((backup::delete(tx, &msg)?, Changed::default()))
        }));
        Box::pin(async move {
            deleted.await?;
            empty_backups(&env);
            Ok(())
        })
    }
}

impl Handler<StoreSessions> for KeyStore {
    type Result = ResponseFuture<Result<BackupState>>;

    fn handle(&mut self, msg: StoreSessions, _: &mut Context<Self>) -> Self::Result {
        let rows = backup::check(&msg);
        self.change(rows.map(|rows| {
            move |tx: &mut Tx<'_>| Ok((backup::store(tx, &msg, &rows)?, Changed::default()))
        }))
    }
}

impl Handler<DeleteSessions> for KeyStore {
    type Result = ResponseFuture<Result<BackupState>>;

    fn handle(&mut self, msg: DeleteSessions, _: &mut Context<Self>) -> Self::Result {
        self.change(Ok(move |tx: &mut Tx<'_>| {
            Ok((backup::delete_sessions(tx, &msg)?, Changed::default()))
        }))
    }
}

#[cfg(test)]
mod tests;
