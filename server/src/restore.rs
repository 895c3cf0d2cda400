//! A server whose database is in memory: keeps copies of the database, and puts one of them back within milliseconds.
//!
//! Actors hold state in memory: caches, compiled registrations, senders, long-polls. So nothing is changed under them. They run on
//! a thread of their own; to put a copy back, the actors and the storage are stopped, the thread ends with every task on it, and
//! actors are started on a new one over the copy, as after a restart of the process. The listener and its connections stay, and
//! requests that arrive meanwhile wait.
//!
//! Time, identifiers, positions and the ids of transactions go on growing, so that nothing of a discarded state is used again. A
//! transaction that was frozen in the copy is sent with its id and its bytes, as after a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_rt::Arbiter;
use actors::{Actors, Refusal};
use schema::{Image, Position};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::http::current::{Current, Unused};
use crate::http::limits::Limits;
use crate::start::{Options, StartError};
use crate::state::{App, DatabaseOrder};

/// How long requests in progress may take to end. Long-polls end at once.
const GRACE: Duration = Duration::from_secs(1);

/// The most bytes of copies. The oldest are dropped to make room for a new one.
const COPIES: usize = 256 << 20;

/// The actors of a server whose database is in memory, and copies of the database.
pub(crate) struct Restorable {
    options: Options,
    current: Current,
    limits: Arc<Limits>,
    orders: mpsc::UnboundedSender<DatabaseOrder>,
    run: Option<Run>,
    /// The copy that a reset puts back; `None` for an empty database.
    first: Option<Arc<[u8]>>,
    copies: BTreeMap<u64, Arc<[u8]>>,
    /// The number of copies so far.
    made: u64,
}

/// The actors over one database.
struct Run {
    thread: Arbiter,
    unused: Unused,
    /// Set when the actors are stopped on purpose: what fails from then on is no reason to end the process.
    is_over: Arc<AtomicBool>,
}

impl Restorable {
    /// Start the actors over an empty database, and take orders.
    pub(crate) async fn start(
        options: Options,
        current: Current,
        limits: Arc<Limits>,
    ) -> Result<mpsc::UnboundedSender<DatabaseOrder>, StartError> {
        let (orders, mut taken) = mpsc::unbounded_channel();
        let mut this = Restorable {
            options,
            current,
            limits,
            orders: orders.clone(),
            run: None,
            first: None,
            copies: BTreeMap::new(),
            made: 0,
        };
        this.begin(None).await?;
        actix_rt::spawn(async move {
            while let Some(order) = taken.recv().await {
                if !this.obey(order).await {
                    return;
                }
            }
        });
        Ok(orders)
    }

    /// Do what is ordered. Returns whether further orders are taken.
    async fn obey(&mut self, order: DatabaseOrder) -> bool {
        // A failed send means that the request has ended.
        match order {
            DatabaseOrder::KeepFirst(done) => {
                let copy = self.copy().await;
                let _ = done.send(copy.map(|copy| self.first = Some(copy)));
            }
            DatabaseOrder::Copy(done) => {
                let copy = self.copy().await;
                let _ = done.send(copy.map(|copy| self.keep(copy)));
            }
            DatabaseOrder::Restore(id, done) => {
                let copy = match id {
                    None => Some(self.first.clone()),
                    Some(id) => self.copies.get(&id).cloned().map(Some),
                };
                let Some(copy) = copy else {
                    let none = Refusal::NotFound("there is no such snapshot".into());
                    let _ = done.send(Err(none.into()));
                    return true;
                };
                let image = self.end().await;
                self.limits.forget();
                if id.is_none() {
                    // A manual clock stands still from the start, and goes on to.
                    self.options.clock.freeze(false);
                }
                let image = Image {
                    bytes: copy,
                    ..image
                };
                match self.begin(Some(image)).await {
                    Ok(()) => drop(done.send(Ok(()))),
                    Err(error) => (self.options.fatal)(&error.to_string()),
                }
            }
            DatabaseOrder::Stop(done) => {
                self.end().await;
                let _ = done.send(());
                return false;
            }
        }
        true
    }

    /// A copy of the database.
    async fn copy(&self) -> actors::Result<Arc<[u8]>> {
        let used = self.current.get().await;
        Ok(used.app().actors.env.store.image().await?.into())
    }

    /// Keep a copy, and drop the oldest if there are too many. Returns its number.
    fn keep(&mut self, copy: Arc<[u8]>) -> u64 {
        self.made += 1;
        self.copies.insert(self.made, copy);
        let mut bytes: usize = self.copies.values().map(|copy| copy.len()).sum();
        while bytes > COPIES
            && self.copies.len() > 1
            && let Some((_, oldest)) = self.copies.pop_first()
        {
            bytes -= oldest.len();
        }
        self.made
    }

    /// Start the actors on a new thread, and let requests reach them.
    async fn begin(&mut self, image: Option<Image>) -> Result<(), StartError> {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut options = self.options.clone();
        let (fatal, over) = (Arc::clone(&options.fatal), Arc::clone(&is_over));
        options.fatal = Arc::new(move |why| {
            if !over.load(Ordering::Acquire) {
                fatal(why);
            }
        });
        let thread = Arbiter::new();
        let (reply, started) = oneshot::channel();
        thread.spawn_fn(move || {
            actix_rt::spawn(async move {
                // A failed send means that the server is gone.
                let _ = reply.send(options.start_actors_over(image).await);
            });
        });
        let ended = |_| StartError::Actors(actors::Error::Failed("the thread of the actors"));
        let actors: Actors = started.await.map_err(ended)??;
        let announced = self.options.announced();
        let orders = Some(self.orders.clone());
        let figures = self.options.figures.clone();
        let app = App::new(actors, self.options.dev, announced, orders, figures);
        self.run = Some(Run {
            thread,
            unused: self.current.put(app),
            is_over,
        });
        Ok(())
    }

    /// Stop the actors and the storage, and end their thread. Returns what the next database must be beyond, without content.
    async fn end(&mut self) -> Image {
        let nothing = Image {
            bytes: None,
            above: Position::START,
        };
        let (Some(app), Some(mut run)) = (self.current.take(), self.run.take()) else {
            return nothing;
        };
        let env = &app.actors.env;
        env.stopping.stop();
        // What takes longer is answered 503 or cut.
        let _ = timeout(GRACE, run.unused.wait()).await;
        run.is_over.store(true, Ordering::Release);
        let last = env.store.read(schema::appservices::last_transaction).await;
        let above = env.store.head();
        app.actors.stop().await;
        let env = app.actors.env.clone();
        drop(app);
        run.thread.stop();
        // An error means that the thread has panicked, which its actors have reported.
        let _ = run.thread.join();
        // Ids of transactions are at least the time in microseconds.
        let beyond = last.unwrap_or_default() / 1_000 + 1 - env.clock.now();
        if let Ok(ms @ 1..) = u64::try_from(beyond) {
            env.clock.advance(Duration::from_millis(ms));
        }
        Image { above, ..nothing }
    }
}
