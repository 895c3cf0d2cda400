//! Opens a database: locks it for one server, runs the migrations, starts the threads.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use crate::error::OpenError;
use crate::store::conn::{Conn, Engine, Url};
use crate::store::faults::Faults;
use crate::store::handle::{Store, Threads};
use crate::store::memory::{Folder, Image};
use crate::store::pool::READERS;
use crate::store::readers::Reader;
use crate::store::shared::Shared;
use crate::store::writer::{Stop, Writer, store_position};
use crate::tables::counter;

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// The time to wait until a server that is stopping has released the database.
const LOCK_WAIT: Duration = Duration::from_secs(10);

type Fatal = dyn Fn(&str) + Send + Sync;

/// The options of a store.
#[derive(Clone)]
pub struct StoreOptions {
    /// Called once, from a storage thread, when the storage cannot continue. The process should end.
    pub fatal: Arc<Fatal>,
    /// The time to wait until another server has released the database.
    pub lock_wait: Duration,
    /// The faults that a test injects.
    pub faults: Faults,
    /// The state in which a database in memory starts; `None` for an empty one. Other databases ignore it.
    pub image: Option<Image>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            fatal: Arc::new(|why| {
                tracing::error!(why, "storage has failed; the process ends");
                std::process::exit(1);
            }),
            lock_wait: LOCK_WAIT,
            faults: Faults::default(),
            image: None,
        }
    }
}

impl Store {
    /// Opens `sqlite:PATH` or `postgres://…`, runs the migrations, and starts the writer and the readers. `:memory:` is a new
    /// database of which nothing is left when the store is closed.
    ///
    /// # Errors
    /// If the URL has another form, or the database cannot be reached, is on a full disk, was written by a newer version, or is in
    /// use.
    pub fn open(url: &str, options: &StoreOptions) -> Result<Store, OpenError> {
        let mut url = Url::parse(url)?;
        // Removed at the end of this function, when every connection is open.
        let _folder = if let Url::Memory(path) = &mut url {
            let folder = Folder::with(options.image.as_ref().and_then(|i| i.bytes.as_deref()));
            let folder =
                folder.map_err(|e| OpenError::Connect(":memory:".to_owned(), e.to_string()))?;
            *path = folder.file().display().to_string();
            Some(folder)
        } else {
            None
        };
        Store::open_at(&url, options).map_err(|error| {
            if has_room(&url) {
                error
            } else {
                OpenError::NoRoom(url.shown(), error.to_string())
            }
        })
    }

    fn open_at(url: &Url, options: &StoreOptions) -> Result<Store, OpenError> {
        let lock = lock_file(url, options.lock_wait)?;
        let mut conn = url.connect()?;
        advisory_lock(&mut conn, url, options.lock_wait)?;
        migrate(&mut conn, url)?;
        let start = |e: diesel::result::Error| OpenError::Start(url.shown(), e.into());
        let mut head: i64 = on!(&mut conn, |c| counter::table
            .find(1)
            .select(counter::position)
            .first(c))
        .map_err(start)?;
        if let (Url::Memory(_), Some(image)) = (url, &options.image)
            && image.above.0 > head
        {
            head = image.above.0;
            store_position(&mut conn, head).map_err(start)?;
        }

        let (queue, orders) = channel();
        let queue = Arc::new(queue);
        let (faults, writer) = (options.faults.clone(), Arc::downgrade(&queue));
        let shared = Shared::new(head, faults, lock, writer);
        let engine = if conn.is_postgres() {
            "postgres"
        } else {
            "sqlite"
        };
        let mut threads = vec![spawn("writer", url, &options.fatal, {
            let (shared, fatal) = (shared.clone(), Arc::clone(&options.fatal));
            let writer = Writer::new(conn, shared.clone());
            move || match writer.run(&orders) {
                Stop::Closed => {}
                Stop::Ended => shared.unlock(),
                Stop::Fatal(why) => fatal(&why),
            }
        })?];
        for _ in 0..READERS {
            let (mut conn, shared) = (url.connect()?, shared.clone());
            if let Url::Memory(_) = url {
                // With the first query SQLite opens all files of the database, whose names are gone later.
                let read = conn.execute("SELECT position FROM counter");
                read.map_err(start)?;
            }
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

/// Whether 64 KiB can be written next to an SQLite database. SQLite does not always report a full disk as such: if it cannot
/// create the memory that connections share, for example, it reports an I/O error.
fn has_room(url: &Url) -> bool {
    let Url::Sqlite(path) = url else { return true };
    let probe = format!("{path}.probe");
    let written = std::fs::write(&probe, vec![1; 64 << 10]);
    let _ = std::fs::remove_file(&probe);
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    !written.is_err_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded))
}

/// SQLite: locks a file next to the database as long as the store exists.
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

/// PostgreSQL: takes an advisory lock in the session of the writer.
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

/// Tries until an attempt succeeds or the time is over. Used only at start, before there is a clock.
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
    // If no migration is missing, this costs one query and no transaction.
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
