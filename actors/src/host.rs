//! What hooks of proposals may ask of actors: the implementation of `hooks::Host`. Like `start.rs`, it stands above all actors.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{OwnedRoomId, OwnedUserId};
use schema::sessions::DeviceCreator;
use schema::{Position, ServiceId, Tx};
use serde_json::Value;
use serde_json::value::to_raw_value;

use crate::accounts::{account_data, devices};
use crate::hooks::{DeviceKeys, Host, RoomEvent, ToDeviceMessage};
use crate::key_store::{self, Upload};
use crate::runtime::env::WeakEnv;
use crate::runtime::wake::ProposalEphemeral;
use crate::to_device_inbox::{Deposit, Target};
use crate::{Env, Error, Identity, Refusal, Result, rooms, to_device_inbox};

/// The environment of the hooks. It does not keep the environment alive, which holds the storage to which it is attached.
pub(crate) struct HookHost(pub(crate) WeakEnv);

impl HookHost {
    fn env(&self) -> Result<Env> {
        self.0
            .upgrade()
            .ok_or(Error::Failed("the server has stopped"))
    }

    /// Call a function with the environment after the commit.
    fn after(&self, tx: &mut Tx<'_>, then: impl FnOnce(Env) + Send + 'static) {
        let env = self.0.clone();
        tx.after_commit(move || {
            if let Some(env) = env.upgrade() {
                then(env);
            }
        });
    }
}

/// Parse an identifier that a hook names.
fn parsed<T: for<'a> TryFrom<&'a str>>(text: &str) -> Result<T> {
    T::try_from(text)
        .map_err(|_| Refusal::InvalidParam(format!("{text:?} is not a valid id").into()).into())
}

impl Host for HookHost {
    fn now(&self) -> i64 {
        self.0.upgrade().map_or(0, |env| env.clock.now())
    }

    fn server_name(&self) -> String {
        let env = self.0.upgrade();
        env.map_or_else(String::new, |env| env.settings.server_name.to_string())
    }

    fn wake(&self, tx: &mut Tx<'_>, users: Vec<OwnedUserId>, rooms: Vec<OwnedRoomId>) {
        self.after(tx, move |env| {
            env.wake.users(users);
            env.wake.rooms(rooms);
        });
    }

    fn wake_services(&self, tx: &mut Tx<'_>, services: BTreeSet<ServiceId>, up_to: Position) {
        self.after(tx, move |env| env.wake.services(&services, Some(up_to)));
    }

    fn set_timer(&self, tx: &mut Tx<'_>) {
        self.after(tx, |env| env.wake.for_proposals.timer_set(&env.trace));
    }

    fn send_ephemeral(&self, tx: &mut Tx<'_>, event: ProposalEphemeral) {
        self.after(tx, move |env| {
            env.wake.for_proposals.ephemeral(&env.trace, event)
        });
    }

    fn send_to_device(&self, tx: &mut Tx<'_>, message: ToDeviceMessage<'_>) -> Result<()> {
        let target = match message.device {
            Some(device) => Target::Device(device.into()),
            None => Target::All,
        };
        let content = to_raw_value(message.content)?;
        let user: OwnedUserId = parsed(message.user)?;
        let deposit = Deposit {
            from: Identity {
                user: parsed(message.from)?,
                device: None,
                appservice: None,
            },
            // Unique, since every position is given once.
            txn: format!("hook{}", tx.next_position().0).into(),
            event_type: message.kind.to_owned(),
            messages: BTreeMap::from([(user.clone(), BTreeMap::from([(target, content)]))]),
        };
        let now = self.now();
        let done = of_its_own(tx, |tx| to_device_inbox::deposit(tx, &deposit, now))?;
        self.wake_services(tx, done.services, done.position);
        self.wake(tx, vec![user], Vec::new());
        Ok(())
    }

    fn send_event(&self, tx: &mut Tx<'_>, event: RoomEvent<'_>) -> Result<String> {
        let env = self.env()?;
        let (id, services) = of_its_own(tx, |tx| rooms::add_event(&env, tx, &event))?;
        let up_to = tx.head();
        self.wake_services(tx, services, up_to);
        self.wake(tx, Vec::new(), vec![parsed(event.room)?]);
        Ok(id)
    }

    fn create_device(
        &self,
        tx: &mut Tx<'_>,
        user: &str,
        device: &str,
        name: Option<&str>,
    ) -> Result<()> {
        let id = parsed(user)?;
        let changed = devices::create(tx, user, device, name, &DeviceCreator::Person)?;
        self.after(tx, move |env| changed.settle(&env, &id));
        Ok(())
    }

    fn delete_device(&self, tx: &mut Tx<'_>, user: &str, device: &str) -> Result<bool> {
        let id = parsed(user)?;
        let changed = devices::delete(tx, user, &[device.to_owned()])?;
        let deleted = changed.has_deleted();
        self.after(tx, move |env| changed.settle(&env, &id));
        Ok(deleted)
    }

    fn upload_keys(
        &self,
        tx: &mut Tx<'_>,
        user: &str,
        device: &str,
        keys: &DeviceKeys,
    ) -> Result<()> {
        let keys = keys.clone();
        let upload = Upload {
            from: Identity {
                user: parsed(user)?,
                device: Some(device.into()),
                appservice: None,
            },
            device_keys: keys.device_keys,
            one_time_keys: keys.one_time_keys,
            fallback_keys: keys.fallback_keys,
        };
        let changed = key_store::upload_in(tx, &upload, &self.env()?.hooks)?;
        self.after(tx, move |env| changed.wake(&env));
        Ok(())
    }

    fn put_account_data(
        &self,
        tx: &mut Tx<'_>,
        user: &str,
        room: &str,
        kind: &str,
        content: &Value,
    ) -> Result<()> {
        let put = account_data::put(tx, user, room, kind, &content.to_string())?;
        self.wake_services(tx, put.services, put.position);
        self.wake(tx, vec![parsed(user)?], Vec::new());
        Ok(())
    }
}

/// Does what a hook wants done. What the client's request carries is about the request's own changes, and not about this.
fn of_its_own<T>(tx: &mut Tx<'_>, act: impl FnOnce(&mut Tx<'_>) -> Result<T>) -> Result<T> {
    let carried = tx.swap_context(None);
    let done = act(tx);
    tx.swap_context(carried);
    done
}
