//! What a write works with: the connection, the counter, the companion; and what is undone when it is rolled back.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::ServiceId;
use crate::store::deferred::{Deferred, Lengths};
use crate::{Conn, Error, Position};

/// Memory that goes with the tables: its owner gives it, each write sees it as of its place in the order, and a commit swaps it. The
/// storage does not know what it is.
pub type Companion = Arc<dyn Any + Send + Sync>;

/// What a write closure works with: the connection (it dereferences to [`Conn`]), the counter, and the companion.
///
/// A closure can run twice: a batch that fails is rolled back and run again in smaller parts. So it takes time and chance from
/// outside, and changes nothing but rows. It opens no transactions: it already runs in one.
pub struct Tx<'a> {
    pub(crate) conn: &'a mut Conn,
    pub(crate) batch: &'a mut Batch,
    /// The last position before this write.
    pub(crate) start: i64,
}

/// The services that are owed something, each with the newest position of an item; none where an item has a position that is older
/// than the write that owes it.
pub type OwedServices = BTreeMap<ServiceId, Option<Position>>;

/// The position that covers both, where both have one.
#[must_use]
pub fn covering(one: Option<Position>, other: Option<Position>) -> Option<Position> {
    one.zip(other).map(|(one, other)| one.max(other))
}

/// What the writes of one transaction have changed besides rows.
pub(crate) struct Batch {
    pub(crate) position: i64,
    pub(crate) companion: Companion,
    /// Whether any of its writes changed rows.
    pub(crate) wrote: bool,
    /// The last line that its writes appended to the device-list log.
    pub(crate) logged: Option<Position>,
    /// The services that are owed something by its writes, or by a write of it that was refused: a hint too many does no harm.
    pub(crate) owed: OwedServices,
    /// The rows that are not written yet.
    pub(crate) deferred: Deferred,
    /// The error with which they could not be written.
    pub(crate) failed: Option<Error>,
    /// How often rows were written that were deferred.
    pub(crate) caught_up: usize,
    undo: Vec<Box<dyn FnOnce() + Send>>,
}

/// A state of a transaction to which it can return.
pub(crate) struct Mark {
    position: i64,
    companion: Companion,
    undo: usize,
    deferred: Lengths,
}

impl Batch {
    pub(crate) fn new(position: i64, companion: Companion) -> Batch {
        Batch {
            position,
            companion,
            wrote: false,
            logged: None,
            owed: OwedServices::new(),
            deferred: Deferred::default(),
            failed: None,
            caught_up: 0,
            undo: Vec::new(),
        }
    }

    /// The state to return to when the next write is refused.
    pub(crate) fn mark(&self) -> Mark {
        Mark {
            position: self.position,
            companion: Arc::clone(&self.companion),
            undo: self.undo.len(),
            deferred: self.deferred.lengths(),
        }
    }

    /// Write the deferred rows: what comes next can see them.
    pub(crate) fn catch_up(&mut self, conn: &mut Conn) {
        if self.deferred.is_empty() || self.failed.is_some() {
            return;
        }
        // They are the batch's, not those of the write that happens to look.
        let wrote = conn.take_wrote();
        if let Err(error) = self.deferred.write(conn) {
            self.failed = Some(error);
        }
        conn.take_wrote();
        conn.set_wrote(wrote);
        self.wrote = true;
        self.caught_up += 1;
    }

    /// Return to this state. The latest change is undone first.
    pub(crate) fn return_to(&mut self, mark: Mark) {
        self.position = mark.position;
        self.companion = mark.companion;
        self.deferred.truncate(&mark.deferred);
        let undo = mark.undo;
        for step in self.undo.drain(undo..).rev() {
            step();
        }
    }
}

impl Tx<'_> {
    /// The next position. Every durable fact takes one of its own.
    pub fn next_position(&mut self) -> Position {
        self.batch.position += 1;
        Position(self.batch.position)
    }

    /// The last position handed out.
    #[must_use]
    pub fn head(&self) -> Position {
        Position(self.batch.position)
    }

    /// The companion, as of this place in the order of writes.
    #[must_use]
    pub fn companion(&self) -> Companion {
        Arc::clone(&self.batch.companion)
    }

    /// From the next write on, this is the companion. Only in a closure given to `Store::write_alone`: the commit swaps it.
    pub fn swap_companion(&mut self, new: Companion) {
        self.batch.companion = new;
    }

    /// This service is owed something by this write. The listener of [`Store::on_commit`](crate::Store::on_commit) is called with it
    /// when it is committed.
    pub(crate) fn owes(&mut self, service: &str, at: Position) {
        // An item at an earlier position can be below one up to which its sender has looked.
        let up_to = (at.0 > self.start).then_some(at);
        let known = (self.batch.owed.iter_mut()).find(|(known, _)| known.as_str() == service);
        match known {
            Some((_, known)) => *known = covering(*known, up_to),
            None => drop(self.batch.owed.insert(ServiceId::from(service), up_to)),
        }
    }

    /// The connection, for questions about tables that no deferred row is of: devices, accounts, rooms.
    pub fn beside(&mut self) -> &mut Conn {
        self.conn
    }

    /// Rows of this name were added, or will be, for the record of what the write did.
    pub(crate) fn added(&mut self, name: std::fmt::Arguments<'_>, rows: usize) {
        self.conn.added(name, rows);
    }

    /// Rows of this name were removed.
    pub(crate) fn removed(&mut self, name: std::fmt::Arguments<'_>, rows: usize) {
        self.conn.removed(name, rows);
    }

    /// Run this when the write is rolled back, before it runs again: for the rare write that changes memory too.
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
    /// Whatever is asked of the connection sees every row of the transaction.
    fn deref_mut(&mut self) -> &mut Conn {
        self.batch.catch_up(self.conn);
        self.conn
    }
}
