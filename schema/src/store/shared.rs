//! What the threads of a store share with its handles.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use crate::Position;
use crate::store::faults::Faults;
use crate::store::job::{Order, Report};
use crate::store::pool::Pool;
use crate::store::tx::{Batch, Companion, OwedServices};

/// Called after a commit with the position of the last committed line of the device-list log.
pub(crate) type Listener = dyn Fn(Position) + Send + Sync;

/// Called after a commit with the services that are owed something by it.
pub(crate) type OwedListener = dyn Fn(&OwedServices) + Send + Sync;

/// Called when a write is queued, with the type of its closure.
pub(crate) type Recorder = dyn Fn(&'static str) -> Report + Send + Sync;

/// See the module; clones are one.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Inner>);

pub(crate) struct Inner {
    /// How many writes wait or run.
    pub(crate) waiting: AtomicUsize,
    pub(crate) faults: Faults,
    /// The reads that wait, and the readers.
    pub(crate) reads: Pool,
    companion: RwLock<Companion>,
    head: AtomicI64,
    /// The last committed line of the device-list log, as far as is known.
    logged: AtomicI64,
    listener: OnceLock<Box<Listener>>,
    owed_listener: OnceLock<Box<OwedListener>>,
    /// Makes what records a write, from the type of its closure.
    pub(crate) recorder: OnceLock<Box<Recorder>>,
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
    /// Everything committed up to this position; the file, if there is one, is locked.
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
            // What an earlier run appended is at most here.
            logged: AtomicI64::new(head),
            listener: OnceLock::new(),
            owed_listener: OnceLock::new(),
            recorder: OnceLock::new(),
            ended: AtomicBool::new(false),
            lock: Mutex::new(lock),
            writer,
        }))
    }

    /// A transaction is on the disk.
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

    /// Call this after each commit with the end of the device-list log. The first listener stays.
    pub(crate) fn listen(&self, listener: Box<Listener>) {
        let _ = self.listener.set(listener);
    }

    /// Call this after each commit with what it owes. The first listener stays.
    pub(crate) fn listen_for_owed(&self, listener: Box<OwedListener>) {
        let _ = self.owed_listener.set(listener);
    }

    /// No line of the device-list log above this is committed.
    pub(crate) fn logged(&self) -> Position {
        Position(self.logged.load(Ordering::Acquire))
    }

    /// Everything up to here is committed.
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

    /// Behave like a killed process from now on: see [`Fault::End`](crate::store::faults::Fault::End).
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.reads.close();
        if let Some(writer) = self.writer.upgrade() {
            // Wakes it; a writer that has stopped needs no waking.
            let _ = writer.send(Order::Close);
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Let go of the database. Only when no thread uses it any more.
    pub(crate) fn unlock(&self) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
