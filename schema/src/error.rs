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
    /// The batch this write was part of could not be committed; nothing of it was kept.
    #[error("the batch was rolled back: {0}")]
    RolledBack(String),
    /// The closure panicked; its savepoint was rolled back.
    #[error("a write panicked: {0}")]
    Panicked(String),
    /// The writer or reader has stopped.
    #[error("storage has stopped")]
    Stopped,
}

impl Error {
    /// Whether only the statement failed (a constraint), so that the rest of a batch may go on.
    #[must_use]
    pub fn is_constraint(&self) -> bool {
        matches!(
            self,
            Error::Database(Diesel::DatabaseError(
                DatabaseErrorKind::UniqueViolation
                    | DatabaseErrorKind::ForeignKeyViolation
                    | DatabaseErrorKind::NotNullViolation
                    | DatabaseErrorKind::CheckViolation,
                _
            )) | Error::Database(Diesel::NotFound)
        )
    }

    /// Whether trying again a little later may help.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Error::Busy | Error::RolledBack(_))
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
    /// The storage threads could not be started, or the first read failed.
    #[error("{0}: {1}")]
    Start(String, Error),
}
