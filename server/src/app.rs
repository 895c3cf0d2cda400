//! A server that runs: storage, actors, HTTP. Several may run in one process; there are no globals.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App as HttpApp, HttpRequest, HttpServer, web};
use actors::key_store::Wanted;
use actors::start::Parts;
use actors::trace::Trace;
use actors::wire::Hooks;
use actors::{Actors, Clock, Ids, Settings};
use schema::{OpenError, Store};

use crate::caller::Caller;
use crate::error::Result;
use crate::key_proxy::{GivenKeys, KeyAnswers};
use crate::limits::{
    Attempts, Bodies, ClaimLimits, Cost, Limits, QuestionLimits, RateLimit, Reserved,
};
use crate::{address, routes};

/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(10);

/// How long the rest of a body that is not wanted is read and thrown away, so that its sender sees the answer.
const LINGER: Duration = Duration::from_secs(5);

/// The most requests that may be under way, long-polls that wait not counted. More are told to come back.
pub const DOOR: usize = 1024;

/// What a server is started with.
#[derive(Clone)]
pub struct Options {
    /// `sqlite:PATH` or `postgres://…`.
    pub database: String,
    /// The folder of registrations, watched; `None` for none.
    pub appservices: Option<PathBuf>,
    /// What the operator chose for the actors.
    pub settings: Settings,
    /// What the enabled proposals do.
    pub hooks: Hooks,
    /// The numbers of the enabled proposals.
    pub proposals: Vec<u16>,
    /// Time.
    pub clock: Clock,
    /// Identifiers.
    pub ids: Ids,
    /// How many bytes of messages between actors are kept to be looked at; 0 for none.
    pub trace: usize,
    /// How often a caller may ask; `None` for as often as it likes.
    pub rate_limit: Option<RateLimit>,
    /// How often each user may claim a key of each device; `None` for as often as it likes.
    pub claim_limit: Option<RateLimit>,
    /// Whose addresses are believed, and what else is limited.
    pub door: Door,
    /// Whether the routes of a development server are there.
    pub dev: bool,
    /// How long to wait for another server to let go of the database.
    pub lock_wait: Duration,
    /// Which faults of the storage a test injects.
    pub faults: schema::faults::Faults,
    /// Which faults of the actors a test injects.
    pub actor_faults: actors::faults::Faults,
    /// Called when the process cannot keep its promises any more.
    pub fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

/// Whose addresses are believed, and what callers may do besides asking. By default no proxy is trusted and nothing is limited.
#[derive(Debug, Clone, Default)]
pub struct Door {
    /// The proxies whose word about the client's address counts.
    pub trusted_proxies: Vec<address::Network>,
    /// How often a caller may read; `None` for as often as it likes.
    pub read_limit: Option<RateLimit>,
    /// How often each account may be logged in to with a wrong password; `None` for as often as anybody likes.
    pub login_limit: Option<RateLimit>,
    /// How often services are asked for each caller; `None` for as often as it likes.
    pub question_limit: Option<RateLimit>,
    /// Whether services are also asked for callers without a token.
    pub anonymous_questions: bool,
    /// The names under which a development server's own pages are reached, besides those of the loopback address.
    pub hosts: Vec<String>,
}

/// Why a server did not start. One line, for the person who started it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The database.
    #[error("{0}")]
    Database(#[from] OpenError),
    /// The actors: a bad registration, a database of another server.
    #[error("{0}")]
    Actors(#[from] actors::Error),
    /// The socket.
    #[error("{0}: {1}")]
    Listen(String, std::io::Error),
}

struct Inner {
    actors: Actors,
    requests: AtomicU64,
    inside: AtomicUsize,
    limits: Limits,
    claim_limits: Option<ClaimLimits>,
    question_limits: Option<QuestionLimits>,
    attempts: Option<Attempts>,
    bodies: Bodies,
    door: Door,
    dev: bool,
    proposals: Vec<u16>,
    key_answers: KeyAnswers,
    given_keys: GivenKeys,
}

/// What every route is given. Clones are cheap.
#[derive(Clone)]
pub struct App {
    /// Whom to ask.
    pub actors: Actors,
    inner: Arc<Inner>,
}

/// A request's place at the door; free again when dropped.
pub struct Place(Arc<Inner>, bool);

impl Drop for Place {
    fn drop(&mut self) {
        if self.1 {
            self.0.inside.fetch_sub(1, Ordering::AcqRel);
        } else {
            self.0.inside.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl App {
    fn new(actors: Actors, options: &Options) -> App {
        let (clock, door) = (&actors.env.clock, options.door.clone());
        let inner = Inner {
            actors: actors.clone(),
            requests: AtomicU64::new(0),
            inside: AtomicUsize::new(0),
            limits: Limits::new(door.read_limit, options.rate_limit, clock),
            claim_limits: options
                .claim_limit
                .map(|limit| ClaimLimits::new(limit, clock.clone())),
            question_limits: door
                .question_limit
                .map(|limit| QuestionLimits::new(limit, clock.clone())),
            attempts: door.login_limit.map(|limit| Attempts::new(limit, clock)),
            bodies: Bodies::default(),
            door,
            dev: options.dev,
            proposals: options.proposals.clone(),
            key_answers: KeyAnswers::default(),
            given_keys: GivenKeys::default(),
        };
        App {
            actors,
            inner: Arc::new(inner),
        }
    }

    /// Come in, if there is room.
    #[must_use]
    pub fn enter(&self) -> Option<Place> {
        let place = Place(Arc::clone(&self.inner), true);
        (self.inner.inside.fetch_add(1, Ordering::AcqRel) < DOOR).then_some(place)
    }

    /// Wait outside: a long-poll that waits takes nobody's place.
    #[must_use]
    pub fn wait_outside(&self) -> Place {
        self.inner.inside.fetch_sub(1, Ordering::AcqRel);
        Place(Arc::clone(&self.inner), false)
    }

    /// The name under which a request's messages are recorded.
    pub(crate) fn next_request(&self, method: &str, template: &str) -> Arc<str> {
        let number = self.inner.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if self.inner.dev {
            format!("{number} {method} {template}").into()
        } else {
            Arc::from("")
        }
    }

    /// Whether the caller has asked too often.
    ///
    /// # Errors
    /// 429 with how long to wait.
    pub(crate) fn limit(&self, caller: &Caller, cost: Cost) -> Result<()> {
        self.inner.limits.check(caller, cost)
    }

    /// How many of so many questions services may be asked for this caller.
    ///
    /// # Errors
    /// 429 where it is none of them.
    pub(crate) fn limit_questions(&self, caller: &Caller, questions: usize) -> Result<usize> {
        match &self.inner.question_limits {
            _ if caller.is_anonymous() && !self.inner.door.anonymous_questions => Ok(0),
            Some(limits) => limits.allow(caller, questions),
            None => Ok(questions),
        }
    }

    /// Try a password for this account, unless too many wrong ones were tried.
    ///
    /// # Errors
    /// 429 with how long to wait; those of the try.
    pub(crate) async fn try_password<T>(
        &self,
        account: &str,
        caller: &Caller,
        attempt: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match &self.inner.attempts {
            Some(attempts) => attempts.password(account, caller.address(), attempt).await,
            None => attempt.await,
        }
    }

    /// Whether a token may be tried from this address.
    ///
    /// # Errors
    /// 429 with how long to wait.
    pub(crate) fn may_try_token(&self, address: &str, token: &str) -> Result<()> {
        match &self.inner.attempts {
            Some(attempts) => attempts.may_try_token(address, token),
            None => Ok(()),
        }
    }

    /// Count what came of a token.
    pub(crate) fn tried_token<T>(&self, address: &str, token: &str, found: &Result<T>) {
        let Some(attempts) = &self.inner.attempts else {
            return;
        };
        match found {
            Ok(_) => attempts.right_token(address, token),
            Err(error) if error.is_unknown_token() => attempts.wrong_token(address),
            Err(_) => {}
        }
    }

    /// Room for the body of a request, of which nothing has arrived.
    pub(crate) fn reserve_body(&self, caller: &Caller) -> Reserved {
        let payer = match caller.identity() {
            Ok(identity) => identity.user.to_string(),
            Err(_) => caller.address().to_owned(),
        };
        self.inner.bodies.begin(payer, caller.is_anonymous())
    }

    /// Whose addresses are believed, and under which names the server's own pages are reached.
    pub(crate) fn door(&self) -> &Door {
        &self.inner.door
    }

    /// The part of what is wanted that the caller may claim now.
    ///
    /// # Errors
    /// 429 with how long to wait, when it may claim nothing of it.
    pub(crate) fn limit_claims(&self, caller: &Caller, wanted: Wanted) -> Result<Wanted> {
        match &self.inner.claim_limits {
            Some(limits) => limits.allow(caller, wanted),
            None => Ok(wanted),
        }
    }

    /// Whether this is a development server.
    #[must_use]
    pub fn is_dev(&self) -> bool {
        self.inner.dev
    }

    /// The numbers of the enabled proposals.
    #[must_use]
    pub fn proposals(&self) -> &[u16] {
        &self.inner.proposals
    }

    /// What services said lately about the keys of their users.
    pub(crate) fn key_answers(&self) -> &KeyAnswers {
        &self.inner.key_answers
    }

    /// Which one-time keys of services were given out lately.
    pub(crate) fn given_keys(&self) -> &GivenKeys {
        &self.inner.given_keys
    }

    #[doc(hidden)]
    #[must_use]
    pub fn bodies_under_way(&self) -> usize {
        self.inner.bodies.bytes()
    }

    #[doc(hidden)]
    #[must_use]
    pub fn inside(&self) -> usize {
        let _ = &self.inner.actors;
        self.inner.inside.load(Ordering::Acquire)
    }
}

/// A server that runs.
pub struct Running {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What its routes are given: its actors, its storage.
    pub app: App,
    handle: ServerHandle,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Running {
    /// Answer what is in flight, end the long-polls, let go of everything.
    pub async fn stop(self) {
        self.app.actors.env.stopping.stop();
        self.handle.stop(true).await;
        // The server's own task ends with it; what it returns was said already.
        let _ = self.ended.await;
        self.app.actors.stop().await;
    }

    /// Stop as a process that is killed: what is in flight is not answered. The server's tasks are the caller's to drop.
    #[doc(hidden)]
    pub async fn kill(self) {
        self.handle.stop(false).await;
        self.app.actors.env.store.close();
    }

    /// Run until the process is told to end by SIGTERM or Ctrl-C, then stop as [`Running::stop`] does.
    ///
    /// # Errors
    /// When signals cannot be heard.
    pub async fn until_signal(mut self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut term, mut int) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            // It ends by itself only when it cannot go on.
            ended = &mut self.ended => {
                ended.map_err(std::io::Error::other)??;
                return Err(std::io::Error::other("the HTTP server has ended"));
            }
        }
        self.stop().await;
        Ok(())
    }
}

/// Bind, before anything else is done: a port in use is the most usual mistake.
///
/// # Errors
/// When the address cannot be listened on.
pub fn bind(listen: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(listen)
        .map_err(|e| StartError::Listen(format!("cannot listen on {listen}"), e))
}

/// Start a server on a listener that is bound already, on the current arbiter.
///
/// # Errors
/// When the database cannot be opened, a registration is bad, or the socket fails.
pub async fn serve(listener: TcpListener, options: Options) -> Result<Running, StartError> {
    let store_options = schema::Options {
        fatal: Arc::clone(&options.fatal),
        lock_wait: options.lock_wait,
        faults: options.faults.clone(),
    };
    let store = Store::open(&options.database, &store_options)?;
    let parts = Parts {
        store,
        clock: options.clock.clone(),
        ids: options.ids.clone(),
        trace: Trace::new(options.trace),
        settings: options.settings.clone(),
        hooks: options.hooks.clone(),
        faults: options.actor_faults.clone(),
        appservices: options.appservices.clone(),
        fatal: Arc::clone(&options.fatal),
    };
    let actors = actors::start(parts).await?;
    let app = App::new(actors, &options);
    let failed = |e| StartError::Listen("cannot listen".to_owned(), e);
    let addr = listener.local_addr().map_err(failed)?;

    let shared = app.clone();
    let server = HttpServer::new(move || {
        // Once for each worker: handlers stay on its thread.
        let router = routes::all(shared.is_dev(), shared.proposals()).router();
        let app = shared.clone();
        HttpApp::new().default_service(web::to(move |http: HttpRequest, body: web::Payload| {
            let (router, app) = (router.clone(), app.clone());
            async move { router.serve(app, http, body).await }
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
        handle,
        ended,
    })
}
