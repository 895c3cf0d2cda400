//! Where a test can make storage fail: a database error, a full disk, a lost connection, the end of the process.
//!
//! Without faults, which is the default, each point costs one branch.

use std::sync::Arc;

use diesel::result::{DatabaseErrorKind, Error as Diesel};

/// A point in a batch of writes, or in a read, at which a fault can be injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// Before a transaction of the writer begins.
    Begin,
    /// After the closure of one write has run.
    Job,
    /// After all closures of a transaction have run, before its COMMIT.
    BeforeCommit,
    /// After the COMMIT, before any write of the transaction is answered.
    AfterCommit,
    /// Before the snapshot of a read begins.
    ReadBegin,
}

/// What goes wrong at a [`Point`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// The database refuses the statement. At [`Point::AfterCommit`], nothing.
    Refuse,
    /// The database has no room left. At [`Point::AfterCommit`], nothing.
    Full,
    /// The connection is gone: PostgreSQL's session is terminated. On SQLite, which has no connection to lose, the statement fails.
    Lost,
    /// The storage behaves as in a process that was killed: the threads stop here, what is not committed is lost, and nothing
    /// is answered any more: not even an error. The database can be opened again, by another store of the same process.
    End,
}

/// Chooses the fault at each point. Called from the threads of the storage.
type Choose = dyn Fn(Point) -> Fault + Send + Sync;

/// Which faults a store has: none, unless a test chooses them.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Choose>>);

impl Faults {
    /// The faults that this function chooses, point by point.
    pub fn chosen_by(choose: impl Fn(Point) -> Fault + Send + Sync + 'static) -> Faults {
        Faults(Some(Arc::new(choose)))
    }

    pub(crate) fn at(&self, point: Point) -> Fault {
        self.0.as_ref().map_or(Fault::None, |choose| choose(point))
    }
}

impl Fault {
    /// The database's error, if this fault is one.
    pub(crate) fn error(self) -> Option<Diesel> {
        let (kind, text) = match self {
            Fault::None | Fault::End => return None,
            Fault::Refuse => (DatabaseErrorKind::Unknown, "refused by an injected fault"),
            Fault::Full => (DatabaseErrorKind::Unknown, "database or disk is full"),
            Fault::Lost => (
                DatabaseErrorKind::ClosedConnection,
                "connection lost by an injected fault",
            ),
        };
        Some(Diesel::DatabaseError(kind, Box::new(text.to_owned())))
    }
}
