//! The argument of a write closure: the connection, the counter and the companion; and what is undone when a write is rolled
//! back.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::ServiceId;
use crate::store::deferred::{Deferred, Lengths};
use crate::store::facts::Fact;
use crate::{Conn, Error, Position};

/// A value that belongs to the tables and that the storage treats as opaque. Each write sees it as of the write's place in the
/// order, and a commit replaces it.
pub type Companion = Arc<dyn Any + Send + Sync>;

/// The argument of a write closure: the connection (it dereferences to [`Conn`]), the counter of positions, and the companion.
///
/// A closure can run twice: a batch that fails is rolled back and run again in smaller parts. So it gets time and random
/// numbers from outside, and changes only rows. It must not open a transaction: it runs in one already.
pub struct Tx<'a> {
    pub(crate) conn: &'a mut Conn,
    pub(crate) batch: &'a mut Batch,
    /// The last position before this write.
    pub(crate) start: i64,
    /// The value of the task that queued this write.
    pub(crate) context: Option<Companion>,
}

/// The appservices that are owed something, each with the newest position of an item; `None` if an item has a position that is
/// older than the write that owes it.
pub type OwedServices = BTreeMap<ServiceId, Option<Position>>;

/// The later of two positions; `None` if either is `None`.
#[must_use]
pub fn covering(one: Option<Position>, other: Option<Position>) -> Option<Position> {
    one.zip(other).map(|(one, other)| one.max(other))
}

/// What the writes of one transaction have done so far, besides the rows that are inserted already.
pub(crate) struct Batch {
    pub(crate) position: i64,
    pub(crate) companion: Companion,
    attached: Option<Companion>,
    /// Whether a write of the batch changed rows.
    pub(crate) wrote: bool,
    /// The last line that a write of the batch appended to the device-list log.
    pub(crate) logged: Option<Position>,
    /// The appservices that the writes of the batch owe something. Writes that returned an error are included: an unnecessary hint
    /// does no harm.
    pub(crate) owed: OwedServices,
    /// The rows that writes of the batch have added and that are not inserted yet.
    pub(crate) deferred: Deferred,
    /// The error because of which the deferred rows could not be inserted.
    pub(crate) failed: Option<Error>,
    /// How often deferred rows were inserted.
    pub(crate) caught_up: usize,
    undo: Vec<Box<dyn FnOnce() + Send>>,
    /// What is called after the commit.
    after: Vec<Box<dyn FnOnce() + Send>>,
}

/// How far a batch had got before a write, to return to if the write returns an error.
pub(crate) struct Mark {
    position: i64,
    companion: Companion,
    undo: usize,
    after: usize,
    deferred: Lengths,
}

impl Batch {
    pub(crate) fn new(position: i64, companion: Companion, attached: Option<Companion>) -> Batch {
        Batch {
            position,
            companion,
            attached,
            wrote: false,
            logged: None,
            owed: OwedServices::new(),
            deferred: Deferred::default(),
            failed: None,
            caught_up: 0,
            undo: Vec::new(),
            after: Vec::new(),
        }
    }

    /// The state to return to if the next write returns an error.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            position: self.position,
            companion: Arc::clone(&self.companion),
            undo: self.undo.len(),
            after: self.after.len(),
            deferred: self.deferred.lengths(),
        }
    }

    /// Inserts the deferred rows, so that the next statement sees them.
    pub(crate) fn catch_up(&mut self, conn: &mut Conn) {
        if self.deferred.is_empty() || self.failed.is_some() {
            return;
        }
        // The rows belong to the batch, not to the write whose statement needs them.
        let wrote = conn.take_wrote();
        if let Err(error) = self.deferred.write(conn) {
            self.failed = Some(error);
        }
        conn.take_wrote();
        conn.set_wrote(wrote);
        self.wrote = true;
        self.caught_up += 1;
    }

    /// What is called now that the transaction is committed.
    pub(crate) fn take_after_commit(&mut self) -> Vec<Box<dyn FnOnce() + Send>> {
        std::mem::take(&mut self.after)
    }

    /// Returns to the state at a mark. The latest change is undone first.
    pub(crate) fn return_to(&mut self, mark: Mark) {
        self.position = mark.position;
        self.companion = mark.companion;
        self.deferred.truncate(&mark.deferred);
        self.after.truncate(mark.after);
        let undo = mark.undo;
        for step in self.undo.drain(undo..).rev() {
            step();
        }
    }
}

impl Tx<'_> {
    /// Takes the next position. Every stored fact has one of its own.
    pub fn next_position(&mut self) -> Position {
        self.batch.position += 1;
        Position(self.batch.position)
    }

    /// The last position that a write has taken.
    #[must_use]
    pub fn head(&self) -> Position {
        Position(self.batch.position)
    }

    /// The companion as of this write's place in the order.
    #[must_use]
    pub fn companion(&self) -> Companion {
        Arc::clone(&self.batch.companion)
    }

    /// The value that [`Store::attach`](crate::Store::attach) attached.
    #[must_use]
    pub fn attached(&self) -> Option<Companion> {
        self.batch.attached.clone()
    }

    /// The value of the task that queued this write: see [`Store::with_context`](crate::Store::with_context).
    #[must_use]
    pub fn context(&self) -> Option<Companion> {
        self.context.clone()
    }

    /// Takes that value away, or puts it back. Returns the one before.
    pub fn swap_context(&mut self, new: Option<Companion>) -> Option<Companion> {
        std::mem::replace(&mut self.context, new)
    }

    /// Replaces the companion for the following writes. Only for a closure given to
    /// [`Store::write_alone`](crate::Store::write_alone).
    pub fn swap_companion(&mut self, new: Companion) {
        self.batch.companion = new;
    }

    /// Records that this write owes an appservice something. After the commit, the listener of
    /// [`Store::on_commit`](crate::Store::on_commit) receives it.
    pub(crate) fn owes(&mut self, service: &str, at: Position) {
        // The sender may have looked up to a later position already.
        let up_to = (at.0 > self.start).then_some(at);
        let known = (self.batch.owed.iter_mut()).find(|(known, _)| known.as_str() == service);
        match known {
            Some((_, known)) => *known = covering(*known, up_to),
            None => drop(self.batch.owed.insert(ServiceId::from(service), up_to)),
        }
    }

    /// The connection, for queries of tables without deferred rows, such as devices, accounts and rooms. Does not insert the
    /// deferred rows.
    pub fn without_deferred(&mut self) -> &mut Conn {
        self.conn
    }

    /// Records that rows of this name were added or will be.
    pub(crate) fn added(&mut self, name: std::fmt::Arguments<'_>, rows: usize) {
        self.conn.added(name, rows);
    }

    /// Records that rows of this name were removed.
    pub(crate) fn removed(&mut self, name: std::fmt::Arguments<'_>, rows: usize) {
        self.conn.removed(name, rows);
    }

    /// Records facts for people who look at a development server. Costs nothing if nothing is recorded.
    pub fn note<I: IntoIterator<Item = Fact>>(&mut self, facts: impl FnOnce() -> I) {
        self.conn.note(facts);
    }

    /// Runs `then` on the writer's thread after the commit, before the write is answered; not if the write is rolled back. It must be
    /// short and must not wait.
    pub fn after_commit(&mut self, then: impl FnOnce() + Send + 'static) {
        self.batch.after.push(Box::new(then));
    }

    /// Runs `undo` if the write is rolled back, before it runs again. For the few writes that also change memory.
    pub fn on_rollback(&mut self, undo: impl FnOnce() + Send + 'static) {
        self.batch.undo.push(Box::new(undo));
    }
}

impl Deref for Tx<'_> {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        self.conn
    }
}

impl DerefMut for Tx<'_> {
    /// Inserts the deferred rows first, so that a statement sees every row of the transaction.
    fn deref_mut(&mut self) -> &mut Conn {
        self.batch.catch_up(self.conn);
        self.conn
    }
}
