//! State that the threads of a store share with its handles.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use crate::Position;
use crate::store::faults::Faults;
use crate::store::job::{Order, Report};
use crate::store::pool::Pool;
use crate::store::tx::{Batch, Companion, OwedServices};

/// Called after a commit with the position of the last committed line of the device-list log.
pub(crate) type Listener = dyn Fn(Position) + Send + Sync;

/// Called after a commit with the appservices that are owed something by it.
pub(crate) type OwedListener = dyn Fn(&OwedServices) + Send + Sync;

/// Called after a commit that changed rows, with the number of its writes and the time that it took.
pub(crate) type BatchListener = dyn Fn(usize, Duration) + Send + Sync;

/// Called when a write is queued, with the type of its closure.
pub(crate) type Recorder = dyn Fn(&'static str) -> Report + Send + Sync;

/// Called when a write is queued, in the task that queues it.
pub(crate) type ContextOf = dyn Fn() -> Option<Companion> + Send + Sync;

/// The shared state. Clones refer to the same one.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Inner>);

pub(crate) struct Inner {
    /// The number of writes that wait or run.
    pub(crate) waiting: AtomicUsize,
    pub(crate) faults: Faults,
    /// The queue of reads.
    pub(crate) reads: Pool,
    companion: RwLock<Companion>,
    head: AtomicI64,
    /// The position of the last committed line of the device-list log, or a later position after which none was committed.
    logged: AtomicI64,
    listener: OnceLock<Box<Listener>>,
    owed_listener: OnceLock<Box<OwedListener>>,
    pub(crate) batch_listener: OnceLock<Box<BatchListener>>,
    /// Whether the last transaction failed because of the machine or the database server.
    pub(crate) failing: AtomicBool,
    /// Makes the report of a write, from the type of its closure.
    pub(crate) recorder: OnceLock<Box<Recorder>>,
    /// Reads a value of the task that queues a write.
    pub(crate) context: OnceLock<Box<ContextOf>>,
    /// The value for functions that run in writes.
    pub(crate) attached: OnceLock<Companion>,
    ended: AtomicBool,
    lock: Mutex<Option<File>>,
    writer: Weak<Sender<Order>>,
}

impl std::ops::Deref for Shared {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Shared {
    /// The state when everything up to `head` is committed. `lock` is the locked file of an SQLite database.
    pub(crate) fn new(
        head: i64,
        faults: Faults,
        lock: Option<File>,
        writer: Weak<Sender<Order>>,
    ) -> Shared {
        Shared(Arc::new(Inner {
            waiting: AtomicUsize::new(0),
            faults,
            reads: Pool::default(),
            companion: RwLock::new(Arc::new(())),
            head: AtomicI64::new(head),
            // The lines that an earlier run appended are not after this position.
            logged: AtomicI64::new(head),
            listener: OnceLock::new(),
            owed_listener: OnceLock::new(),
            batch_listener: OnceLock::new(),
            failing: AtomicBool::new(false),
            recorder: OnceLock::new(),
            context: OnceLock::new(),
            attached: OnceLock::new(),
            ended: AtomicBool::new(false),
            lock: Mutex::new(lock),
            writer,
        }))
    }

    /// Publishes a committed transaction and calls the listeners.
    pub(crate) fn committed(&self, batch: &Batch) {
        if !Arc::ptr_eq(&self.companion(), &batch.companion) {
            let mut companion = self
                .companion
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            *companion = Arc::clone(&batch.companion);
        }
        self.head.store(batch.position, Ordering::Release);
        if let Some(line) = batch.logged {
            self.logged.store(line.0, Ordering::Release);
        }
        if !batch.wrote {
            return;
        }
        if let Some(listener) = self.listener.get() {
            listener(self.logged());
        }
        if let Some(listener) = self.owed_listener.get() {
            listener(&batch.owed);
        }
    }

    /// Sets the listener for the device-list log. Only the first one is kept.
    pub(crate) fn listen(&self, listener: Box<Listener>) {
        let _ = self.listener.set(listener);
    }

    /// Sets the listener for the appservices that a commit owes something. Only the first one is kept.
    pub(crate) fn listen_for_owed(&self, listener: Box<OwedListener>) {
        let _ = self.owed_listener.set(listener);
    }

    /// No line of the device-list log above this position is committed.
    pub(crate) fn logged(&self) -> Position {
        Position(self.logged.load(Ordering::Acquire))
    }

    /// Everything up to this position is committed.
    pub(crate) fn head(&self) -> Position {
        Position(self.head.load(Ordering::Acquire))
    }

    pub(crate) fn companion(&self) -> Companion {
        let companion = self
            .companion
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&companion)
    }

    /// Behaves like a killed process from now on: see [`Fault::End`](crate::store::faults::Fault::End).
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.reads.close();
        if let Some(writer) = self.writer.upgrade() {
            // Wakes the writer. If it has stopped, this has no effect.
            let _ = writer.send(Order::Close);
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Releases the database. Must be called when no thread uses it any more.
    pub(crate) fn unlock(&self) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
