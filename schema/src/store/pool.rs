//! The queue of the reads, which the threads that read share.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Error;
use crate::store::conn::Conn;

/// How many threads read.
pub(crate) const READERS: usize = 2;

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
    pub(crate) fn next(&self) -> Option<(Read, bool)> {
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
    pub(crate) fn disconnected(&self) {
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
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let closed = |state: &mut State| !state.closed;
        let waited = self.closing.wait_timeout_while(self.state(), time, closed);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }
}

/// The place of a read that may take long. It is given back however the read ends, also by a panic of the thread: the other reader
/// waits for it before it ends.
pub(crate) struct SlowPlace<'a>(pub(crate) &'a Pool);

impl Drop for SlowPlace<'_> {
    fn drop(&mut self) {
        self.0.state().slow_running -= 1;
        self.0.queued.notify_one();
    }
}
