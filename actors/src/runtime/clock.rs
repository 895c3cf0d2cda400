//! Time: the system's clock, or one that a test moves by hand. No other file reads a clock.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

/// The source of time. It has two kinds of time:
///
/// - [`Clock::now`] is the wall clock, for time stamps in events, in rows and for people. It can jump in either direction when
///   an operator or a time server sets it.
/// - [`Clock::monotonic`] only grows, and has no meaning after the process has ended. Every duration is measured with it:
///   back-off, time-outs, typing, rate limits, how long something is cached. [`Clock::sleep`] waits by it.
#[derive(Clone)]
pub enum Clock {
    /// The system's clock.
    System,
    /// A clock that stands still until [`Clock::advance`].
    Manual(Arc<Manual>),
}

/// The wall clock and the monotonic clock, read together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// [`Clock::now`].
    pub(crate) wall: i64,
    /// [`Clock::monotonic`].
    pub(crate) monotonic: i64,
}

/// A clock that stands still.
pub struct Manual {
    state: Mutex<ManualState>,
}

struct ManualState {
    /// The wall clock.
    now: i64,
    monotonic: i64,
    next: u64,
    waiting: BTreeMap<(i64, u64), oneshot::Sender<()>>,
}

impl Clock {
    /// A clock that stands still at `now`, in milliseconds since the epoch.
    pub fn manual(now: i64) -> Clock {
        Clock::Manual(Arc::new(Manual {
            state: Mutex::new(ManualState {
                now,
                monotonic: 0,
                next: 0,
                waiting: BTreeMap::new(),
            }),
        }))
    }

    /// The wall clock, in milliseconds since the epoch. Use it for time stamps only: the difference of two readings is not a
    /// duration.
    pub fn now(&self) -> i64 {
        match self {
            #[expect(
                clippy::disallowed_methods,
                reason = "this is the one place that reads the system's clock"
            )]
            Clock::System => {
                let elapsed = SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default();
                i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
            }
            Clock::Manual(manual) => manual.state.lock().map_or(0, |s| s.now),
        }
    }

    /// Milliseconds since an arbitrary moment of this process. It never goes back.
    pub fn monotonic(&self) -> i64 {
        /// The time of the first call.
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        match self {
            Clock::System => millis(START.elapsed()),
            Clock::Manual(manual) => manual.state.lock().map_or(0, |s| s.monotonic),
        }
    }

    /// Both times.
    pub(crate) fn both(&self) -> Times {
        Times {
            wall: self.now(),
            monotonic: self.monotonic(),
        }
    }

    /// A future that resolves after `time`.
    pub fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send + use<> {
        let waiting = match self {
            Clock::System => None,
            Clock::Manual(manual) => Some(manual.wait(time)),
        };
        async move {
            match waiting {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "this is the one place that sleeps"
                )]
                None => tokio::time::sleep(time).await,
                Some(woken) => {
                    // An error means that the clock was dropped; that happens only at the end of a test.
                    let _ = woken.await;
                }
            }
        }
    }

    /// Advance a manual clock and wake the sleepers that are due. No effect on the system's clock.
    pub fn advance(&self, time: Duration) {
        if let Clock::Manual(manual) = self {
            manual.advance(time);
        }
    }

    /// Set the wall clock of a manual clock without any time passing. No effect on the system's clock.
    pub fn set_wall(&self, now: i64) {
        if let Clock::Manual(manual) = self
            && let Ok(mut state) = manual.state.lock()
        {
            state.now = now;
        }
    }

    /// Whether this is a manual clock.
    pub fn is_manual(&self) -> bool {
        matches!(self, Clock::Manual(_))
    }
}

impl Manual {
    fn wait(&self, time: Duration) -> oneshot::Receiver<()> {
        let (wake, woken) = oneshot::channel();
        if let Ok(mut state) = self.state.lock() {
            let at = state.monotonic.saturating_add(millis(time));
            if at <= state.monotonic {
                let _ = wake.send(());
            } else {
                state.next += 1;
                let order = state.next;
                state.waiting.insert((at, order), wake);
            }
        }
        woken
    }

    fn advance(&self, time: Duration) {
        let Ok(mut state) = self.state.lock() else {
            return;
        };
        state.now = state.now.saturating_add(millis(time));
        state.monotonic = state.monotonic.saturating_add(millis(time));
        let end = (state.monotonic.saturating_add(1), 0);
        let later = state.waiting.split_off(&end);
        let due = std::mem::replace(&mut state.waiting, later);
        drop(state);
        for wake in due.into_values() {
            // The receiver may have been dropped.
            let _ = wake.send(());
        }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn manual_time_moves_only_by_hand() {
        let clock = Clock::manual(1_000);
        let sleep = clock.sleep(Duration::from_secs(1));
        clock.advance(Duration::from_millis(999));
        tokio::select! {
            biased;
            () = sleep => panic!("woke a millisecond early"),
            () = std::future::ready(()) => {}
        }
        let sleep = clock.sleep(Duration::from_millis(1));
        clock.advance(Duration::from_millis(1));
        sleep.await;
        assert_eq!((clock.now(), clock.monotonic()), (2_000, 1_000));
    }

    #[actix::test]
    async fn setting_the_wall_clock_changes_no_duration() {
        let clock = Clock::manual(1_000_000);
        let sleep = clock.sleep(Duration::from_secs(1));
        clock.set_wall(0);
        clock.advance(Duration::from_secs(1));
        sleep.await;
        assert_eq!((clock.now(), clock.monotonic()), (1_000, 1_000));
        let sleep = clock.sleep(Duration::from_secs(1));
        clock.set_wall(9_000_000);
        tokio::select! {
            biased;
            () = sleep => panic!("no time has passed"),
            () = std::future::ready(()) => {}
        }
        assert_eq!(clock.monotonic(), 1_000);
    }
}
