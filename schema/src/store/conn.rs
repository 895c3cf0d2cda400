//! A connection to either engine, and macros with which a query is written once for both.

use diesel::connection::SimpleConnection;
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;

use crate::error::{OpenError, Result};
use crate::store::facts::{Done, Fact};
use crate::store::kept::Keep as _;

/// A connection to SQLite or PostgreSQL. It records whether a statement that changes rows was sent.
pub struct Conn {
    pub(crate) engine: Engine,
    wrote: bool,
    /// What the current write did so far. `None` if this is not recorded.
    done: Option<Done>,
}

/// A connection to the database, SQLite or PostgreSQL.
pub(crate) enum Engine {
    /// SQLite, the default.
    Sqlite(SqliteConnection),
    /// PostgreSQL, selected by the URL.
    Postgres(PgConnection),
}

/// Puts an expression into a match arm for each engine, where the compiler checks it against the concrete backend. So it can
/// use everything that diesel supports, upserts and multi-row inserts included.
///
/// Marks an expression that begins with an insert, an update or a delete as a change. Any other expression that changes rows
/// needs [`change!`]; a development build checks this after every write.
macro_rules! on {
    ($conn:expr, |$c:ident| diesel::insert_into $($rest:tt)*) => {
        change!($conn, |$c| diesel::insert_into $($rest)*)
    };
    ($conn:expr, |$c:ident| diesel::update $($rest:tt)*) => {
        change!($conn, |$c| diesel::update $($rest)*)
    };
    ($conn:expr, |$c:ident| diesel::delete $($rest:tt)*) => {
        change!($conn, |$c| diesel::delete $($rest)*)
    };
    ($conn:expr, |$c:ident| $body:expr) => {
        match &mut (*$conn).engine {
            $crate::store::conn::Engine::Sqlite($c) => $body,
            $crate::store::conn::Engine::Postgres($c) => $body,
        }
    };
}

/// Like [`on!`], for an expression that changes rows. Marks the connection before the statement is sent, so that a write that
/// then fails is known to have possibly changed something.
macro_rules! change {
    ($conn:expr, |$c:ident| $body:expr) => {
        match (*$conn).changing() {
            $crate::store::conn::Engine::Sqlite($c) => $body,
            $crate::store::conn::Engine::Postgres($c) => $body,
        }
    };
}

/// Inserts rows in the way that is fastest on each engine: one by one through the statement cache on SQLite, in one statement
/// on PostgreSQL.
macro_rules! insert_all {
    ($conn:expr, $table:expr, $rows:expr) => {{
        let rows = $rows;
        match (*$conn).changing() {
            $crate::store::conn::Engine::Sqlite(c) => {
                for row in rows {
                    ::diesel::insert_into($table).values(row).execute(c)?;
                }
            }
            // Insert 4,000 rows in a statement: a row has at most 13 columns, and PostgreSQL allows 65,535 parameters in a
            // statement.
            $crate::store::conn::Engine::Postgres(c) => {
                for part in rows.chunks(4000) {
                    let insert = ::diesel::insert_into($table).values(part);
                    $crate::store::kept::Keep::kept_for(insert, part.len()).execute(c)?;
                }
            }
        }
    }};
}

/// The place of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Url {
    Sqlite(String),
    Postgres(String),
    /// A database in memory: the path of its file, which is gone when the database is open.
    Memory(String),
}

impl Url {
    pub(crate) fn parse(url: &str) -> Result<Url, OpenError> {
        if matches!(url, ":memory:" | "sqlite::memory:") {
            Ok(Url::Memory(String::new()))
        } else if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(OpenError::Url(url.to_owned()));
            }
            Ok(Url::Sqlite(path.to_owned()))
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Ok(Url::Postgres(url.to_owned()))
        } else {
            Err(OpenError::Url(url.to_owned()))
        }
    }

    /// The URL without its password, for messages.
    pub(crate) fn shown(&self) -> String {
        match self {
            Url::Memory(_) => ":memory:".to_owned(),
            Url::Sqlite(path) => path.clone(),
            Url::Postgres(url) => match (url.find("://"), url.rfind('@')) {
                (Some(scheme), Some(at)) if at > scheme => {
                    let login = &url[scheme + 3..at];
                    let user = login.split(':').next().unwrap_or_default();
                    format!("{}{user}{}", &url[..scheme + 3], &url[at..])
                }
                _ => url.clone(),
            },
        }
    }

    pub(crate) fn connect(&self) -> Result<Conn, OpenError> {
        let failed = |e: &dyn std::fmt::Display| {
            OpenError::Connect(self.shown(), e.to_string().trim().replace('\n', " "))
        };
        match self {
            Url::Sqlite(path) | Url::Memory(path) => {
                let mut c = SqliteConnection::establish(path).map_err(|e| failed(&e))?;
                sqlite_pragmas(&mut c).map_err(|e| failed(&e))?;
                if let Url::Memory(_) = self {
                    // There is no disk to wait for.
                    let off = "PRAGMA synchronous = OFF";
                    c.batch_execute(off).map_err(|e| failed(&e))?;
                }
                Ok(Conn::new(Engine::Sqlite(c)))
            }
            Url::Postgres(url) => Ok(Conn::new(Engine::Postgres(
                PgConnection::establish(&with_timeouts(url)).map_err(|e| failed(&e))?,
            ))),
        }
    }
}

/// Settings of libpq that the URL does not contain: with them a lost server or network is noticed within a minute. By default a
/// reader would wait two hours for a lost answer, and without end for a connection.
const TIMEOUTS: [(&str, u32); 5] = [
    ("connect_timeout", 10),
    ("keepalives_idle", 30),
    ("keepalives_interval", 10),
    ("keepalives_count", 3),
    ("tcp_user_timeout", 60_000),
];

fn with_timeouts(url: &str) -> String {
    let mut url = url.to_owned();
    for (name, value) in TIMEOUTS {
        let (_, query) = url.split_once('?').unwrap_or((&url, ""));
        if !query
            .split('&')
            .any(|pair| pair.split('=').next() == Some(name))
        {
            let sign = if url.contains('?') { '&' } else { '?' };
            url.push_str(&format!("{sign}{name}={value}"));
        }
    }
    url
}

/// Sets up SQLite; the comments give the reason for each setting.
fn sqlite_pragmas(c: &mut SqliteConnection) -> QueryResult<()> {
    c.batch_execute(
        // Wait rather than fail while another connection checkpoints.
        "PRAGMA busy_timeout = 5000;
         -- Readers never wait for the writer.
         PRAGMA journal_mode = WAL;
         -- An answered write is on the disk: one fsync of the log per commit.
         PRAGMA synchronous = FULL;
         -- 2 MiB of pages per connection: enough for the hot tables, small when idle.
         PRAGMA cache_size = -2048;
         -- Copy the log back in larger pieces (8 MiB): fewer fsyncs under load.
         PRAGMA wal_autocheckpoint = 2000;
         -- Cut the log file after a burst.
         PRAGMA journal_size_limit = 67108864;
         PRAGMA temp_store = MEMORY;",
    )
}

impl Conn {
    fn new(engine: Engine) -> Conn {
        Conn {
            engine,
            wrote: false,
            done: None,
        }
    }

    /// Starts or stops recording what a write does.
    pub(crate) fn record(&mut self, record: bool) {
        self.done = record.then(Done::default);
    }

    /// What was recorded since [`Conn::record`].
    pub(crate) fn take_done(&mut self) -> Option<Done> {
        self.done.take()
    }

    /// Whether facts are recorded, so that they are worth a query.
    pub(crate) fn is_recording(&self) -> bool {
        self.done.is_some()
    }

    /// Records facts. Costs nothing if nothing is recorded.
    pub(crate) fn note<I: IntoIterator<Item = Fact>>(&mut self, facts: impl FnOnce() -> I) {
        if let Some(done) = &mut self.done {
            done.facts.extend(facts());
        }
    }

    /// Records that rows of this name were added. Cheap if nothing is recorded: the name is not formatted then.
    pub(crate) fn added(&mut self, name: std::fmt::Arguments<'_>, rows: usize) {
        if let Some(Done { rows: counted, .. }) = &mut self.done {
            *counted.entry(name.to_string()).or_default() += i64::try_from(rows).unwrap_or(0);
        }
    }

    /// Records that rows of this name were removed.
    pub(crate) fn removed(&mut self, name: std::fmt::Arguments<'_>, rows: usize) {
        if let Some(Done { rows: counted, .. }) = &mut self.done {
            *counted.entry(name.to_string()).or_default() -= i64::try_from(rows).unwrap_or(0);
        }
    }

    /// The engine, for a statement that changes rows. Marks the connection as having sent one.
    pub(crate) fn changing(&mut self) -> &mut Engine {
        self.wrote = true;
        &mut self.engine
    }

    /// Whether a statement that changes rows was sent. Resets the mark.
    pub(crate) fn take_wrote(&mut self) -> bool {
        std::mem::take(&mut self.wrote)
    }

    /// Sets the mark that a statement that changes rows was sent.
    pub(crate) fn set_wrote(&mut self, wrote: bool) {
        self.wrote = wrote;
    }

    /// The number of rows changed through this connection, as SQLite counts them. Used to check that every such statement was
    /// marked; `None` on PostgreSQL.
    pub(crate) fn rows_changed(&mut self) -> Option<i64> {
        let Engine::Sqlite(c) = &mut self.engine else {
            return None;
        };
        let count = diesel::dsl::sql::<diesel::sql_types::BigInt>("total_changes()");
        diesel::select(count).kept().get_result(c).ok()
    }

    /// Terminates the session, as a failure of the network or the server would. Does nothing on SQLite.
    pub(crate) fn lose(&mut self) {
        if self.is_postgres() {
            // The statement fails, because it terminates its own session.
            let _ = self.execute("SELECT pg_terminate_backend(pg_backend_pid())");
        }
    }

    /// Runs statements that return no rows.
    pub(crate) fn execute(&mut self, sql: &str) -> QueryResult<()> {
        on!(self, |c| c.batch_execute(sql))
    }

    /// The whole database as the bytes of an SQLite file; `None` on PostgreSQL.
    pub(crate) fn image(&mut self) -> Option<Vec<u8>> {
        let Engine::Sqlite(c) = &mut self.engine else {
            return None;
        };
        let bytes = c.serialize_database_to_buffer();
        bytes.try_as_slice().ok().map(<[u8]>::to_vec)
    }

    /// Whether this is PostgreSQL.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }
}

/// Whether a text can be the key of a row. PostgreSQL refuses U+0000 even in a query, and a failed statement rolls back the
/// whole batch. No row can have such a key, so no query is made for it.
pub(crate) fn is_key(text: &str) -> bool {
    !text.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_in_the_url_is_kept() {
        let url = with_timeouts("postgres://a@b/c?connect_timeout=3");
        assert!(url.starts_with("postgres://a@b/c?connect_timeout=3&keepalives_idle=30&"));
        assert_eq!(url.matches("connect_timeout").count(), 1);
        assert!(with_timeouts("postgres://a@b/c").contains("c?connect_timeout=10&"));
    }
}
