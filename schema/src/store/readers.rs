//! The threads that read, each with a connection of its own, and the queue that they share.
//!
//! A reader that has lost its connection takes no read until it has another one. While no reader has a connection, reads are
//! refused at once: a request is told to come back later, and does not wait.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use diesel::prelude::*;

use crate::Conn;
use crate::error::Error;
use crate::store::conn::{Engine, Url};
use crate::store::faults::{Fault, Point};
use crate::store::shared::Shared;

/// How many threads read.
pub(crate) const READERS: usize = 2;

/// How long a reader waits before it tries to connect again: at first, and at most. It doubles each time.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// A read: given a connection in a snapshot, or the reason why there is none.
pub(crate) type Read = Box<dyn FnOnce(Result<&mut Conn, Error>) + Send>;

/// The reads that wait.
#[derive(Default)]
pub(crate) struct Pool {
    state: Mutex<State>,
    /// Wakes a reader that waits for a read.
    queued: Condvar,
    /// Wakes the readers that wait before they connect again.
    closing: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Read>,
    /// Reads that may take long. They never have all readers: what takes moments does not wait behind them.
    slow: VecDeque<Read>,
    /// How many of them run.
    slow_running: usize,
    /// How many readers have a connection.
    connected: usize,
    closed: bool,
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done by a panic: each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queue a read, or give it back with the reason why it cannot be served.
    pub(crate) fn push(&self, read: Read, slow: bool) -> Result<(), (Read, Error)> {
        let mut state = self.state();
        if state.closed {
            return Err((read, Error::Stopped));
        }
        if state.connected == 0 {
            return Err((read, Error::Unreachable));
        }
        if slow {
            state.slow.push_back(read);
        } else {
            state.queue.push_back(read);
        }
        self.queued.notify_one();
        Ok(())
    }

    /// End the readers, after what is queued.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.queued.notify_all();
        self.closing.notify_all();
    }

    /// The next read, and whether it may take long; `None` when there will be no more.
    fn next(&self) -> Option<(Read, bool)> {
        let mut state = self.state();
        loop {
            if state.slow_running < READERS - 1
                && let Some(read) = state.slow.pop_front()
            {
                state.slow_running += 1;
                return Some((read, true));
            }
            if let Some(read) = state.queue.pop_front() {
                return Some((read, false));
            }
            if state.closed && state.slow.is_empty() {
                return None;
            }
            state = self
                .queued
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn connected(&self) {
        self.state().connected += 1;
    }

    /// A reader has no connection any more. If it was the last, what waits is refused.
    fn disconnected(&self) {
        let refused = {
            let mut state = self.state();
            state.connected -= 1;
            if state.connected > 0 {
                return;
            }
            let slow = std::mem::take(&mut state.slow);
            (std::mem::take(&mut state.queue), slow)
        };
        for read in refused.0.into_iter().chain(refused.1) {
            read(Err(Error::Unreachable));
        }
    }

    /// Wait for this long. Whether the pool is still open.
    fn pause(&self, time: Duration) -> bool {
        let closed = |state: &mut State| !state.closed;
        let waited = self.closing.wait_timeout_while(self.state(), time, closed);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }
}

/// The place of a read that may take long. It is given back however the read ends, also by a panic of the thread: the other reader
/// waits for it before it ends.
struct SlowPlace<'a>(&'a Pool);

impl Drop for SlowPlace<'_> {
    fn drop(&mut self) {
        self.0.state().slow_running -= 1;
        self.0.queued.notify_one();
    }
}

/// One reader's thread.
pub(crate) struct Reader {
    pub(crate) url: Url,
    pub(crate) conn: Conn,
    pub(crate) shared: Shared,
}

impl Reader {
    /// Serve the queue until it is closed. The pool counts this reader as connected already.
    pub(crate) fn run(mut self) {
        let shared = self.shared.clone();
        while let Some((read, slow)) = shared.reads.next() {
            let place = slow.then(|| SlowPlace(&shared.reads));
            let ended = shared.has_ended();
            // A storage that was ended answers nothing, not even an error.
            let good = !ended && self.serve(read, slow);
            drop(place);
            if ended || !good && !self.reconnect() {
                return;
            }
        }
    }

    /// Run a read in a snapshot. Whether the connection is still good.
    fn serve(&mut self, read: Read, slow: bool) -> bool {
        match self.begin() {
            Ok(()) => {
                read(Ok(&mut self.conn));
                self.end()
            }
            Err(_) if self.shared.has_ended() => false,
            Err(_) if !self.end() => {
                // Nothing was read yet: the session may have ended long ago. One attempt at a new one.
                if self.connect() && self.begin().is_ok() {
                    read(Ok(&mut self.conn));
                    return self.end();
                }
                self.pass_on(read, slow);
                false
            }
            Err(error) => {
                read(Err(error.into()));
                true
            }
        }
    }

    /// Let another reader serve it, if one is connected.
    fn pass_on(&self, read: Read, slow: bool) {
        if let Err((read, error)) = self.shared.reads.push(read, slow) {
            read(Err(error));
        }
    }

    /// A snapshot: what is seen in it belongs together.
    fn begin(&mut self) -> QueryResult<()> {
        match self.shared.faults.at(Point::ReadBegin) {
            Fault::None => {}
            Fault::End => self.shared.end(),
            Fault::Lost => self.conn.lose(),
            fault => {
                if let Some(error) = fault.error() {
                    return Err(error);
                }
            }
        }
        if self.shared.has_ended() {
            return Err(diesel::result::Error::NotInTransaction);
        }
        let begin = match self.conn.engine {
            Engine::Sqlite(_) => "BEGIN DEFERRED",
            Engine::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        self.conn.execute(begin)
    }

    /// End the snapshot. Whether the connection is still good.
    fn end(&mut self) -> bool {
        // SQLite may have rolled back by itself.
        self.conn.execute("ROLLBACK").is_ok() || !self.conn.is_postgres()
    }

    fn connect(&mut self) -> bool {
        match self.url.connect() {
            Ok(conn) => {
                self.conn = conn;
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a reader has no connection to the database");
                false
            }
        }
    }

    /// Connect again, with pauses that grow. Whether the pool is still open.
    fn reconnect(&mut self) -> bool {
        if self.shared.has_ended() {
            return false;
        }
        tracing::warn!("a reader has lost its connection to the database");
        self.shared.reads.disconnected();
        let mut pause = BACK_OFF.0;
        while !self.connect() {
            if !self.shared.reads.pause(pause) {
                return false;
            }
            pause = (pause * 2).min(BACK_OFF.1);
        }
        self.shared.reads.connected();
        tracing::info!("a reader is connected to the database again");
        true
    }
}
