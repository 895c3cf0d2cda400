//! Errors of the storage: of statements, of the writer's queue, and of opening a database.

use diesel::result::{DatabaseErrorKind, Error as Diesel};

/// The result of a storage operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the storage. The operation changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A statement failed.
    #[error("database: {0}")]
    Database(#[from] Diesel),
    /// A stored value cannot be read.
    #[error("stored value is damaged: {0}")]
    Damaged(String),
    /// The writer's queue is full. A retry may succeed.
    #[error("the writer's queue is full")]
    Busy,
    /// The transaction of the write could not begin or be committed, for a reason outside the write.
    #[error("the write was rolled back: {0}")]
    RolledBack(String),
    /// No reader has a connection to the database. A retry may succeed.
    #[error("the database cannot be reached")]
    Unreachable,
    /// The closure panicked.
    #[error("a closure panicked: {0}")]
    Panicked(String),
    /// The storage is closed.
    #[error("storage has stopped")]
    Stopped,
}

impl Error {
    /// Whether a statement failed. On both engines the transaction cannot continue after that.
    #[must_use]
    pub fn is_failed_statement(&self) -> bool {
        matches!(self, Error::Database(error) if *error != Diesel::NotFound)
    }

    /// Whether a retry may succeed: the cause lies outside the request.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::Busy | Error::RolledBack(_) | Error::Unreachable | Error::Stopped => true,
            Error::Database(error) => is_engine_failure(error),
            Error::Damaged(_) | Error::Panicked(_) => false,
        }
    }
}

/// Texts by which an error of the machine or the database server is told from an error of a statement. Diesel passes on no
/// error code for these.
const ENGINE_FAILURES: [&str; 8] = [
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

/// Whether the machine or the database server caused an error, not the statement.
fn is_engine_failure(error: &Diesel) -> bool {
    let Diesel::DatabaseError(kind, about) = error else {
        return false;
    };
    let names_engine_failure =
        |text: &str| ENGINE_FAILURES.iter().any(|known| text.contains(known));
    match kind {
        DatabaseErrorKind::ClosedConnection
        | DatabaseErrorKind::UnableToSendCommand
        | DatabaseErrorKind::SerializationFailure => true,
        DatabaseErrorKind::Unknown => names_engine_failure(about.message()),
        _ => false,
    }
}

impl Error {
    /// Whether a stored value cannot be read. A retry fails in the same way.
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

/// An error of a write closure: an error of the storage, or a refusal by the caller's own rules.
pub trait WriteError: From<Error> + Send + 'static {
    /// The error of the storage, if it is one.
    fn storage(&self) -> Option<&Error>;
}

impl WriteError for Error {
    fn storage(&self) -> Option<&Error> {
        Some(self)
    }
}

/// The reason why a database cannot be opened, in one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is neither `sqlite:PATH` nor `postgres://…`.
    #[error("{0}: not a database URL (sqlite:PATH or postgres://…)")]
    Url(String),
    /// The database could not be reached or opened.
    #[error("{0}: {1}")]
    Connect(String, String),
    /// A migration failed.
    #[error("{0}: cannot bring the tables up to date: {1}")]
    Migrate(String, String),
    /// A newer version of understudy wrote the database.
    #[error(
        "{0}: a newer version of understudy wrote this database (it has the migration {1}); start that version"
    )]
    Newer(String, String),
    /// Another server uses this database.
    #[error("{0}: another understudy uses this database; stop it, or configure another database")]
    InUse(String),
    /// The disk that holds the database is full.
    #[error("{0}: the disk is full; make room and start again ({1})")]
    NoRoom(String, String),
    /// A storage thread could not be started, or the first query failed.
    #[error("{0}: {1}")]
    Start(String, Error),
}
