//! The door to the database: [`Store::write`], [`Store::read`], and how it is opened.

use std::collections::BTreeSet;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::conn::{Engine, Url};
use crate::error::{Error, OpenError, Result, WriteError};
use crate::faults::Faults;
use crate::interests::Interests;
use crate::job::Job;
use crate::readers::{READERS, Read, Reader};
use crate::registration::ServiceId;
use crate::shared::Shared;
use crate::tables::counter;
use crate::writer::{Stop, Writer};
use crate::{Conn, Position, Tx};

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// The most writes of requests that may wait. Beyond it a request is told to come back later: memory does not grow.
pub const QUEUE: usize = 2048;

/// How long to wait for a server that is just stopping to let go of the database.
const LOCK_WAIT: Duration = Duration::from_secs(10);

type Fatal = dyn Fn(&str) + Send + Sync;

/// What a store is told when it is opened.
#[derive(Clone)]
pub struct Options {
    /// Called once, from a storage thread, when nothing can be promised any more. The process should end.
    pub fatal: Arc<Fatal>,
    /// How long to wait for another server to let go of the database.
    pub lock_wait: Duration,
    /// Which faults a test injects.
    pub faults: Faults,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            fatal: Arc::new(|why| {
                tracing::error!(why, "storage has failed; the process ends");
                std::process::exit(1);
            }),
            lock_wait: LOCK_WAIT,
            faults: Faults::default(),
        }
    }
}

/// A handle to the database; clones share the one writer and the readers.
#[derive(Clone)]
pub struct Store {
    queue: UnboundedSender<Option<Job>>,
    shared: Shared,
    threads: Arc<Threads>,
    engine: &'static str,
}

/// The storage's threads. They end when the last handle is dropped.
struct Threads {
    running: Mutex<Vec<std::thread::JoinHandle<()>>>,
    shared: Shared,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.reads.close();
    }
}

impl Store {
    /// Open `sqlite:PATH` or `postgres://…`, bring its tables up to date, start the writer and the readers.
    ///
    /// # Errors
    /// When the URL is none of these, the database cannot be reached, was written by a newer version, or is in use.
    pub fn open(url: &str, options: &Options) -> Result<Store, OpenError> {
        let url = Url::parse(url)?;
        Store::open_at(&url, options).map_err(|error| {
            if has_room(&url) {
                error
            } else {
                OpenError::NoRoom(url.shown(), error.to_string())
            }
        })
    }

    fn open_at(url: &Url, options: &Options) -> Result<Store, OpenError> {
        let lock = lock_file(url, options.lock_wait)?;
        let mut conn = url.connect()?;
        advisory_lock(&mut conn, url, options.lock_wait)?;
        migrate(&mut conn, url)?;
        let start = |e: diesel::result::Error| OpenError::Start(url.shown(), e.into());
        let head: i64 = on!(&mut conn, |c| counter::table
            .find(1)
            .select(counter::position)
            .first(c))
        .map_err(start)?;

        let (queue, jobs) = unbounded_channel();
        let shared = Shared::new(head, options.faults.clone(), lock, queue.downgrade());
        let engine = if conn.is_postgres() {
            "postgres"
        } else {
            "sqlite"
        };
        let mut threads = vec![spawn("writer", url, &options.fatal, {
            let (shared, fatal) = (shared.clone(), Arc::clone(&options.fatal));
            let writer = Writer::new(conn, shared.clone());
            move || match writer.run(jobs) {
                Stop::Closed => {}
                Stop::Ended => shared.unlock(),
                Stop::Fatal(why) => fatal(&why),
            }
        })?];
        for _ in 0..READERS {
            let (conn, shared) = (url.connect()?, shared.clone());
            let reader = Reader {
                url: url.clone(),
                conn,
                shared: shared.clone(),
            };
            shared.reads.connected();
            threads.push(spawn("reader", url, &options.fatal, || reader.run())?);
        }
        let threads = Threads {
            running: Mutex::new(threads),
            shared: shared.clone(),
        };
        Ok(Store {
            queue,
            shared,
            threads: Arc::new(threads),
            engine,
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
    /// The closure can run more than once: see [`Tx`].
    ///
    /// # Errors
    /// [`Error::Busy`] when more than [`QUEUE`] writes wait; whatever the closure answers; [`Error::RolledBack`] when its transaction could not begin or be committed.
    pub fn write<T, E, F>(&self, write: F) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: WriteError,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let full = self.shared.waiting.load(Ordering::Acquire) >= QUEUE;
        let queued = if full {
            Err(Error::Busy)
        } else {
            self.enqueue(write, false)
        };
        self.answer(queued)
    }

    /// Change something that no request waits for: like [`Store::write`], and never refused.
    pub fn write_always<T, E, F>(
        &self,
        write: F,
    ) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: WriteError,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.answer(self.enqueue(write, false))
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
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.answer(self.enqueue(write, true))
    }

    fn enqueue<T, E, F>(&self, write: F, alone: bool) -> Result<oneshot::Receiver<Result<T, E>>>
    where
        T: Send + 'static,
        E: WriteError,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let (job, answer) = Job::new(write, alone);
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        if self.queue.send(Some(job)).is_err() {
            self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(Error::Stopped);
        }
        Ok(answer)
    }

    /// Wait for what was queued, if it was.
    fn answer<T, E>(
        &self,
        queued: Result<oneshot::Receiver<Result<T, E>>>,
    ) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: WriteError,
    {
        let shared = self.shared.clone();
        async move {
            let answered = match queued {
                Ok(answer) => answer.await.map_err(|_| Error::Stopped),
                Err(error) => Err(error),
            };
            unless_ended(answered, &shared).await?
        }
    }

    /// Look something up, in one snapshot, without waiting for the writer. Sees every write that has been answered.
    ///
    /// # Errors
    /// Whatever the closure answers; [`Error::Unreachable`] while no reader has a connection; [`Error::Stopped`] when the readers
    /// are gone.
    pub fn read<T, E, F>(&self, read: F) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, E> + Send + 'static,
    {
        self.read_in(false, read)
    }

    /// The same for a read that may take long: one reader is always left to the others.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn read_slow<T, E, F>(&self, read: F) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, E> + Send + 'static,
    {
        self.read_in(true, read)
    }

    fn read_in<T, E, F>(
        &self,
        slow: bool,
        read: F,
    ) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new({
            let shared = self.shared.clone();
            move |conn| {
                let outcome = conn.map_err(E::from).and_then(|conn| {
                    catch_unwind(AssertUnwindSafe(|| read(conn)))
                        .unwrap_or_else(|_| Err(E::from(Error::Panicked("a read".to_owned()))))
                });
                if !shared.has_ended() {
                    let _ = reply.send(outcome);
                }
            }
        });
        if let Err((read, error)) = self.shared.reads.push(read, slow) {
            read(Err(error));
        }
        let shared = self.shared.clone();
        async move {
            let answered = answer.await.map_err(|_| Error::Stopped);
            unless_ended(answered, &shared).await?
        }
    }

    /// The last position that is committed.
    #[must_use]
    pub fn head(&self) -> Position {
        self.shared.head()
    }

    /// Call this after each commit that changed rows, with the position of the last line of the device-list log, which is higher than
    /// before when the commit appended to it. Called by the writer's thread, before any write of that commit is answered; only the
    /// first listener is called.
    pub fn on_device_list_log(&self, listener: impl Fn(Position) + Send + Sync + 'static) {
        self.shared.listen(Box::new(listener));
    }

    /// Call this after each commit that changed rows, with the services that are owed something by it. Called by the writer's thread,
    /// before any write of that commit is answered; only the first listener is called.
    pub fn on_commit(&self, listener: impl Fn(&BTreeSet<ServiceId>) + Send + Sync + 'static) {
        self.shared.listen_for_owed(Box::new(listener));
    }

    /// No line of the device-list log above this position is committed.
    #[must_use]
    pub fn device_list_log(&self) -> Position {
        self.shared.logged()
    }

    /// Who is interested in whom, as last committed.
    #[must_use]
    pub fn interests(&self) -> Arc<Interests> {
        self.shared.interests()
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
        self.shared.reads.close();
        let threads = self
            .threads
            .running
            .lock()
            .map(|mut t| std::mem::take(&mut *t))
            .unwrap_or_default();
        for thread in threads {
            let _ = thread.join();
        }
        self.shared.unlock();
    }
}

/// What was answered. A storage that was ended by a fault answers nothing, for ever.
async fn unless_ended<T>(answered: Result<T>, shared: &Shared) -> Result<T> {
    if shared.has_ended() {
        std::future::pending::<()>().await;
    }
    answered
}

fn spawn(
    name: &'static str,
    url: &Url,
    fatal: &Arc<Fatal>,
    body: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, OpenError> {
    let fatal = Arc::clone(fatal);
    let body = move || {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            fatal(&format!("the storage's {name} panicked"));
        }
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|e| OpenError::Connect(url.shown(), format!("cannot start a thread: {e}")))
}

/// Whether a little can be written beside an SQLite database. The engine does not always say that the disk is full: where it cannot
/// make the memory that connections share, for one, it speaks of an I/O error.
fn has_room(url: &Url) -> bool {
    let Url::Sqlite(path) = url else { return true };
    let probe = format!("{path}.probe");
    let written = std::fs::write(&probe, vec![1; 64 << 10]);
    let _ = std::fs::remove_file(&probe);
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    !written.is_err_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded))
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
    let Engine::Postgres(c) = &mut conn.engine else {
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
    match &mut conn.engine {
        Engine::Sqlite(c) => c.run_pending_migrations(SQLITE).map(drop).map_err(failed),
        Engine::Postgres(c) => c.run_pending_migrations(POSTGRES).map(drop).map_err(failed),
    }
}

fn known_migrations() -> Vec<String> {
    use diesel::migration::{Migration, MigrationSource};
    let all: Vec<Box<dyn Migration<diesel::sqlite::Sqlite>>> =
        MigrationSource::<diesel::sqlite::Sqlite>::migrations(&SQLITE).unwrap_or_default();
    all.iter().map(|m| m.name().version().to_string()).collect()
}
