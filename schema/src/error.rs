//! What can go wrong below the rules: the database, its queue, its version.

use diesel::result::{DatabaseErrorKind, Error as Diesel};

/// A result of storage.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Storage could not do what it was asked; nothing of it was kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused a statement.
    #[error("database: {0}")]
    Database(#[from] Diesel),
    /// A stored value is not what was written there.
    #[error("stored value is damaged: {0}")]
    Damaged(String),
    /// More requests wait for the writer than may wait. Try again later.
    #[error("the writer's queue is full")]
    Busy,
    /// The write could not be committed, for a reason that is not its own; nothing of it was kept.
    #[error("the write was rolled back: {0}")]
    RolledBack(String),
    /// No connection to the database can be had just now. Try again later.
    #[error("the database cannot be reached")]
    Unreachable,
    /// The closure panicked; what it changed was rolled back.
    #[error("a write panicked: {0}")]
    Panicked(String),
    /// The writer or reader has stopped.
    #[error("storage has stopped")]
    Stopped,
}

impl Error {
    /// Whether a statement failed. A transaction cannot go on after that, on either engine.
    #[must_use]
    pub fn is_failed_statement(&self) -> bool {
        matches!(self, Error::Database(error) if *error != Diesel::NotFound)
    }

    /// Whether trying again a little later may help: the reason is not in what was asked.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::Busy | Error::RolledBack(_) | Error::Unreachable | Error::Stopped => true,
            Error::Database(error) => is_of_the_engine(error),
            Error::Damaged(_) | Error::Panicked(_) => false,
        }
    }
}

/// What both engines say when something is wrong with the machine or the server, not with the statement. Neither gives its
/// code to diesel, so the text decides.
const OF_THE_ENGINE: [&str; 8] = [
    // SQLite
    "database or disk is full",
    "disk I/O error",
    "database is locked",
    "out of memory",
    // PostgreSQL
    "No space left on device",
    "terminating connection",
    "the database system is",
    "too many clients",
];

/// Whether the engine, not the statement, is the cause of an error.
fn is_of_the_engine(error: &Diesel) -> bool {
    let Diesel::DatabaseError(kind, about) = error else {
        return false;
    };
    let of_the_engine = |text: &str| OF_THE_ENGINE.iter().any(|known| text.contains(known));
    match kind {
        DatabaseErrorKind::ClosedConnection
        | DatabaseErrorKind::UnableToSendCommand
        | DatabaseErrorKind::SerializationFailure => true,
        DatabaseErrorKind::Unknown => of_the_engine(about.message()),
        _ => false,
    }
}

impl Error {
    /// Whether a stored value is the cause: it is as damaged when it is read again.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Error::Damaged(_) | Error::Database(Diesel::DeserializationError(_))
        )
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::Damaged(error.to_string())
    }
}

/// The error of a write closure: either storage broke, or a rule said no.
pub trait WriteError: From<Error> + Send + 'static {
    /// The storage error inside, if that is what it is.
    fn storage(&self) -> Option<&Error>;
}

impl WriteError for Error {
    fn storage(&self) -> Option<&Error> {
        Some(self)
    }
}

/// Why a database could not be opened. One line, for the person who started the server.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not `sqlite:PATH`, not `postgres://…`.
    #[error("{0}: not a database URL (sqlite:PATH or postgres://…)")]
    Url(String),
    /// The database could not be reached or opened.
    #[error("{0}: {1}")]
    Connect(String, String),
    /// A migration failed.
    #[error("{0}: cannot bring the tables up to date: {1}")]
    Migrate(String, String),
    /// The database was written by a newer understudy.
    #[error(
        "{0}: written by a newer version of understudy (it has the migration {1}, unknown here)"
    )]
    Newer(String, String),
    /// Another server uses this database.
    #[error("{0}: in use by another understudy; one server per database")]
    InUse(String),
    /// The disk on which the database is has no room.
    #[error("{0}: the disk is full; make room and start again ({1})")]
    NoRoom(String, String),
    /// The storage threads could not be started, or the first read failed.
    #[error("{0}: {1}")]
    Start(String, Error),
}
