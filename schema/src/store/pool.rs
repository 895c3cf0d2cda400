//! The queue of reads, which the reader threads share.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Error;
use crate::store::conn::Conn;

/// The number of reader threads.
pub(crate) const READERS: usize = 2;

/// A read. It is called with a connection in a snapshot, or with the reason why there is none.
pub(crate) type Read = Box<dyn FnOnce(Result<&mut Conn, Error>) + Send>;

/// The waiting reads.
#[derive(Default)]
pub(crate) struct Pool {
    state: Mutex<PoolState>,
    /// Wakes a reader that waits for a read.
    queued: Condvar,
    /// Wakes the readers that pause before they connect again.
    closing: Condvar,
}

#[derive(Default)]
struct PoolState {
    queue: VecDeque<Read>,
    /// Reads that can take long. One reader never takes them, so that short reads do not wait behind them.
    slow: VecDeque<Read>,
    /// The number of slow reads that run.
    slow_running: usize,
    /// The number of readers with a connection.
    connected: usize,
    closed: bool,
}

impl Pool {
    fn state(&self) -> MutexGuard<'_, PoolState> {
        // A panic leaves no change half done: each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a read, or returns it with the reason why it cannot be served.
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

    /// Ends the readers once the queue is empty.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.queued.notify_all();
        self.closing.notify_all();
    }

    /// Waits for the next read, and says whether it is a slow one. `None` if the pool is closed and empty.
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

    /// Records that a reader has lost its connection. If no reader has one now, all waiting reads are refused.
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

    /// Waits for this time. Returns whether the pool is still open.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let closed = |state: &mut PoolState| !state.closed;
        let waited = self.closing.wait_timeout_while(self.state(), time, closed);
        !waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }
}

/// The permission to run a slow read. It is returned however the read ends, also after a panic of the thread, because the other
/// reader waits for it before it ends.
pub(crate) struct SlowPlace<'a>(pub(crate) &'a Pool);

impl Drop for SlowPlace<'_> {
    fn drop(&mut self) {
        self.0.state().slow_running -= 1;
        self.0.queued.notify_one();
    }
}
