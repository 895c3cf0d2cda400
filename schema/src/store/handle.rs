//! The handle to the database: [`Store::write`] and [`Store::read`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::error::{Error, Result, WriteError};
use crate::store::conn::Conn;
use crate::store::job::{Job, Order, Report, Turn};
use crate::store::pool::Read;
use crate::store::position::Position;
use crate::store::shared::Shared;
use crate::store::tx::{Companion, OwedServices, Tx};

/// The most writes of requests that can wait. Further ones are refused with [`Error::Busy`], so that memory does not grow.
pub const QUEUE: usize = 2048;

/// A handle to the database. Clones share the writer and the readers.
#[derive(Clone)]
pub struct Store {
    pub(super) queue: Arc<Sender<Order>>,
    pub(super) shared: Shared,
    pub(super) threads: Arc<Threads>,
    pub(super) engine: &'static str,
}

/// The threads of the storage. They end when the last handle is dropped.
pub(super) struct Threads {
    pub(super) running: Mutex<Vec<std::thread::JoinHandle<()>>>,
    pub(super) shared: Shared,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.reads.close();
    }
}

impl Store {
    /// The engine: `sqlite` or `postgres`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        self.engine
    }

    /// Makes a change for a request. The closure is queued before this returns, so writes happen in the order of the calls. The
    /// future completes when the change is on the disk, or with the error because of which it was undone.
    ///
    /// The closure can run more than once: see [`Tx`].
    ///
    /// # Errors
    /// [`Error::Busy`] if [`QUEUE`] writes wait; [`Error::RolledBack`] if its transaction could not begin or be committed;
    /// otherwise the error of the closure.
    pub fn write<T, E, F>(&self, write: F) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: WriteError,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let full = self.shared.waiting.load(Ordering::Acquire) >= QUEUE;
        let queued = if full {
            Err(Error::Busy)
        } else {
            self.enqueue(write, Turn::Next)
        };
        self.answer(queued)
    }

    /// Makes a change that no request waits for. Like [`Store::write`], but never refused.
    pub fn write_always<T, E, F>(
        &self,
        write: F,
    ) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: WriteError,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.answer(self.enqueue(write, Turn::Next))
    }

    /// Makes a change in a batch of its own: everything queued before it is committed first, and everything queued after it sees
    /// its result. Used for changes that swap the companion: see [`Tx::swap_companion`].
    pub fn write_alone<T, E, F>(
        &self,
        write: F,
    ) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: WriteError,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.answer(self.enqueue(write, Turn::Alone))
    }

    /// Makes a change that nothing waits for and that needs no commit of its own. Like [`Store::write_always`], but it runs at the
    /// end of the next commit, after writes that were queued later. If no other write comes, it runs after two milliseconds, or
    /// with [`Store::hurry`].
    pub fn write_later<T, E, F>(
        &self,
        write: F,
    ) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: WriteError,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.answer(self.enqueue(write, Turn::Later))
    }

    /// Makes a change that other writes soon follow. Like [`Store::write_always`], in the order of the calls, but in the commit of
    /// the next write. If no other write comes, it runs after two milliseconds, or with [`Store::hurry`].
    pub fn write_with_next<T, E, F>(
        &self,
        write: F,
    ) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: WriteError,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        self.answer(self.enqueue(write, Turn::WithNext))
    }

    /// Runs now what was queued with [`Store::write_later`] or [`Store::write_with_next`], because something waits for it.
    pub fn hurry(&self) {
        // If the writer has stopped, there is nothing to run.
        let _ = self.queue.send(Order::Hurry);
    }

    fn enqueue<T, E, F>(&self, write: F, turn: Turn) -> Result<oneshot::Receiver<Result<T, E>>>
    where
        T: Send + 'static,
        E: WriteError,
        F: Fn(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
    {
        let recorder = self.shared.recorder.get();
        let report = recorder.map(|recorder| recorder(std::any::type_name::<F>()));
        let context = self.shared.context.get().and_then(|context| context());
        let (job, answer) = Job::new(write, turn, report, context);
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        if self.queue.send(Order::Write(job)).is_err() {
            self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(Error::Stopped);
        }
        Ok(answer)
    }

    /// Waits for the answer of a queued write, or returns the error because of which it was not queued.
    fn answer<T, E>(
        &self,
        queued: Result<oneshot::Receiver<Result<T, E>>>,
    ) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: WriteError,
    {
        let shared = self.shared.clone();
        async move {
            let answered = match queued {
                Ok(answer) => answer.await.map_err(|_| Error::Stopped),
                Err(error) => Err(error),
            };
            unless_ended(answered, &shared).await?
        }
    }

    /// Makes a query in one snapshot, without waiting for the writer. It sees every write that has been answered.
    ///
    /// # Errors
    /// [`Error::Unreachable`] while no reader has a connection; [`Error::Stopped`] if the storage is closed; otherwise the error of
    /// the closure.
    pub fn read<T, E, F>(&self, read: F) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, E> + Send + 'static,
    {
        self.read_in(false, read)
    }

    /// Makes a query that can take long. Like [`Store::read`], but such queries never occupy all readers.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn read_slow<T, E, F>(&self, read: F) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, E> + Send + 'static,
    {
        self.read_in(true, read)
    }

    fn read_in<T, E, F>(
        &self,
        slow: bool,
        read: F,
    ) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, E> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new({
            let shared = self.shared.clone();
            move |conn| {
                let outcome = conn.map_err(E::from).and_then(|conn| {
                    catch_unwind(AssertUnwindSafe(|| read(conn))).unwrap_or_else(|_| {
                        Err(E::from(Error::Panicked("during a read".to_owned())))
                    })
                });
                if !shared.has_ended() {
                    let _ = reply.send(outcome);
                }
            }
        });
        if let Err((read, error)) = self.shared.reads.push(read, slow) {
            read(Err(error));
        }
        let shared = self.shared.clone();
        async move {
            let answered = answer.await.map_err(|_| Error::Stopped);
            unless_ended(answered, &shared).await?
        }
    }

    /// The whole database as the bytes of an SQLite file, with every write that has been answered: see [`Image`](crate::Image).
    ///
    /// # Errors
    /// As [`Store::read`]; and [`Error::Damaged`] on PostgreSQL, where there is no such file.
    pub fn image(&self) -> impl Future<Output = Result<Vec<u8>>> + Send + 'static {
        self.hurry();
        self.read_slow(|db| {
            let none = || Error::Damaged("the database has no file to copy".to_owned());
            db.image().ok_or_else(none)
        })
    }

    /// The last committed position.
    #[must_use]
    pub fn head(&self) -> Position {
        self.shared.head()
    }

    /// Sets a listener that is called after each commit that changed rows, with the position of the last line of the device-list
    /// log. The position is higher than before if the commit appended to the log. The writer's thread calls the listener before any
    /// write of the commit is answered. Only the first listener is kept.
    pub fn on_device_list_log(&self, listener: impl Fn(Position) + Send + Sync + 'static) {
        self.shared.listen(Box::new(listener));
    }

    /// Sets a listener that is called after each commit that changed rows, with the appservices that are owed something by it. The
    /// writer's thread calls the listener before any write of the commit is answered. Only the first listener is kept.
    pub fn on_commit(&self, listener: impl Fn(&OwedServices) + Send + Sync + 'static) {
        self.shared.listen_for_owed(Box::new(listener));
    }

    /// Sets a listener that is called after each commit that changed rows, with the number of its writes and the time from its begin
    /// to the end of the commit. The writer's thread calls the listener before any write of the commit is answered. Only the first
    /// listener is kept.
    pub fn on_batch(&self, listener: impl Fn(usize, std::time::Duration) + Send + Sync + 'static) {
        let _ = self.shared.batch_listener.set(Box::new(listener));
    }

    /// Whether the last commit failed because of the machine or the database server, such as a full disk, and none has succeeded
    /// since.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.shared.failing.load(Ordering::Acquire)
    }

    /// Sets a recorder of what writes do. It is called when a write is queued, in the task that queues it, with the type of the
    /// closure; the [`Report`] that it returns is called when the write is committed. Only the first recorder is kept.
    pub fn record_writes(&self, recorder: impl Fn(&'static str) -> Report + Send + Sync + 'static) {
        let _ = self.shared.recorder.set(Box::new(recorder));
    }

    /// Sets a function that is called when a write is queued, in the task that queues it. The write reads the value with
    /// [`Tx::context`](crate::Tx::context). Only the first function is kept.
    pub fn with_context(&self, context: impl Fn() -> Option<Companion> + Send + Sync + 'static) {
        let _ = self.shared.context.set(Box::new(context));
    }

    /// Attaches a value that each write can read with [`Tx::attached`](crate::Tx::attached). Only the first value is kept.
    pub fn attach(&self, value: Companion) {
        let _ = self.shared.attached.set(value);
    }

    /// No line of the device-list log above this position is committed.
    #[must_use]
    pub fn device_list_log(&self) -> Position {
        self.shared.logged()
    }

    /// The companion as of the last commit.
    #[must_use]
    pub fn companion(&self) -> Companion {
        self.shared.companion()
    }

    /// The number of writes that wait or run.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// Completes what is queued, ends the threads, and releases the database. All later calls through any handle fail with
    /// [`Error::Stopped`].
    pub fn close(&self) {
        // A thread that has ended already does not receive this.
        let _ = self.queue.send(Order::Close);
        self.shared.reads.close();
        let threads = self
            .threads
            .running
            .lock()
            .map(|mut t| std::mem::take(&mut *t))
            .unwrap_or_default();
        for thread in threads {
            let _ = thread.join();
        }
        self.shared.unlock();
    }
}

/// Returns the answer. If a fault ended the storage, it never returns.
async fn unless_ended<T>(answered: Result<T>, shared: &Shared) -> Result<T> {
    if shared.has_ended() {
        std::future::pending::<()>().await;
    }
    answered
}
