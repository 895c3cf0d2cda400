//! What every actor is given: storage, time, identifiers, whom to wake, where to be seen.

use std::ops::Deref;
use std::sync::Arc;

use ruma::OwnedServerName;
use ruma::signatures::Ed25519KeyPair;
use schema::ServiceId;
use schema::Store;

use crate::dialects::Dialects;
use crate::runtime::faults::Faults;
use crate::runtime::known::Known;
use crate::runtime::trace::Trace;
use crate::runtime::wake::Wake;
use crate::services::Proposals;
use crate::wire::Hooks;
use crate::{Clock, Ids};

/// What the operator chose.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server's name: the part after the colon of its users' ids.
    pub server_name: OwnedServerName,
    /// Services that may see messages to users whom they merely observe; `None` lets each of them.
    pub observe: Option<Vec<ServiceId>>,
    /// Which proposals fill transactions.
    pub proposals: Proposals,
    /// Whether anybody may register; application services always may.
    pub open_registration: bool,
    /// Whether a user that syncs is online when its request does not say otherwise.
    pub presence: bool,
    /// What argon2 spends on a password: KiB of memory and passes.
    pub password_cost: (u32, u32),
    /// The room version of a room whose creator does not choose.
    pub default_room_version: String,
}

/// What every actor is given. Clones are cheap.
#[derive(Clone)]
pub struct Env(Arc<Inner>);

/// The parts of [`Env`], read through it.
pub struct Inner {
    /// The database.
    pub store: Store,
    /// Time.
    pub clock: Clock,
    /// Identifiers.
    pub ids: Ids,
    /// Tokens, users and devices that were looked up lately.
    pub known: Known,
    /// Who is to be woken.
    pub wake: Wake,
    /// Which names each service uses and was sent.
    pub dialects: Dialects,
    /// Where messages are recorded, and how much is under way.
    pub trace: Trace,
    /// What the operator chose.
    pub settings: Settings,
    /// What the enabled proposals do.
    pub hooks: Hooks,
    /// The key that signs events, kept in the database.
    pub signing_key: Ed25519KeyPair,
    /// Which faults a test injects.
    pub faults: Faults,
    /// Whether the server is being stopped.
    pub stopping: Stopping,
    /// Called when the process cannot keep its promises any more.
    pub fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Env {
    pub(crate) fn new(inner: Inner) -> Env {
        Env(Arc::new(inner))
    }
}

impl Deref for Env {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Says that the server is being stopped, to who waits for something else.
#[derive(Clone)]
pub struct Stopping(Arc<tokio::sync::watch::Sender<bool>>);

impl Default for Stopping {
    fn default() -> Self {
        Stopping(Arc::new(tokio::sync::watch::Sender::new(false)))
    }
}

impl Stopping {
    /// It is.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Resolves when it is.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut heard = self.0.subscribe();
        async move {
            // The sender lives as long as anybody who could wait.
            let _ = heard.wait_for(|stopping| *stopping).await;
        }
    }
}
