//! Starts the actors in order, and holds their addresses.

use std::path::PathBuf;
use std::sync::Arc;

use actix::Actor;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ruma::signatures::Ed25519KeyPair;
use schema::{Companion, Store, queues, server_info};

use crate::accounts::Accounts;
use crate::appservice_queries::AppserviceQueries;
use crate::appservice_sender::Ephemeral;
use crate::appservices::{Appservices, Reload};
use crate::device_lists::DeviceLists;
use crate::dialects::Dialects;
use crate::hooks::Attached;
use crate::hooks::Hooks;
use crate::host::HookHost;
use crate::key_proxy::{self, KeyProxy};
use crate::key_store::KeyStore;
use crate::proposals::Proposals;
use crate::rooms::Rooms;
use crate::runtime::address::can_be_asked;
use crate::runtime::env::Inner;
use crate::runtime::faults::DeliveryFaults;
use crate::runtime::history::History;
use crate::runtime::identity_cache::IdentityCache;
use crate::runtime::meter::Meter;
use crate::runtime::performance::Performance;
use crate::runtime::request_faults::RequestFaults;
use crate::runtime::trace::{self, Trace};
use crate::runtime::wake::Wake;
use crate::sync::{Sync, VolatileState};
use crate::to_device_inbox::ToDeviceInbox;
use crate::transport::Transport;
use crate::{Address, Clock, Env, Error, Ids, Refusal, Result, Settings, Stopping, ask_as};

can_be_asked!(
    Accounts,
    KeyStore,
    KeyProxy,
    Rooms,
    DeviceLists,
    ToDeviceInbox,
    Appservices,
    AppserviceQueries,
    Sync,
    Proposals,
);

/// The addresses of all actors that answer requests. Clones are cheap.
#[derive(Clone)]
pub struct Actors {
    /// The shared environment. Reads go through `env.store`.
    pub env: Env,
    /// Users, devices, tokens, profiles, account data.
    pub accounts: Address<Accounts>,
    /// Device keys, one-time keys, cross-signing, backups.
    pub key_store: Address<KeyStore>,
    /// Keys that appservices keep themselves.
    pub key_proxy: Address<KeyProxy>,
    /// The hooks of the enabled proposals for keys that appservices keep.
    pub key_proxies: key_proxy::Proxies,
    /// Rooms, events, memberships, aliases, receipts.
    pub rooms: Address<Rooms>,
    /// Which users' devices each appservice tracks.
    pub device_lists: Address<DeviceLists>,
    /// To-device messages.
    pub to_device_inbox: Address<ToDeviceInbox>,
    /// Registrations, and the senders started for them.
    pub appservices: Address<Appservices>,
    /// Requests to appservices outside transactions.
    pub appservice_queries: Address<AppserviceQueries>,
    /// Waiting `/sync` requests, typing, presence.
    pub sync: Address<Sync>,
    /// The values and timers of proposals.
    pub proposals: Address<Proposals>,
    /// Typing and presence, for the reads in `sync`.
    pub volatile: Arc<VolatileState>,
}

/// The parameters of [`start`].
pub struct StartParameters {
    /// An open database.
    pub store: Store,
    /// The source of time.
    pub clock: Clock,
    /// The source of identifiers.
    pub ids: Ids,
    /// The record of messages between actors.
    pub trace: Trace,
    /// The operator's configuration.
    pub settings: Settings,
    /// The hooks of the enabled proposals.
    pub hooks: Hooks,
    /// The hooks of the enabled proposals for keys that appservices keep.
    pub key_proxies: key_proxy::Proxies,
    /// The faults that a test injects into the actors.
    pub faults: DeliveryFaults,
    /// The faults of requests to appservices that a developer injects.
    pub request_faults: RequestFaults,
    /// The folder of registration files, which is watched for changes; `None` for no folder.
    pub appservices: Option<PathBuf>,
    /// Called with a reason when the process must end because it can no longer keep its guarantees.
    pub fatal: Arc<dyn Fn(&str) + Send + std::marker::Sync>,
}

impl Actors {
    /// Stop the senders, finish the queued writes, and close the database. What is still owed to appservices stays in the
    /// database.
    pub async fn stop(&self) {
        self.env.stopping.stop();
        // A dead actor has nothing to stop.
        let _ = ask_as("stop", &self.appservices, crate::appservices::StopSenders).await;
        self.env.store.close();
    }
}

/// Start every actor on the current arbiter, and resume what the last run left unfinished.
///
/// # Errors
/// The database fails, or belongs to a server with another name.
pub async fn start(parameters: StartParameters) -> Result<Actors> {
    let signing_key = signing_key(&parameters).await?;
    let (history, performance) = if parameters.trace.is_on() {
        let (owed, clock) = (
            parameters.store.read(queues::owed_by_kind),
            &parameters.clock,
        );
        let history = History::begin(owed.await?, parameters.store.head(), clock.clone());
        (history, Performance::measured())
    } else {
        Default::default()
    };
    let env = Env::new(Inner {
        store: parameters.store,
        clock: parameters.clock,
        ids: parameters.ids,
        identities: IdentityCache::default(),
        wake: Wake::default(),
        dialects: Dialects::default(),
        trace: parameters.trace,
        history,
        performance,
        meter: Meter::default(),
        settings: parameters.settings,
        hooks: parameters.hooks,
        signing_key,
        faults: parameters.faults,
        request_faults: parameters.request_faults,
        stopping: Stopping::default(),
        fatal: parameters.fatal,
    });
    env.wake.observe(env.trace.clone(), env.faults.clone());
    env.store.attach(Arc::new(Attached {
        hooks: env.hooks.clone(),
        host: Box::new(HookHost(env.downgrade())),
    }));
    if env.hooks.run_in_writes() {
        env.store
            .with_context(|| trace::exchange().map(|exchange| exchange as Companion));
    }
    let senders = env.wake.senders();
    env.store
        .on_commit(move |owed| senders.owed_is_committed(owed));
    if env.trace.is_on() {
        let (trace, history) = (env.trace.clone(), env.history.clone());
        env.store
            .record_writes(move |closure| trace.writes(&history, closure));
    }

    let volatile = Arc::<VolatileState>::default();
    let sync = Sync::new(env.clone(), Arc::clone(&volatile)).start();
    let sync = Address::new(sync, "sync", env.clone());
    env.wake.set_sync(
        sync.addr().clone().recipient(),
        sync.addr().clone().recipient(),
    );
    let ephemeral = sync.addr().clone().recipient();
    env.wake.for_proposals.set_ephemeral(ephemeral);
    let device_lists = Address::new(
        DeviceLists::new(env.clone()).start(),
        "device_lists",
        env.clone(),
    );
    let to_device_inbox = Address::new(
        ToDeviceInbox::new(env.clone()).start(),
        "to_device_inbox",
        env.clone(),
    );
    env.wake
        .set_inbox(to_device_inbox.addr().clone().recipient());
    let key_store = KeyStore::new(env.clone(), device_lists.addr().clone().recipient());
    let key_store = Address::new(key_store.start(), "key_store", env.clone());
    let accounts = Accounts::new(env.clone(), device_lists.addr().clone().recipient());
    let accounts = Address::new(accounts.start(), "accounts", env.clone());
    let rooms = Rooms::new(env.clone(), device_lists.addr().clone().recipient());
    let rooms = Address::new(rooms.start(), "rooms", env.clone());
    let proposals = Address::new(
        Proposals::new(env.clone()).start(),
        "proposals",
        env.clone(),
    );
    env.wake
        .for_proposals
        .set_timers(proposals.addr().clone().recipient());
    let transport = Transport::with_faults(env.request_faults.clone());
    let queries = AppserviceQueries::new(env.clone(), transport.clone());
    let appservice_queries = Address::new(queries.start(), "appservice_queries", env.clone());
    let key_proxy = KeyProxy::new(
        env.clone(),
        key_store.clone(),
        appservice_queries.clone(),
        parameters.key_proxies,
    );
    let key_proxy = Address::new(key_proxy.start(), "key_proxy", env.clone());
    let keeper = Appservices::new(
        env.clone(),
        parameters.appservices,
        transport,
        device_lists.addr().clone().recipient(),
        Some(Ephemeral::kept_by(sync.addr())),
    );
    let appservices = Address::new(keeper.start(), "appservices", env.clone());
    // Load the registrations first: a fact written before they are in force would be owed to no appservice. An invalid file
    // does not prevent the start; the last valid version of its registration stays in force.
    ask_as("start", &appservices, Reload).await?;
    Ok(Actors {
        env,
        accounts,
        key_store,
        key_proxy,
        key_proxies: parameters.key_proxies,
        rooms,
        device_lists,
        to_device_inbox,
        appservices,
        appservice_queries,
        sync,
        proposals,
        volatile,
    })
}

/// The key that signs events. It is created with the database, or derived from the seed in a seeded run. The same write records
/// the server's name, since a database belongs to one server.
async fn signing_key(parameters: &StartParameters) -> Result<Ed25519KeyPair> {
    let seed: [u8; 32] = parameters.ids.bytes("signing key");
    let name = parameters.settings.server_name.to_string();
    let known = parameters
        .store
        .read(|db| {
            Ok::<_, Error>((
                server_info::get(db, "name")?,
                server_info::get(db, "signing_key")?,
            ))
        })
        .await?;
    let encoded = match known {
        (Some(known), Some(key)) if known == name => key,
        (Some(known), _) => {
            return Err(Refusal::InvalidParam(
                format!("the database belongs to the server {known:?}, not {name:?}").into(),
            )
            .into());
        }
        (None, _) => {
            let key = STANDARD.encode(pkcs8(&seed));
            let stored = key.clone();
            let write = move |tx: &mut schema::Tx<'_>| {
                server_info::put(tx, "name", &name)?;
                server_info::put(tx, "signing_key", &stored)?;
                Ok::<_, Error>(())
            };
            parameters.store.write_always(write).await?;
            key
        }
    };
    let damaged = |e: &dyn std::fmt::Display| {
        Error::from(schema::Error::Damaged(format!("signing key: {e}")))
    };
    let der = STANDARD.decode(encoded).map_err(|e| damaged(&e))?;
    Ed25519KeyPair::from_der(&der, "1".into()).map_err(|e| damaged(&e))
}

/// An Ed25519 private key in PKCS#8 version 1: a fixed header and the seed. ([rfc])
///
/// [rfc]: https://www.rfc-editor.org/rfc/rfc8410#section-7
fn pkcs8(seed: &[u8; 32]) -> Vec<u8> {
    const HEAD: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    [&HEAD[..], seed].concat()
}
