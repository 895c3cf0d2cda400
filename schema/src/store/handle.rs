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

/// The most writes of requests that may wait. Beyond it a request is told to come back later: memory does not grow.
pub const QUEUE: usize = 2048;

/// A handle to the database; clones share the one writer and the readers.
#[derive(Clone)]
pub struct Store {
    pub(super) queue: Arc<Sender<Order>>,
    pub(super) shared: Shared,
    pub(super) threads: Arc<Threads>,
    pub(super) engine: &'static str,
}

/// The storage's threads. They end when the last handle is dropped.
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
    /// Which engine this is: `sqlite` or `postgres`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        self.engine
    }

    /// Change something for a request. The closure is queued before this returns, so the order of calls is the order of writes;
    /// the future answers when the change is on the disk, or with the error that undid it.
    ///
    /// The closure can run more than once: see [`Tx`].
    ///
    /// # Errors
    /// [`Error::Busy`] when more than [`QUEUE`] writes wait; whatever the closure answers; [`Error::RolledBack`] when its transaction could not begin or be committed.
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

    /// Change something that no request waits for: like [`Store::write`], and never refused.
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

    /// Change something in a batch of its own: everything queued before is committed first, everything after sees its result.
    /// For changes that swap the companion.
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

    /// Change something that nothing waits for: like [`Store::write_always`], but a commit of its own is not worth it. It shares the next
    /// one, at its end, after writes that were queued later; without any it runs after two milliseconds, or with [`Store::hurry`].
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

    /// Change something that other writes soon follow from: like [`Store::write_always`], in the order of calls, but in the commit of the
    /// next write. Without any it runs after two milliseconds, or with [`Store::hurry`].
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

    /// Something waits now for a [`Store::write_later`] or a [`Store::write_with_next`].
    pub fn hurry(&self) {
        // A writer that has stopped runs nothing any more.
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
        let (job, answer) = Job::new(write, turn, report);
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        if self.queue.send(Order::Write(job)).is_err() {
            self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(Error::Stopped);
        }
        Ok(answer)
    }

    /// Wait for what was queued, if it was.
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

    /// Look something up, in one snapshot, without waiting for the writer. Sees every write that has been answered.
    ///
    /// # Errors
    /// Whatever the closure answers; [`Error::Unreachable`] while no reader has a connection; [`Error::Stopped`] when the readers
    /// are gone.
    pub fn read<T, E, F>(&self, read: F) -> impl Future<Output = Result<T, E>> + Send + 'static
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&mut Conn) -> Result<T, E> + Send + 'static,
    {
        self.read_in(false, read)
    }

    /// The same for a read that may take long: one reader is always left to the others.
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
                    catch_unwind(AssertUnwindSafe(|| read(conn)))
                        .unwrap_or_else(|_| Err(E::from(Error::Panicked("a read".to_owned()))))
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

    /// The last position that is committed.
    #[must_use]
    pub fn head(&self) -> Position {
        self.shared.head()
    }

    /// Call this after each commit that changed rows, with the position of the last line of the device-list log, which is higher than
    /// before when the commit appended to it. Called by the writer's thread, before any write of that commit is answered; only the
    /// first listener is called.
    pub fn on_device_list_log(&self, listener: impl Fn(Position) + Send + Sync + 'static) {
        self.shared.listen(Box::new(listener));
    }

    /// Call this after each commit that changed rows, with the services that are owed something by it. Called by the writer's thread,
    /// before any write of that commit is answered; only the first listener is called.
    pub fn on_commit(&self, listener: impl Fn(&OwedServices) + Send + Sync + 'static) {
        self.shared.listen_for_owed(Box::new(listener));
    }

    /// Record what each write does: call this when one is queued, in the task that queues it, with the type of its closure; what it
    /// answers is called when the write is committed. Only the first recorder is called.
    pub fn record_writes(&self, recorder: impl Fn(&'static str) -> Report + Send + Sync + 'static) {
        let _ = self.shared.recorder.set(Box::new(recorder));
    }

    /// No line of the device-list log above this position is committed.
    #[must_use]
    pub fn device_list_log(&self) -> Position {
        self.shared.logged()
    }

    /// The companion of the tables, as last committed.
    #[must_use]
    pub fn companion(&self) -> Companion {
        self.shared.companion()
    }

    /// How many writes wait or run.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(Ordering::Acquire)
    }

    /// Finish what is queued, end the threads, and let go of the database, whoever still has a handle: from then on they are
    /// told [`Error::Stopped`].
    pub fn close(&self) {
        // A thread that has ended already needs no telling.
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

/// What was answered. A storage that was ended by a fault answers nothing, for ever.
async fn unless_ended<T>(answered: Result<T>, shared: &Shared) -> Result<T> {
    if shared.has_ended() {
        std::future::pending::<()>().await;
    }
    answered
}
