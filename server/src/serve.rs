//! Starts a server: storage, actors, HTTP. One process may run several; there are no globals.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App as HttpApp, HttpRequest, HttpServer, web};
use actors::hooks::Hooks;
use actors::runtime::trace::Trace;
use actors::start::StartParameters;
use actors::wire::Naming;
use actors::{Actors, Clock, Ids, Settings};
use futures_util::future::LocalBoxFuture;
use schema::{OpenError, Store};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use crate::http::door::Door;
use crate::http::limits::Limits;
use crate::http::router::Router;
use crate::mscs::{self, Msc};
use crate::routes;
use crate::state::{Announced, App};

/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(10);

/// How long the rest of an unwanted body is read and dropped, so that the client sees the answer.
const LINGER: Duration = Duration::from_secs(5);

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
    pub fn enable(&mut self, proposals: Vec<&'static Msc>, naming: Naming) {
        (self.hooks, self.settings.proposals) = mscs::hooks(&proposals, naming);
        self.proposals = proposals;
    }

    /// Open the database and start the actors.
    pub(crate) async fn start_actors(&self) -> Result<Actors, StartError> {
        let store_options = schema::StoreOptions {
            fatal: Arc::clone(&self.fatal),
            lock_wait: self.lock_wait,
            faults: self.faults.clone(),
            image: None,
        };
        let parameters = StartParameters {
            store: Store::open(&self.database, &store_options)?,
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            trace: Trace::new(self.trace),
            settings: self.settings.clone(),
            hooks: self.hooks.clone(),
            key_proxies: mscs::key_proxies(&self.proposals),
            faults: self.actor_faults.clone(),
            appservices: self.appservices.clone(),
            fatal: Arc::clone(&self.fatal),
        };
        Ok(actors::start(parameters).await?)
    }
}

/// A running server.
pub struct Running {
    /// The address at which the server listens.
    pub addr: SocketAddr,
    /// What the routes of the server can reach: actors and storage.
    pub app: App,
    /// The limits on callers, and their current use.
    pub limits: Arc<Limits>,
    handle: ServerHandle,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Running {
    /// Answer the requests in flight, end the long-polls, close the database.
    pub async fn stop(self) {
        self.app.actors.env.stopping.stop();
        self.handle.stop(true).await;
        // The task ends with the server and has no error to report.
        let _ = self.ended.await;
        self.app.actors.stop().await;
    }

    /// Stop like a killed process: requests in flight are not answered. The caller must drop the server's tasks.
    #[doc(hidden)]
    pub async fn kill(self) {
        self.handle.stop(false).await;
        self.app.actors.env.store.close();
    }

    /// Run until one of `signals` arrives, then stop as [`Running::stop`] does.
    ///
    /// # Errors
    /// When the HTTP server has ended by itself.
    pub async fn until_signal(mut self, mut signals: Signals) -> std::io::Result<()> {
        tokio::select! {
            _ = signals.terminate.recv() => {}
            _ = signals.interrupt.recv() => {}
            () = signals.end_of_input => {}
            // The HTTP server ends by itself only on an error.
            ended = &mut self.ended => {
                ended.map_err(std::io::Error::other)??;
                return Err(std::io::Error::other("the HTTP server has ended"));
            }
        }
        self.stop().await;
        Ok(())
    }
}

/// The handlers of SIGTERM and SIGINT (Ctrl-C). Until they are installed, either signal kills the process without a clean stop; a
/// signal that arrives afterwards is kept until [`Running::until_signal`] looks at it.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    end_of_input: LocalBoxFuture<'static, ()>,
}

impl Signals {
    /// Install the handlers. Call this before anything announces that the server is ready.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn install() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            end_of_input: Box::pin(std::future::pending()),
        })
    }

    /// Stop at the end of standard input too, to which the parent process holds a pipe. The system closes the pipe when the parent
    /// ends, however it ends. On Linux a process can instead ask for a signal at its parent's death; but that is the death of the
    /// thread that started it, and is missed if it comes before the request.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn and_end_of_input(mut self) -> std::io::Result<Signals> {
        let (ended, end) = oneshot::channel();
        let read = move || {
            // An error ends the input too.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            // The server may have stopped already.
            let _ = ended.send(());
        };
        let thread = std::thread::Builder::new().name("input".to_owned());
        thread.spawn(read)?;
        self.end_of_input = Box::pin(async move {
            let _ = end.await;
            tracing::info!("standard input has ended");
        });
        Ok(self)
    }
}

/// Bind the address. Do this first: a port in use is the most common mistake.
pub fn bind(listen: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(listen)
        .map_err(|e| StartError::Listen(format!("cannot listen on {listen}"), e))
}

/// Start a server on a bound listener, on the current arbiter.
pub async fn serve(listener: TcpListener, options: Options) -> Result<Running, StartError> {
    let actors = options.start_actors().await?;
    let limits = Arc::new(Limits::new(&options.door, &actors.env.clock));
    let proposals = options.proposals;
    let announced = Announced {
        flags: proposals
            .iter()
            .flat_map(|msc| msc.flags)
            .copied()
            .collect(),
        capabilities: proposals
            .iter()
            .flat_map(|msc| (msc.capabilities)())
            .collect(),
    };
    let app = App::new(actors, options.dev, announced);
    let failed = |e| StartError::Listen("cannot listen".to_owned(), e);
    let addr = listener.local_addr().map_err(failed)?;

    let door = Arc::new(options.door);
    let (shared, counted) = (app.clone(), Arc::clone(&limits));
    let server = HttpServer::new(move || {
        // Called once for each worker: handlers stay on its thread.
        let routes = routes::all(shared.is_dev(), &proposals);
        let (door, limits) = (Arc::clone(&door), Arc::clone(&counted));
        let router = Router::new(routes, shared.clone(), door, limits);
        HttpApp::new().default_service(web::to(move |http: HttpRequest, body: web::Payload| {
            let router = router.clone();
            async move { router.serve(http, body).await }
        }))
    })
    .workers(1)
    .max_connections(16_384)
    .keep_alive(Duration::from_secs(75))
    .client_request_timeout(HEAD)
    .client_disconnect_timeout(LINGER)
    .shutdown_timeout(10)
    .disable_signals();
    let server = server.listen(listener).map_err(failed)?.run();
    let handle = server.handle();
    let ended = actix_rt::spawn(server);
    Ok(Running {
        addr,
        app,
        limits,
        handle,
        ended,
    })
}
