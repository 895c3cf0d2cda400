//! Logging in and out.

use actix::{Context, Handler, ResponseFuture};
use ruma::{OwnedDeviceId, OwnedUserId};
use schema::ServiceId;
use schema::sessions::{self, DeviceCreator};
use schema::{Tx, accounts};

use super::messages::{Credentials, LogIn, LogOut, LogOutAll, LoggedIn};
use super::passwords::Passwords;
use super::queries::token_hash;
use super::{Accounts, DeviceChanges, devices, rules};
use crate::hooks::DeviceChange;
use crate::services::CarriesInterests;
use crate::{Env, Refusal, Result, Secret, guarded};

/// The same answer for an unknown user, a user without a password and a wrong password.
pub(super) const WRONG: Refusal =
    Refusal::Forbidden(std::borrow::Cow::Borrowed("wrong user or password"));

impl Handler<LogIn> for Accounts {
    type Result = ResponseFuture<Result<LoggedIn>>;

    /// Queues the write only after the password is hashed, so log-ins may finish in another order than they came.
    fn handle(&mut self, msg: LogIn, _: &mut Context<Self>) -> Self::Result {
        let (env, passwords) = (self.env.clone(), self.passwords.clone());
        let after = self.after.clone();
        guarded(&self.env, "accounts", async move {
            let session = NewSession::draw(&env, msg.device, msg.display_name)?;
            let claim = claimed(&env, &passwords, msg.credentials).await?;
            let user = claim.user().clone();
            let (now, stored) = (env.clock.now(), session.clone());
            let changed = env
                .store
                .write(move |tx| {
                    let maker = admit(tx, &claim)?;
                    stored.store(tx, claim.user(), &maker, now)
                })
                .await?;
            after.commit(&user, changed);
            Ok(session.logged_in(user))
        })
    }
}

/// A log-in that was checked before the write, with what the write checks again.
enum CheckedLogIn {
    /// The password matched this hash.
    Password { user: OwnedUserId, hash: String },
    /// An application service logs in for the user.
    Service {
        user: OwnedUserId,
        service: ServiceId,
    },
}

impl CheckedLogIn {
    fn user(&self) -> &OwnedUserId {
        match self {
            CheckedLogIn::Password { user, .. } | CheckedLogIn::Service { user, .. } => user,
        }
    }
}

async fn claimed(env: &Env, passwords: &Passwords, by: Credentials) -> Result<CheckedLogIn> {
    let server = &env.settings.server_name;
    match by {
        Credentials::Service { service, user } => {
            let user = rules::meant(server, &user).ok_or_else(|| {
                Refusal::Exclusive("the user id belongs to another server".into())
            })?;
            Ok(CheckedLogIn::Service { user, service })
        }
        Credentials::Password { user, password } => {
            // Localparts of persons are in lower case, however they are typed.
            let user = rules::meant(server, &user.to_ascii_lowercase());
            let row = match user.clone() {
                None => None,
                Some(user) => {
                    env.store
                        .read(move |db| accounts::user(db, user.as_str()))
                        .await?
                }
            };
            let given_up = row.as_ref().is_some_and(|row| row.deactivated);
            let hash = row.and_then(|row| row.password_hash);
            let right = passwords.matches(password, hash.clone()).await?;
            match (user, hash) {
                // Reveal that an account is deactivated only to a caller with the right password.
                _ if right && given_up => Err(Refusal::UserDeactivated.into()),
                (Some(user), Some(hash)) if right => Ok(CheckedLogIn::Password { user, hash }),
                _ => Err(WRONG.into()),
            }
        }
    }
}

/// Part of the write: check again what was checked before it. Clause: as.users.login, cs.devices.log-in-again
fn admit(tx: &mut Tx<'_>, claim: &CheckedLogIn) -> Result<DeviceCreator> {
    let user = claim.user();
    match claim {
        CheckedLogIn::Password { hash, .. } => {
            let row = accounts::user(tx, user.as_str())?;
            // The password may have changed, or the account been deactivated, while the password was hashed.
            match row {
                Some(row) if row.password_hash.as_ref() == Some(hash) => {
                    if row.deactivated {
                        return Err(Refusal::UserDeactivated.into());
                    }
                    Ok(DeviceCreator::Person)
                }
                _ => Err(WRONG.into()),
            }
        }
        CheckedLogIn::Service { service, .. } => {
            let interests = tx.interests();
            rules::may_log_in(rules::service_acts_for(&interests, service, user)?)?;
            if !accounts::is_active(tx, user.as_str())? {
                return Err(Refusal::Forbidden("this user is not registered".into()).into());
            }
            Ok(DeviceCreator::Service(service.clone()))
        }
    }
}

/// A device and its token, before they are stored.
#[derive(Clone)]
pub(super) struct NewSession {
    device: OwnedDeviceId,
    display_name: Option<String>,
    token: Secret,
}

impl NewSession {
    /// Generate a token, and a device id unless one is given.
    pub(super) fn draw(
        env: &Env,
        device: Option<OwnedDeviceId>,
        display_name: Option<String>,
    ) -> Result<NewSession> {
        let device = device.unwrap_or_else(|| env.ids.device().into());
        rules::device_id(device.as_str())?;
        rules::device_name(display_name.as_deref())?;
        let token = env.ids.opaque("token").into();
        Ok(NewSession {
            device,
            display_name,
            token,
        })
    }

    /// Part of the write: create the device if it is missing, and replace its token.
    pub(super) fn store(
        &self,
        tx: &mut Tx<'_>,
        user: &OwnedUserId,
        maker: &DeviceCreator,
        now: i64,
    ) -> Result<DeviceChanges> {
        let (user, device) = (user.as_str(), self.device.as_str());
        devices::free_name(tx, user, device)?;
        devices::room_for(tx, user, device)?;
        let made = sessions::ensure_device(tx, user, device, self.display_name.as_deref(), maker)?;
        if made {
            devices::report(tx, user, device, DeviceChange::Created)?;
        }
        let hash = token_hash(&self.token);
        let changed = DeviceChanges {
            tokens: sessions::replace_token(tx, user, device, &hash, now)?,
            ..DeviceChanges::default()
        };
        if made {
            return changed.listed(tx, user);
        }
        Ok(changed)
    }

    /// The answer to the client.
    pub(super) fn logged_in(self, user: OwnedUserId) -> LoggedIn {
        LoggedIn {
            user,
            device: self.device,
            token: self.token,
        }
    }
}

impl Handler<LogOut> for Accounts {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: LogOut, _: &mut Context<Self>) -> Self::Result {
        let devices: Vec<String> = msg.who.device.into_iter().map(|d| d.to_string()).collect();
        self.delete(msg.who.user, move |_, _| Ok(devices.clone()))
    }
}

impl Handler<LogOutAll> for Accounts {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: LogOutAll, _: &mut Context<Self>) -> Self::Result {
        self.delete(msg.who.user, |tx, user| devices::all(tx, user))
    }
}

impl Accounts {
    /// Delete the devices that `which` returns.
    fn delete(
        &self,
        user: OwnedUserId,
        which: impl Fn(&mut Tx<'_>, &str) -> Result<Vec<String>> + Send + 'static,
    ) -> ResponseFuture<Result<()>> {
        let (after, of) = (self.after.clone(), user.clone());
        let write = self.env.store.write(move |tx| {
            let devices = which(tx, of.as_str())?;
            devices::delete(tx, of.as_str(), &devices)
        });
        guarded(&self.env, "accounts", async move {
            after.commit(&user, write.await?);
            Ok(())
        })
    }
}
