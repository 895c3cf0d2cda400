//! Registration: by a person in two requests, by an application service for its users, by the operator.

use actix::{Context, Handler, ResponseFuture};
use ruma::OwnedUserId;
use ruma::push::Ruleset;
use schema::ServiceId;
use schema::Tx;
use schema::accounts::{self, UserRow};
use schema::sessions::DeviceCreator;

use super::confirmations::{Confirmations, Purpose};
use super::log_in::NewSession;
use super::messages::{AuthData, Available, Register, Registered, Registrant};
use super::passwords::Passwords;
use super::rules::push_rules;
use super::{Accounts, DeviceChanges, account_data, queries, rules};
use crate::hooks::{Change, ReportsChanges};
use crate::services::{CarriesInterests, Interests};
use crate::{Env, Refusal, Result, Secret, guarded};

impl Handler<Register> for Accounts {
    type Result = ResponseFuture<Result<Registered>>;

    /// Queues the write only after the request is confirmed and the password is hashed; the write repeats the checks made before.
    fn handle(&mut self, msg: Register, _: &mut Context<Self>) -> Self::Result {
        let (env, after) = (self.env.clone(), self.after.clone());
        let (confirmations, passwords) = (self.confirmations.clone(), self.passwords.clone());
        guarded(&self.env, "accounts", async move {
            let Register {
                by,
                username,
                device,
                display_name,
                inhibit_login,
            } = msg;
            let mut confirmed_in = None;
            let account = match by {
                Registrant::Service(service) => of_service(&env, service, username).await?,
                Registrant::Operator { password } => {
                    person(&env, &passwords, username, Some(password)).await?
                }
                Registrant::Person {
                    auth,
                    password,
                    address,
                } => {
                    if let Some(before) =
                        earlier_answer(&env, &confirmations, auth.as_ref()).await?
                    {
                        return Ok(before);
                    }
                    let name = username.as_deref();
                    let purpose = Purpose::registration(&address);
                    confirmed(&env, &confirmations, name, purpose, auth.as_ref()).await?;
                    confirmed_in = auth.and_then(|auth| auth.session);
                    person(&env, &passwords, username, password).await?
                }
            };
            let session = if inhibit_login {
                None
            } else {
                Some(NewSession::draw(&env, device, display_name)?)
            };
            let (user, now, stored) = (account.user.clone(), env.clock.now(), session.clone());
            let changed = env
                .store
                .write(move |tx| account.store(tx, stored.as_ref(), now))
                .await?;
            after.commit(&user, changed);
            let registered = Registered {
                login: session.map(|session| session.logged_in(user.clone())),
                user,
            };
            confirmations.remember(confirmed_in.as_deref(), &registered);
            Ok(registered)
        })
    }
}

impl Handler<Available> for Accounts {
    type Result = ResponseFuture<Result<()>>;

    fn handle(&mut self, msg: Available, _: &mut Context<Self>) -> Self::Result {
        let env = self.env.clone();
        guarded(&self.env, "accounts", async move {
            free(&env, &msg.username).await
        })
    }
}

/// The earlier answer to the same request, if its token or account still exists.
async fn earlier_answer(
    env: &Env,
    confirmations: &Confirmations,
    auth: Option<&AuthData>,
) -> Result<Option<Registered>> {
    let Some(before) = confirmations.registered(auth) else {
        return Ok(None);
    };
    let holds = match &before.login {
        Some(login) => queries::identity_of(env, &login.token).await?.is_some(),
        None => queries::user_exists(env, &before.user).await?,
    };
    Ok(Some(before).filter(|_| holds))
}

/// Check the localpart first, so that a person learns that it is taken before anything must be confirmed.
async fn confirmed(
    env: &Env,
    confirmations: &Confirmations,
    username: Option<&str>,
    purpose: Purpose,
    auth: Option<&AuthData>,
) -> Result<()> {
    if !env.settings.open_registration {
        return Err(Refusal::Forbidden("registration is closed".into()).into());
    }
    if let Some(username) = username {
        free(env, username).await?;
    }
    // The session is not bound to the localpart: a client may ask for the flows before a person has typed one.
    confirmations.by_dummy(purpose, auth)
}

async fn free(env: &Env, username: &str) -> Result<()> {
    let user = rules::person(&env.settings.server_name, username)?;
    rules::open_to_people(&env.store.interests(), &user)?;
    let taken = env
        .store
        .read(move |db| accounts::user(db, user.as_str()))
        .await?;
    match taken {
        Some(_) => Err(Refusal::UserInUse.into()),
        None => Ok(()),
    }
}

/// An account, before it is stored.
struct NewAccount {
    user: OwnedUserId,
    password_hash: Option<String>,
    service: Option<ServiceId>,
}

async fn person(
    env: &Env,
    passwords: &Passwords,
    username: Option<String>,
    password: Option<Secret>,
) -> Result<NewAccount> {
    let username = username.unwrap_or_else(|| env.ids.opaque("user"));
    let user = rules::person(&env.settings.server_name, &username)?;
    let password = password.ok_or_else(|| Refusal::MissingParam("password".into()))?;
    rules::password(password.reveal())?;
    Ok(NewAccount {
        user,
        password_hash: Some(passwords.hash(password).await?),
        service: None,
    })
}

/// Clause: as.users.register, as.users.in-use
async fn of_service(env: &Env, service: ServiceId, username: Option<String>) -> Result<NewAccount> {
    let username = username.ok_or_else(|| Refusal::MissingParam("username".into()))?;
    let server = &env.settings.server_name;
    let user = match rules::service_user(server, &username) {
        // Bridges register their users again at each start, also those with ids from before the grammar for new users.
        Err(_) if exists(env, rules::meant(server, &username)).await? => {
            return Err(Refusal::UserInUse.into());
        }
        user => user?,
    };
    Ok(NewAccount {
        user,
        password_hash: None,
        service: Some(service),
    })
}

async fn exists(env: &Env, user: Option<OwnedUserId>) -> Result<bool> {
    let Some(user) = user else { return Ok(false) };
    let row = env.store.read(move |db| accounts::user(db, user.as_str()));
    Ok(row.await?.is_some())
}

impl NewAccount {
    /// The write: store the account, a person's default push rules, and the first device if one is wanted.
    fn store(
        &self,
        tx: &mut Tx<'_>,
        session: Option<&NewSession>,
        now: i64,
    ) -> Result<DeviceChanges> {
        let maker = self.admit(&tx.interests(), session.is_some())?;
        let row = UserRow {
            password_hash: self.password_hash.clone(),
            appservice_id: self.service.as_ref().map(ToString::to_string),
            ..UserRow::new(self.user.as_str(), now)
        };
        if !accounts::register(tx, &row)? {
            return Err(Refusal::UserInUse.into());
        }
        tx.changed(&Change::Account {
            user: self.user.as_str(),
            is_active: true,
        })?;
        if maker == DeviceCreator::Person {
            // Clients expect push rules in their first sync. An appservice's users, of which there may be a million, do not need
            // the row.
            let rules = push_rules::Content {
                global: Ruleset::server_default(&self.user),
            };
            let content = serde_json::to_string(&rules)?;
            account_data::put(tx, self.user.as_str(), "", push_rules::KIND, &content)?;
        }
        match session {
            Some(session) => session.store(tx, &self.user, &maker, now),
            None => Ok(DeviceChanges::default()),
        }
    }

    /// Clause: as.users.inhibit-login
    fn admit(&self, interests: &Interests, logs_in: bool) -> Result<DeviceCreator, Refusal> {
        match &self.service {
            None => {
                rules::open_to_people(interests, &self.user)?;
                Ok(DeviceCreator::Person)
            }
            Some(service) => {
                let acts = rules::service_acts_for(interests, service, &self.user)?;
                if logs_in {
                    rules::may_log_in(acts)?;
                }
                Ok(DeviceCreator::Service(service.clone()))
            }
        }
    }
}
