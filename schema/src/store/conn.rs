//! One connection, either engine; one text for each query.

use std::collections::BTreeMap;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sqlite::SqliteConnection;

use crate::error::{OpenError, Result};

/// A connection to one of the two engines, and whether a statement that changes rows was sent through it.
pub struct Conn {
    pub(crate) engine: Engine,
    wrote: bool,
    /// How many rows the write under way added and removed, where that is recorded.
    rows: Option<Rows>,
}

/// How many rows more or fewer a write left, by name: `inbox`, or `owed irc (exclusive_namespace)`.
pub type Rows = BTreeMap<String, i64>;

/// The connection itself.
pub(crate) enum Engine {
    /// The embedded default.
    Sqlite(SqliteConnection),
    /// The other engine, chosen by URL.
    Postgres(PgConnection),
}

/// Pastes one expression into an arm for each engine, where it is checked against the concrete backend:
/// so everything diesel can do works, upserts and multi-row inserts included.
///
/// An expression that begins with an insert, an update or a delete is marked as a change. Any other expression that changes rows
/// needs [`change!`]: a development build checks this after every write.
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

/// Like [`on!`], for an expression that changes rows. The connection is marked before the statement is sent, so a write
/// that fails after it is known to have changed something.
macro_rules! change {
    ($conn:expr, |$c:ident| $body:expr) => {
        match (*$conn).changing() {
            $crate::store::conn::Engine::Sqlite($c) => $body,
            $crate::store::conn::Engine::Postgres($c) => $body,
        }
    };
}

/// Insert rows the way each engine likes it: SQLite one by one through its statement cache, PostgreSQL in one statement.
macro_rules! insert_all {
    ($conn:expr, $table:expr, $rows:expr) => {{
        let rows = $rows;
        match (*$conn).changing() {
            $crate::store::conn::Engine::Sqlite(c) => {
                for row in rows {
                    ::diesel::insert_into($table).values(row).execute(c)?;
                }
            }
            // Thirteen columns at most, and 65,535 parameters in one statement.
            $crate::store::conn::Engine::Postgres(c) => {
                for part in rows.chunks(4000) {
                    ::diesel::insert_into($table).values(part).execute(c)?;
                }
            }
        }
    }};
}

/// Where a database is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Url {
    Sqlite(String),
    Postgres(String),
}

impl Url {
    pub(crate) fn parse(url: &str) -> Result<Url, OpenError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
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

    /// The URL as it may be shown: without a password.
    pub(crate) fn shown(&self) -> String {
        match self {
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
            Url::Sqlite(path) => {
                let mut c = SqliteConnection::establish(path).map_err(|e| failed(&e))?;
                sqlite_pragmas(&mut c).map_err(|e| failed(&e))?;
                Ok(Conn::new(Engine::Sqlite(c)))
            }
            Url::Postgres(url) => Ok(Conn::new(Engine::Postgres(
                PgConnection::establish(&with_patience(url)).map_err(|e| failed(&e))?,
            ))),
        }
    }
}

/// What libpq is told where the URL does not say: notice within a minute that the server or the network is gone. By default a reader
/// would wait for a lost answer for two hours, and for a connection for ever.
const PATIENCE: [(&str, u32); 5] = [
    ("connect_timeout", 10),
    ("keepalives_idle", 30),
    ("keepalives_interval", 10),
    ("keepalives_count", 3),
    ("tcp_user_timeout", 60_000),
];

fn with_patience(url: &str) -> String {
    let mut url = url.to_owned();
    for (name, value) in PATIENCE {
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

/// How SQLite is set up, each line with its reason.
fn sqlite_pragmas(c: &mut SqliteConnection) -> QueryResult<()> {
    use diesel::connection::SimpleConnection;
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
            rows: None,
        }
    }

    /// Count the rows that a write adds and removes, from now on, or do not.
    pub(crate) fn count_rows(&mut self, count: bool) {
        self.rows = count.then(Rows::new);
    }

    /// What was counted since [`Conn::count_rows`].
    pub(crate) fn take_rows(&mut self) -> Option<Rows> {
        self.rows.take()
    }

    /// Rows of this name were added, for the record of what the write did. Costs nothing where nothing is recorded.
    pub(crate) fn added(&mut self, name: std::fmt::Arguments<'_>, rows: usize) {
        if let Some(counted) = &mut self.rows {
            *counted.entry(name.to_string()).or_default() += i64::try_from(rows).unwrap_or(0);
        }
    }

    /// Rows of this name were removed.
    pub(crate) fn removed(&mut self, name: std::fmt::Arguments<'_>, rows: usize) {
        if let Some(counted) = &mut self.rows {
            *counted.entry(name.to_string()).or_default() -= i64::try_from(rows).unwrap_or(0);
        }
    }

    /// The engine, for a statement that changes rows.
    pub(crate) fn changing(&mut self) -> &mut Engine {
        self.wrote = true;
        &mut self.engine
    }

    /// Whether a statement that changes rows was sent since this was asked last.
    pub(crate) fn take_wrote(&mut self) -> bool {
        std::mem::take(&mut self.wrote)
    }

    /// Whether a statement that changes rows counts as sent.
    pub(crate) fn set_wrote(&mut self, wrote: bool) {
        self.wrote = wrote;
    }

    /// How many rows were changed through this connection, on SQLite: the engine counts them itself. Checks the marks.
    pub(crate) fn rows_changed(&mut self) -> Option<i64> {
        let Engine::Sqlite(c) = &mut self.engine else {
            return None;
        };
        let count = diesel::dsl::sql::<diesel::sql_types::BigInt>("total_changes()");
        diesel::select(count).get_result(c).ok()
    }

    /// Lose the connection, as when a network or a server fails. SQLite has none to lose.
    pub(crate) fn lose(&mut self) {
        if self.is_postgres() {
            // The answer is that the connection was terminated.
            let _ = self.execute("SELECT pg_terminate_backend(pg_backend_pid())");
        }
    }

    /// Run statements that return nothing.
    pub(crate) fn execute(&mut self, sql: &str) -> QueryResult<()> {
        use diesel::connection::SimpleConnection;
        on!(self, |c| c.batch_execute(sql))
    }

    /// Whether this is PostgreSQL.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }
}

/// Whether a text can be the key of a row. PostgreSQL fails on U+0000 even in a question, and a failed statement undoes a
/// whole batch; so what nobody can have stored is not asked for.
pub(crate) fn is_key(text: &str) -> bool {
    !text.contains('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_says_itself_is_kept() {
        let url = with_patience("postgres://a@b/c?connect_timeout=3");
        assert!(url.starts_with("postgres://a@b/c?connect_timeout=3&keepalives_idle=30&"));
        assert_eq!(url.matches("connect_timeout").count(), 1);
        assert!(with_patience("postgres://a@b/c").contains("c?connect_timeout=10&"));
    }
}
