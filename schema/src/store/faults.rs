//! Faults that a test injects into the storage: a database error, a full disk, a lost connection, the end of the process.
//!
//! Without faults, which is the default, each point costs one branch.

use std::sync::Arc;

use diesel::result::{DatabaseErrorKind, Error as Diesel};

/// A point in a batch of writes, or in a read, at which a test can inject a fault.
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

/// A fault at a [`Point`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Fault {
    /// No fault.
    #[default]
    None,
    /// The database refuses the statement. Has no effect at [`Point::AfterCommit`].
    Refuse,
    /// The disk is full. Has no effect at [`Point::AfterCommit`].
    Full,
    /// The connection is lost: the session on PostgreSQL is terminated. On SQLite, which has no session, the statement fails.
    Lost,
    /// The storage behaves as in a process that was killed: its threads stop at this point, what is not committed is lost, and no
    /// call returns, not even with an error. Another store in the same process can open the database again.
    End,
}

/// Chooses the fault at each point. The threads of the storage call it.
type Choose = dyn Fn(Point) -> Fault + Send + Sync;

/// The faults of a store: none, unless a test chooses them.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Choose>>);

impl Faults {
    /// Faults that a function chooses for each point.
    pub fn chosen_by(choose: impl Fn(Point) -> Fault + Send + Sync + 'static) -> Faults {
        Faults(Some(Arc::new(choose)))
    }

    pub(crate) fn at(&self, point: Point) -> Fault {
        self.0.as_ref().map_or(Fault::None, |choose| choose(point))
    }
}

impl Fault {
    /// The database error of this fault, if it has one.
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
