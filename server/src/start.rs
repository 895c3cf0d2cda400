//! What a server needs to start, and the start of its storage and actors.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actors::hooks::Hooks;
use actors::runtime::request_faults::RequestFaults;
use actors::runtime::trace::Trace;
use actors::start::StartParameters;
use actors::wire::Namings;
use actors::{Actors, Clock, Ids, Settings};
use schema::{Image, OpenError, Store};

use crate::figures::Figures;
use crate::http::door::Door;
use crate::mscs::{self, Msc};
use crate::state::Announced;

/// The database of which nothing is left when the server ends.
pub(crate) const IN_MEMORY: &str = ":memory:";

/// Everything that a server needs to start.
#[derive(Clone)]
pub struct Options {
    /// `sqlite:PATH`, `postgres://…` or `:memory:`.
    pub database: String,
    /// The folder of registration files, which is watched; `None` for no folder.
    pub appservices: Option<PathBuf>,
    /// Settings of the actors.
    pub settings: Settings,
    /// Code of the enabled proposals that the actors call.
    pub hooks: Hooks,
    /// The enabled proposals. [`Options::enable`] also sets what they change in `hooks` and `settings`.
    pub proposals: Vec<&'static Msc>,
    /// The source of time; tests and seeded servers use a manual one.
    pub clock: Clock,
    /// The source of identifiers and tokens.
    pub ids: Ids,
    /// How many bytes of messages between actors the trace keeps; 0 for none.
    pub trace: usize,
    /// Trusted proxies and limits.
    pub door: Door,
    /// Figures for operators.
    pub figures: Figures,
    /// The address of metrics and health, besides the server's own; `None` for none.
    pub metrics: Option<SocketAddr>,
    /// Whether the routes of a development server exist.
    pub dev: bool,
    /// How long to wait while another server holds the database.
    pub lock_wait: Duration,
    /// Which faults of the storage a test injects.
    pub faults: schema::faults::Faults,
    /// Which faults of the actors a test injects.
    pub actor_faults: actors::runtime::faults::DeliveryFaults,
    /// Called when the process must end, because it can no longer guarantee what it has answered.
    pub fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

/// Why a server did not start. Displays as one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database could not be opened.
    #[error("{0}")]
    Database(#[from] OpenError),
    /// The actors could not start: an invalid registration, or the database of another server.
    #[error("{0}")]
    Actors(#[from] actors::Error),
    /// The socket could not be used.
    #[error("{0}: {1}")]
    Listen(String, std::io::Error),
}

impl Options {
    /// Enable these proposals and no others. They write their names in these forms.
    pub fn enable(&mut self, proposals: Vec<&'static Msc>, namings: impl Into<Namings>) {
        (self.hooks, self.settings.proposals) = mscs::hooks(&proposals, &namings.into());
        self.proposals = proposals;
    }

    /// What the enabled proposals announce.
    pub(crate) fn announced(&self) -> Announced {
        let proposals = self.proposals.iter();
        Announced {
            flags: proposals
                .clone()
                .flat_map(|msc| msc.flags)
                .copied()
                .collect(),
            capabilities: proposals.flat_map(|msc| (msc.capabilities)()).collect(),
        }
    }

    /// Whether nothing is left of the database when the server ends.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.database == IN_MEMORY
    }

    /// Open the database and start the actors.
    pub(crate) async fn start_actors(&self) -> Result<Actors, StartError> {
        self.start_actors_over(None).await
    }

    /// The same, over this content of a database in memory.
    pub(crate) async fn start_actors_over(
        &self,
        image: Option<Image>,
    ) -> Result<Actors, StartError> {
        let store_options = schema::StoreOptions {
            fatal: Arc::clone(&self.fatal),
            lock_wait: self.lock_wait,
            faults: self.faults.clone(),
            image,
        };
        let store = Store::open(&self.database, &store_options)?;
        self.figures.watch(&store);
        let parameters = StartParameters {
            store,
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            trace: Trace::timed(self.trace, self.clock.clone()),
            settings: self.settings.clone(),
            hooks: self.hooks.clone(),
            key_proxies: mscs::key_proxies(&self.proposals),
            faults: self.actor_faults.clone(),
            request_faults: if self.dev {
                RequestFaults::addable()
            } else {
                RequestFaults::default()
            },
            appservices: self.appservices.clone(),
            fatal: Arc::clone(&self.fatal),
        };
        Ok(actors::start(parameters).await?)
    }
}
