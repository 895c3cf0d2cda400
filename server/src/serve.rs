//! Starts a server: storage, actors, HTTP. One process may run several; there are no globals.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App as HttpApp, HttpRequest, HttpServer, web};
use futures_util::future::LocalBoxFuture;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use crate::http::current::{Current, Unused};
use crate::http::limits::Limits;
use crate::http::router::Router;
use crate::operators::listen;
use crate::restore::Restorable;
use crate::routes;
use crate::state::{App, DatabaseOrder};

pub use crate::start::{Options, StartError};

/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(10);

/// How long the rest of an unwanted body is read and dropped, so that the client sees the answer.
const LINGER: Duration = Duration::from_secs(5);

/// A running server.
pub struct Running {
    /// The address at which the server listens.
    pub addr: SocketAddr,
    /// What the routes of the server reach at its start: actors and storage. If the database is in memory, a reset replaces it.
    pub app: App,
    /// The address at which it serves metrics and health, if it has one.
    pub metrics: Option<SocketAddr>,
    /// The limits on callers, and their current use.
    pub limits: Arc<Limits>,
    current: Current,
    actors: ActorsOf,
    handle: ServerHandle,
    operators: Option<ServerHandle>,
    ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

/// How the actors of a server run.
enum ActorsOf {
    /// On the thread of the server, until it ends.
    Server(#[expect(dead_code, reason = "requests are counted against it")] Unused),
    /// On a thread of their own, and with a database in memory that can be replaced.
    Restorable(mpsc::UnboundedSender<DatabaseOrder>),
}

impl Running {
    /// Answer the requests in flight, end the long-polls, close the database.
    pub async fn stop(self) {
        let used = self.current.get().await;
        used.app().actors.env.stopping.stop();
        if let Some(operators) = &self.operators {
            operators.stop(false).await;
        }
        self.handle.stop(true).await;
        // The task ends with the server and has no error to report.
        let _ = self.ended.await;
        match self.actors {
            ActorsOf::Server(_) => used.app().actors.stop().await,
            ActorsOf::Restorable(orders) => {
                drop(used);
                let (done, stopped) = oneshot::channel();
                // If orders are not taken any more, the actors have stopped.
                let _ = orders.send(DatabaseOrder::Stop(done));
                let _ = stopped.await;
            }
        }
    }

    /// Make the present state of a database in memory the one to which a reset returns. It is an empty database before.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn keep_for_reset(&self) -> Result<(), actors::Error> {
        let ActorsOf::Restorable(orders) = &self.actors else {
            return Ok(());
        };
        let (done, kept) = oneshot::channel();
        // If orders are not taken any more, there is no answer either.
        let _ = orders.send(DatabaseOrder::KeepFirst(done));
        kept.await.map_err(|_| schema::Error::Stopped)?
    }

    /// Stop like a killed process: requests in flight are not answered. The caller must drop the server's tasks.
    #[doc(hidden)]
    pub async fn kill(self) {
        if let Some(operators) = &self.operators {
            operators.stop(false).await;
        }
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
    let limits = Arc::new(Limits::new(&options.door, &options.clock));
    let (metrics, figures) = (
        options.metrics.map(bind).transpose()?,
        options.figures.clone(),
    );
    let current = Current::empty();
    let (dev, proposals) = (options.dev, options.proposals.clone());
    let door = Arc::new(options.door.clone());
    let actors = if options.dev && options.is_in_memory() {
        ActorsOf::Restorable(
            Restorable::start(options, current.clone(), Arc::clone(&limits)).await?,
        )
    } else {
        let app = App::new(
            options.start_actors().await?,
            dev,
            options.announced(),
            None,
            figures,
        );
        ActorsOf::Server(current.put(app))
    };
    let app = current.get().await.app().clone();
    let failed = |e| StartError::Listen("cannot listen".to_owned(), e);
    let addr = listener.local_addr().map_err(failed)?;

    let metrics_addr = metrics.as_ref().map(TcpListener::local_addr).transpose();
    let metrics_addr = metrics_addr.map_err(failed)?;
    let operators =
        metrics.map(|metrics| listen::start(metrics, current.clone(), Arc::clone(&limits)));
    let operators = operators.transpose().map_err(failed)?;

    let (shared, counted) = (current.clone(), Arc::clone(&limits));
    let server = HttpServer::new(move || {
        // Called once for each worker: handlers stay on its thread.
        let routes = routes::all(dev, &proposals);
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
        metrics: metrics_addr,
        app,
        limits,
        current,
        actors,
        handle,
        operators,
        ended,
    })
}
