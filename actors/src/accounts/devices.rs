//! Devices: renaming, creation by application services, deletion with all their data.

use std::collections::BTreeSet;

use actix::{Context, Handler, ResponseFuture};
use schema::accounts::Addressed;
use schema::sessions::{self, DeviceCreator, GoneDevice};
use schema::{Conn, Tx, accounts, backup, device_log, signing_keys};

use super::account_data::forget_owed;
use super::messages::{ChangePassword, Confirm, Deactivate, DeleteDevices, PutDevice};
use super::{Accounts, DeviceChanges, rules};
use crate::hooks::{Change, DeviceChange, ReportsChanges};
use crate::key_store::empty_backups;
use crate::runtime::identity_cache::Removed;
use crate::services::{CarriesInterests, authorities};
use crate::{Refusal, Result, guarded};

/// The most devices that one request may delete.
const AT_ONCE: usize = 1000;

/// The ids of all devices of a user.
pub(super) fn all(db: &mut Conn, user: &str) -> Result<Vec<String>> {
    let devices = accounts::devices_of(db, &[user])?;
    Ok(devices.into_iter().map(|d| d.device.device_id).collect())
}

/// Part of a write: delete those of these devices that exist.
pub(crate) fn delete(tx: &mut Tx<'_>, user: &str, devices: &[String]) -> Result<DeviceChanges> {
    let gone = forget(tx, user, devices)?;
    if gone.is_empty() {
        return Ok(DeviceChanges::default());
    }
    let changed = DeviceChanges {
        gone,
        ..DeviceChanges::default()
    };
    changed.listed(tx, user)
}

/// Clause: cs.devices.logout
fn forget(tx: &mut Tx<'_>, user: &str, devices: &[String]) -> Result<Vec<GoneDevice>> {
    let interests = tx.interests();
    let decide = |to: &Addressed| authorities(&interests, to);
    let gone = sessions::forget_devices(tx, user, devices, decide)?;
    for device in &gone {
        report(tx, user, &device.device_id, DeviceChange::Deleted)?;
    }
    Ok(gone)
}

/// Report to proposals what happened to a device.
pub(super) fn report(tx: &mut Tx<'_>, user: &str, device: &str, now: DeviceChange) -> Result<()> {
    tx.changed(&Change::Device { user, device, now })
}

/// Part of a write: refuse a device id that equals one of the user's cross-signing keys, since a signature of one could be taken
/// for a signature of the other. ([spec])
///
/// [spec]: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login
pub(super) fn free_name(db: &mut Conn, user: &str, device: &str) -> Result<()> {
    if sessions::is_cross_signing_key(db, user, device)? {
        let text = "this device id is the name of a cross-signing key";
        return Err(Refusal::Forbidden(text.into()).into());
    }
    Ok(())
}

/// Part of a write: refuse a new device above the limit. An existing device may always be used.
pub(super) fn room_for(db: &mut Conn, user: &str, device: &str) -> Result<()> {
    if accounts::count_devices(db, user)? >= rules::DEVICES
        && !accounts::has_device(db, user, device)?
    {
        let text = "this account has 1,000 devices: delete one, or log in to one that exists";
        return Err(Refusal::TooMany(text.into()).into());
    }
    Ok(())
}

impl Handler<PutDevice> for Accounts {
    type Result = ResponseFuture<Result<bool>>;

    fn handle(&mut self, msg: PutDevice, _: &mut Context<Self>) -> Self::Result {
        let (after, user) = (self.after.clone(), msg.who.user.clone());
        let creates = self.env.manages_devices(&msg.who);
        let write = self.env.store.write(move |tx| put(tx, &msg, creates));
        guarded(&self.env, "accounts", async move {
            let (made, changed) = write.await?;
            after.commit(&user, changed);
            Ok(made)
        })
    }
}

/// Clause: as.devices.create, cs.devices.rename-missing
/// Part of a write: create a device that does not exist, for a user that is registered.
pub(crate) fn create(
    tx: &mut Tx<'_>,
    user: &str,
    device: &str,
    name: Option<&str>,
    creator: &DeviceCreator,
) -> Result<DeviceChanges> {
    rules::device_id(device)?;
    rules::device_name(name)?;
    if !accounts::is_active(tx, user)? {
        return Err(Refusal::Forbidden("this user is not registered".into()).into());
    }
    free_name(tx, user, device)?;
    room_for(tx, user, device)?;
    sessions::ensure_device(tx, user, device, name, creator)?;
    report(tx, user, device, DeviceChange::Created)?;
    DeviceChanges::default().listed(tx, user)
}

fn put(tx: &mut Tx<'_>, msg: &PutDevice, creates: bool) -> Result<(bool, DeviceChanges)> {
    let (user, device, name) = (
        msg.who.user.as_str(),
        msg.device.as_str(),
        msg.display_name.as_deref(),
    );
    rules::device_id(device)?;
    rules::device_name(name)?;
    if !accounts::has_device(tx, user, device)? {
        // A person's device is created by logging in.
        let Some(service) = msg.who.appservice.as_ref().filter(|_| creates) else {
            return Err(Refusal::NotFound("no such device".into()).into());
        };
        let creator = DeviceCreator::Service(service.clone());
        return Ok((true, create(tx, user, device, name, &creator)?));
    }
    let renamed = match name {
        Some(name) => sessions::rename_device(tx, user, device, name)?,
        None => false,
    };
    let changed = if renamed {
        report(tx, user, device, DeviceChange::Renamed)?;
        DeviceChanges::default().listed(tx, user)?
    } else {
        DeviceChanges::default()
    };
    Ok((false, changed))
}

impl Handler<DeleteDevices> for Accounts {
    type Result = ResponseFuture<Result<()>>;

    /// Queues the write only after the request is confirmed.
    fn handle(&mut self, msg: DeleteDevices, _: &mut Context<Self>) -> Self::Result {
        let (env, after) = (self.env.clone(), self.after.clone());
        let confirmations = self.confirmations.clone();
        guarded(&self.env, "accounts", async move {
            // Sorted and without duplicates, because the list is part of the operation and a repeated request may order it
            // differently.
            let devices: BTreeSet<String> = msg.devices.iter().map(ToString::to_string).collect();
            if devices.len() > AT_ONCE {
                return Err(Refusal::TooMany(
                    "one request can delete at most 1,000 devices".into(),
                )
                .into());
            }
            let (who, devices) = (msg.who, Vec::from_iter(devices));
            if !env.manages_devices(&who) {
                let operation = format!("delete devices {devices:?}");
                confirmations
                    .by_password(&who.user, &operation, msg.auth)
                    .await?;
            }
            let user = who.user.clone();
            let write = env
                .store
                .write(move |tx| delete(tx, user.as_str(), &devices));
            after.commit(&who.user, write.await?);
            Ok(())
        })
    }
}

impl Handler<Confirm> for Accounts {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: Confirm, _: &mut Context<Self>) -> Self::Result {
        let confirmations = self.confirmations.clone();
        let free = self.env.manages_devices(&msg.who);
        guarded(&self.env, "accounts", async move {
            if free {
                return Ok(());
            }
            confirmations
                .by_password(&msg.who.user, &msg.operation, msg.auth)
                .await
        })
    }
}

impl Handler<ChangePassword> for Accounts {
    type Result = ResponseFuture<Result<()>>;

    /// Queues the write only after the request is confirmed and the new password is hashed. Clause: cs.accounts.password-logout
    fn handle(&mut self, msg: ChangePassword, _: &mut Context<Self>) -> Self::Result {
        let (env, after) = (self.env.clone(), self.after.clone());
        let (confirmations, passwords) = (self.confirmations.clone(), self.passwords.clone());
        guarded(&self.env, "accounts", async move {
            rules::password(msg.new_password.reveal())?;
            let who = msg.who;
            confirmations
                .by_password(&who.user, "change password", msg.auth)
                .await?;
            let hash = passwords.hash(msg.new_password).await?;
            let user = who.user.clone();
            let write = env.store.write(move |tx| {
                if !accounts::is_active(tx, who.user.as_str())? {
                    return Err(Refusal::UserDeactivated.into());
                }
                accounts::set_password(tx, who.user.as_str(), &hash)?;
                if !msg.logout_devices {
                    return Ok(DeviceChanges::default());
                }
                let mut others = all(tx, who.user.as_str())?;
                others.retain(|id| who.device.as_ref().is_none_or(|own| own.as_str() != id));
                delete(tx, who.user.as_str(), &others)
            });
            after.commit(&user, write.await?);
            Ok(())
        })
    }
}

impl Handler<Deactivate> for Accounts {
    type Result = ResponseFuture<Result<()>>;

    /// Queues the write only after the request is confirmed. An application service need not confirm: its users have no password.
    fn handle(&mut self, msg: Deactivate, _: &mut Context<Self>) -> Self::Result {
        let (env, after) = (self.env.clone(), self.after.clone());
        let confirmations = self.confirmations.clone();
        guarded(&self.env, "accounts", async move {
            let who = msg.who;
            if who.appservice.is_none() {
                confirmations
                    .by_password(&who.user, "deactivate", msg.auth)
                    .await?;
            }
            let user = who.user.clone();
            let write = env.store.write(move |tx| {
                let devices = all(tx, user.as_str())?;
                let gone = forget(tx, user.as_str(), &devices)?;
                accounts::deactivate(tx, user.as_str())?;
                tx.changed(&Change::Account {
                    user: user.as_str(),
                    is_active: false,
                })?;
                forget_owed(tx, user.as_str())?;
                if msg.erase {
                    accounts::erase(tx, user.as_str())?;
                }
                signing_keys::forget_user(tx, user.as_str())?;
                backup::forget_user(tx, user.as_str())?;
                device_log::keys_changed(tx, user.as_str())?;
                let changed = DeviceChanges {
                    gone,
                    ..DeviceChanges::default()
                };
                changed.listed(tx, user.as_str())
            });
            let changed = write.await?;
            empty_backups(&env);
            env.identities.forget(&Removed {
                users: BTreeSet::from([who.user.clone()]),
                ..Removed::default()
            });
            after.commit(&who.user, changed);
            Ok(())
        })
    }
}
