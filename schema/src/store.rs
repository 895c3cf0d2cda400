//! The door to the database: [`Store::write`], [`Store::read`], and how it is opened.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::conn::Url;
use crate::error::{Error, OpenError, Result, WriteError};
use crate::interests::Interests;
use crate::tables::counter;
use crate::writer::{self, Job, Shared, Tx};
use crate::{Conn, Position};

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// The most writes of requests that may wait. Beyond it a request is told to come back later: memory does not grow.
pub const QUEUE: usize = 2048;

/// How many threads read.
const READERS: usize = 2;

/// How long to wait for a server that is just stopping to let go of the database.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// What a store is told when it is opened.
#[derive(Clone)]
pub struct Options {
    /// Called once, from a storage thread, when nothing can be promised any more. The process should end.
    pub fatal: Arc<dyn Fn(&str) + Send + Sync>,
    /// How long to wait for another server to let go of the database.
    pub lock_wait: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            fatal: Arc::new(|why| {
                tracing::error!(why, "storage has failed; the process ends");
                std::process::exit(1);
            }),
            lock_wait: LOCK_WAIT,
        }
    }
}

type Read = Box<dyn FnOnce(&mut Conn) + Send>;

/// A handle to the database; clones share the one writer and the readers.
#[derive(Clone)]
pub struct Store {
    queue: UnboundedSender<Option<Job>>,
    reads: std::sync::mpsc::Sender<Option<Read>>,
    shared: Shared,
    threads: Arc<Mutex<Vec<std::thread::JoinHandle<()>>>>,
    engine: &'static str,
    lock: Arc<Mutex<Option<File>>>,
}

impl Store {
    /// Open `sqlite:PATH` or `postgres://…`, bring its tables up to date, start the writer and the readers.
    ///
    /// # Errors
    /// When the URL is none of these, the database cannot be reached, was written by a newer version, or is in use.
    pub fn open(url: &str, options: &Options) -> Result<Store, OpenError> {
        let url = Url::parse(url)?;
        let lock = lock_file(&url, options.lock_wait)?;
        let mut conn = url.connect()?;
        advisory_lock(&mut conn, &url, options.lock_wait)?;
        migrate(&mut conn, &url)?;
        let start = |e: diesel::result::Error| OpenError::Start(url.shown(), e.into());
        let head: i64 = on!(&mut conn, |c| counter::table
            .find(1)
            .select(counter::position)
            .first(c))
        .map_err(start)?;

        let shared = Shared {
            waiting: Arc::new(AtomicUsize::new(0)),
            interests: Arc::new(RwLock::new(Arc::new(Interests::default()))),
            head: Arc::new(AtomicI64::new(head)),
        };
        let (queue, jobs) = unbounded_channel();
        let engine = if conn.is_postgres() {
            "postgres"
        } else {
            "sqlite"
        };
        let mut threads = vec![spawn("writer", &url, {
            let (shared, fatal) = (shared.clone(), Arc::clone(&options.fatal));
            move || {
                if let Err(why) = writer::run(conn, jobs, &shared) {
                    fatal(&why);
                }
            }
        })?];

        let (reads, waiting) = std::sync::mpsc::channel::<Option<Read>>();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..READERS {
            let (mut conn, waiting) = (url.connect()?, Arc::clone(&waiting));
            threads.push(spawn("reader", &url, move || {
                loop {
                    let next = waiting.lock().ok().and_then(|queue| queue.recv().ok());
                    let Some(Some(read)) = next else { return };
                    read(&mut conn);
                }
            })?);
        }
        Ok(Store {
            queue,
            reads,
            shared,
            threads: Arc::new(Mutex::new(threads)),
            engine,
            lock: Arc::new(Mutex::new(lock)),
        })
    }

    /// Which engine this is: `sqlite` or `postgres`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        self.engine
    }

    /// Change something for a request. The closure is queued before this returns, so the order of calls is the order of writes;
    /// the future answers when the change is on the disk, or with the error that undid it.
    ///
    /// # Errors
    /// [`Error::Busy`] when more than [`QUEUE`] writes wait; whatever the closure answers; [`Error::RolledBack`] when its batch failed.
    pub fn write<T, E, F>(&self, write: F) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: WriteError,
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let full = self.shared.waiting.load(Ordering::Acquire) >= QUEUE;
        let queued = if full {
            Err(Error::Busy)
        } else {
            self.enqueue(write, false)
        };
        answer(queued)
    }

    /// Change something that no request waits for: like [`Store::write`], and never refused.
    pub fn write_always<T, E, F>(
        &self,
        write: F,
    ) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: WriteError,
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        answer(self.enqueue(write, false))
    }

    /// Change something in a batch of its own: everything queued before is committed first, everything after sees its result.
    /// For changes of the registrations, which swap the interests.
    pub fn write_alone<T, E, F>(
        &self,
        write: F,
    ) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: WriteError,
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        answer(self.enqueue(write, true))
    }

    fn enqueue<T, E, F>(&self, write: F, alone: bool) -> Result<oneshot::Receiver<Result<T, E>>>
    where
        T: Send + 'static,
        E: WriteError,
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let (job, answer) = writer::job(write, alone);
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        if self.queue.send(Some(job)).is_err() {
            self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(Error::Stopped);
        }
        Ok(answer)
    }

    /// Look something up, in one snapshot, without waiting for the writer. Sees every write that has been answered.
    ///
    /// # Errors
    /// Whatever the closure answers; [`Error::Stopped`] when the readers are gone.
    pub fn read<T, E, F>(&self, read: F) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |conn| {
            let outcome =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| snapshot(conn, read)));
            let _ = reply.send(
                outcome.unwrap_or_else(|_| Err(E::from(Error::Panicked("a read".to_owned())))),
            );
        });
        let sent = self.reads.send(Some(read));
        async move {
            match sent {
                Ok(()) => answer
                    .await
                    .unwrap_or_else(|_| Err(E::from(Error::Stopped))),
                Err(_) => Err(E::from(Error::Stopped)),
            }
        }
    }

    /// The last position that is committed.
    #[must_use]
    pub fn head(&self) -> Position {
        Position(self.shared.head.load(Ordering::Acquire))
    }

    /// Who is interested in whom, as last committed.
    #[must_use]
    pub fn interests(&self) -> Arc<Interests> {
        self.shared
            .interests
            .read()
            .map(|i| Arc::clone(&i))
            .unwrap_or_default()
    }

    /// How many writes wait or run.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// Finish what is queued, end the threads, and let go of the database, whoever still has a handle: from then on they are
    /// told [`Error::Stopped`].
    pub fn close(&self) {
        // A thread that has ended already needs no telling.
        let _ = self.queue.send(None);
        for _ in 0..READERS {
            let _ = self.reads.send(None);
        }
        let threads = self
            .threads
            .lock()
            .map(|mut t| std::mem::take(&mut *t))
            .unwrap_or_default();
        for thread in threads {
            let _ = thread.join();
        }
        if let Ok(mut lock) = self.lock.lock() {
            *lock = None;
        }
    }
}

/// Wait for what was queued, if it was.
async fn answer<T, E>(queued: Result<oneshot::Receiver<Result<T, E>>>) -> Result<T, E>
where
    T: Send + 'static,
    E: WriteError,
{
    let rolled_back = |_| Err(E::from(Error::RolledBack("its batch failed".to_owned())));
    queued.map_err(E::from)?.await.unwrap_or_else(rolled_back)
}

/// Run a read in a snapshot of its own: what it sees belongs together.
fn snapshot<T, E: From<Error>>(
    conn: &mut Conn,
    read: impl FnOnce(&mut Conn) -> Result<T, E>,
) -> Result<T, E> {
    let begin = match conn {
        Conn::Sqlite(_) => "BEGIN DEFERRED",
        Conn::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    };
    conn.execute(begin).map_err(Error::from)?;
    // The snapshot must end whatever the closure does, a panic included.
    struct End<'a>(&'a mut Conn);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            let _ = self.0.execute("ROLLBACK");
        }
    }
    let end = End(conn);
    read(&mut *end.0)
}

fn spawn(
    name: &str,
    url: &Url,
    body: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, OpenError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|e| OpenError::Connect(url.shown(), format!("cannot start a thread: {e}")))
}

/// SQLite: a lock file beside the database, held as long as the store lives.
fn lock_file(url: &Url, wait: Duration) -> Result<Option<File>, OpenError> {
    let Url::Sqlite(path) = url else {
        return Ok(None);
    };
    let failed = |e: std::io::Error| OpenError::Connect(url.shown(), e.to_string());
    if let Some(folder) = Path::new(path)
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
    {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(format!("{path}.lock"))
        .map_err(failed)?;
    wait_for(wait, || match file.try_lock() {
        Ok(()) => Ok(true),
        Err(std::fs::TryLockError::WouldBlock) => Ok(false),
        Err(std::fs::TryLockError::Error(e)) => Err(failed(e)),
    })?
    .then_some(Some(file))
    .ok_or_else(|| OpenError::InUse(url.shown()))
}

/// PostgreSQL: an advisory lock in the writer's session.
fn advisory_lock(conn: &mut Conn, url: &Url, wait: Duration) -> Result<(), OpenError> {
    let Conn::Postgres(c) = conn else {
        return Ok(());
    };
    let locked = wait_for(wait, || {
        diesel::select(diesel::dsl::sql::<diesel::sql_types::Bool>(
            "pg_try_advisory_lock(7236451)",
        ))
        .get_result::<bool>(c)
        .map_err(|e| OpenError::Connect(url.shown(), e.to_string()))
    })?;
    locked
        .then_some(())
        .ok_or_else(|| OpenError::InUse(url.shown()))
}

/// Try until it works or the time is over. Only at start, before there is a clock to ask.
fn wait_for(
    wait: Duration,
    mut attempt: impl FnMut() -> Result<bool, OpenError>,
) -> Result<bool, OpenError> {
    let start = Instant::now();
    loop {
        if attempt()? {
            return Ok(true);
        }
        if start.elapsed() >= wait {
            return Ok(false);
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn migrate(conn: &mut Conn, url: &Url) -> Result<(), OpenError> {
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
        OpenError::Migrate(url.shown(), e.to_string())
    };
    let known = known_migrations();
    // An existing database that has everything costs one query, not a transaction.
    let applied: Vec<String> = on!(conn, |c| c
        .applied_migrations()
        .map(|v| v.iter().map(ToString::to_string).collect()))
    .map_err(failed)?;
    if let Some(newer) = applied.iter().find(|version| !known.contains(version)) {
        return Err(OpenError::Newer(url.shown(), newer.clone()));
    }
    if applied.len() == known.len() {
        return Ok(());
    }
    match conn {
        Conn::Sqlite(c) => c.run_pending_migrations(SQLITE).map(drop).map_err(failed),
        Conn::Postgres(c) => c.run_pending_migrations(POSTGRES).map(drop).map_err(failed),
    }
}

fn known_migrations() -> Vec<String> {
    use diesel::migration::{Migration, MigrationSource};
    let all: Vec<Box<dyn Migration<diesel::sqlite::Sqlite>>> =
        MigrationSource::<diesel::sqlite::Sqlite>::migrations(&SQLITE).unwrap_or_default();
    all.iter().map(|m| m.name().version().to_string()).collect()
}
