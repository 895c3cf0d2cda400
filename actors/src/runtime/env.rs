//! The environment that every actor receives: storage, time, identifiers, wake-ups, the trace.

use std::ops::Deref;
use std::sync::{Arc, Weak};

use ruma::OwnedServerName;
use ruma::signatures::Ed25519KeyPair;
use schema::ServiceId;
use schema::Store;

use crate::dialects::Dialects;
use crate::hooks::Hooks;
use crate::runtime::faults::DeliveryFaults;
use crate::runtime::history::History;
use crate::runtime::identity::Identity;
use crate::runtime::identity_cache::IdentityCache;
use crate::runtime::meter::Meter;
use crate::runtime::performance::Performance;
use crate::runtime::request_faults::RequestFaults;
use crate::runtime::trace::Trace;
use crate::runtime::wake::Wake;
use crate::services::Proposals;
use crate::{Clock, Ids};

/// The operator's configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server name: the part of user ids after the colon.
    pub server_name: OwnedServerName,
    /// Appservices that may receive messages to users in their non-exclusive namespaces; `None` allows all.
    pub observe: Option<Vec<ServiceId>>,
    /// The enabled proposals that add to transactions.
    pub proposals: Proposals,
    /// Whether anyone may register. Appservices always may.
    pub open_registration: bool,
    /// Whether a `/sync` request without `set_presence` makes its user online.
    pub presence: bool,
    /// The cost of the argon2 password hash: KiB of memory, and passes.
    pub password_cost: (u32, u32),
    /// The version of a new room whose creator does not choose one.
    pub default_room_version: String,
}

/// The environment that every actor receives. Clones are cheap.
#[derive(Clone)]
pub struct Env(Arc<Inner>);

/// The fields of [`Env`], which dereferences to this.
pub struct Inner {
    /// The database.
    pub store: Store,
    /// The source of time.
    pub clock: Clock,
    /// The source of identifiers.
    pub ids: Ids,
    /// A cache of tokens, users and devices.
    pub identities: IdentityCache,
    /// The wake-ups of senders and of waiting `/sync` requests.
    pub wake: Wake,
    /// The names that each appservice uses and receives.
    pub dialects: Dialects,
    /// The record of messages, and the count of work under way.
    pub trace: Trace,
    /// What a development server remembers of its writes.
    pub history: History,
    /// How the actors of a development server keep up.
    pub performance: Performance,
    /// Counts for operators.
    pub meter: Meter,
    /// The operator's configuration.
    pub settings: Settings,
    /// The hooks of the enabled proposals.
    pub hooks: Hooks,
    /// The key that signs events. It is stored in the database.
    pub signing_key: Ed25519KeyPair,
    /// The faults that a test injects.
    pub faults: DeliveryFaults,
    /// The faults of requests to appservices that a developer injects.
    pub request_faults: RequestFaults,
    /// The signal that the server is shutting down.
    pub stopping: Stopping,
    /// Called with a reason when the process must end because it can no longer keep its guarantees.
    pub fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Env {
    pub(crate) fn new(inner: Inner) -> Env {
        Env(Arc::new(inner))
    }

    /// Whether the caller is an appservice that manages devices and cross-signing keys without logging in and confirming.
    pub(crate) fn manages_devices(&self, who: &Identity) -> bool {
        who.appservice.is_some() && self.settings.proposals.manages_devices
    }

    /// A handle that does not keep the environment alive.
    pub(crate) fn downgrade(&self) -> WeakEnv {
        WeakEnv(Arc::downgrade(&self.0))
    }
}

/// A handle to the environment that does not keep it alive.
#[derive(Clone)]
pub(crate) struct WeakEnv(Weak<Inner>);

impl WeakEnv {
    /// The environment, if it still exists.
    pub(crate) fn upgrade(&self) -> Option<Env> {
        self.0.upgrade().map(Env)
    }
}

impl Deref for Env {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// A signal that the server is shutting down, for tasks that wait for something else.
#[derive(Clone)]
pub struct Stopping(Arc<tokio::sync::watch::Sender<bool>>);

impl Default for Stopping {
    fn default() -> Self {
        Stopping(Arc::new(tokio::sync::watch::Sender::new(false)))
    }
}

impl Stopping {
    /// Send the signal.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Whether the signal was sent.
    pub fn is_stopping(&self) -> bool {
        *self.0.borrow()
    }

    /// A future that resolves when the server is shutting down.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut signal = self.0.subscribe();
        async move {
            // An error means that the environment is gone, so the server has stopped.
            let _ = signal.wait_for(|stopping| *stopping).await;
        }
    }
}
