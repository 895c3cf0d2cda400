//! Time: the system's clock, one that can be frozen and advanced, or one that a test moves by hand. No other file reads a clock.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{oneshot, watch};

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
    /// The system's clock, which can be frozen and advanced while sleepers wait.
    Adjustable(Arc<watch::Sender<Adjustment>>),
    /// A clock that stands still until [`Clock::advance`].
    Manual(Arc<Manual>),
}

/// How an adjustable clock differs from the system's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Adjustment {
    /// How many milliseconds each of its times is ahead.
    ahead: Times,
    /// Its times, while it is frozen.
    frozen: Option<Times>,
}

/// The wall clock and the monotonic clock, read together.
#[derive(Debug, Clone, Copy, Default)]
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

    /// The system's clock, which can be frozen and advanced.
    pub fn adjustable() -> Clock {
        Clock::Adjustable(Arc::new(watch::Sender::new(Adjustment::default())))
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
            Clock::Adjustable(clock) => clock.borrow().times().wall,
            Clock::Manual(manual) => manual.state.lock().map_or(0, |s| s.now),
        }
    }

    /// Milliseconds since an arbitrary moment of this process. It never goes back.
    pub fn monotonic(&self) -> i64 {
        /// The time of the first call.
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        match self {
            Clock::System => millis(START.elapsed()),
            Clock::Adjustable(clock) => clock.borrow().times().monotonic,
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
        enum Waiting {
            Real(Duration),
            Until(i64, watch::Receiver<Adjustment>),
            Woken(oneshot::Receiver<()>),
        }
        let waiting = match self {
            Clock::System => Waiting::Real(time),
            Clock::Adjustable(clock) => {
                let now = clock.borrow().times().monotonic;
                Waiting::Until(now.saturating_add(millis(time)), clock.subscribe())
            }
            Clock::Manual(manual) => Waiting::Woken(manual.wait(time)),
        };
        async move {
            match waiting {
                Waiting::Real(time) => really_sleep(time).await,
                Waiting::Until(end, changes) => sleep_until(end, changes).await,
                Waiting::Woken(woken) => {
                    // An error means that the clock was dropped; that happens only at the end of a test.
                    let _ = woken.await;
                }
            }
        }
    }

    /// Advance an adjustable or a manual clock and wake the sleepers that are due. No effect on the system's clock.
    pub fn advance(&self, time: Duration) {
        match self {
            Clock::System => {}
            Clock::Adjustable(clock) => {
                clock.send_modify(|adjustment| match &mut adjustment.frozen {
                    Some(times) => *times = times.later(millis(time)),
                    None => adjustment.ahead = adjustment.ahead.later(millis(time)),
                })
            }
            Clock::Manual(manual) => manual.advance(time),
        }
    }

    /// Freeze an adjustable clock, or let it run again from where it stood. Returns whether the clock is now as requested: a manual
    /// clock always stands still, and the system's always runs.
    pub fn freeze(&self, frozen: bool) -> bool {
        match self {
            Clock::System => !frozen,
            Clock::Adjustable(clock) => {
                clock.send_modify(|adjustment| match (adjustment.frozen, frozen) {
                    (None, true) => adjustment.frozen = Some(adjustment.times()),
                    (Some(stood), false) => {
                        let real = Clock::System.both();
                        adjustment.ahead = Times {
                            wall: stood.wall - real.wall,
                            monotonic: stood.monotonic - real.monotonic,
                        };
                        adjustment.frozen = None;
                    }
                    _ => {}
                });
                true
            }
            Clock::Manual(_) => frozen,
        }
    }

    /// Whether the clock stands still.
    pub fn is_frozen(&self) -> bool {
        match self {
            Clock::System => false,
            Clock::Adjustable(clock) => clock.borrow().frozen.is_some(),
            Clock::Manual(_) => true,
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

    /// Whether [`Clock::advance`] has an effect.
    pub fn can_advance(&self) -> bool {
        !matches!(self, Clock::System)
    }
}

impl Times {
    fn later(self, ms: i64) -> Times {
        Times {
            wall: self.wall.saturating_add(ms),
            monotonic: self.monotonic.saturating_add(ms),
        }
    }
}

impl Adjustment {
    fn times(&self) -> Times {
        self.frozen.unwrap_or_else(|| {
            let real = Clock::System.both();
            Times {
                wall: real.wall.saturating_add(self.ahead.wall),
                monotonic: real.monotonic.saturating_add(self.ahead.monotonic),
            }
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that sleeps"
)]
async fn really_sleep(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Sleep until the monotonic time of an adjustable clock is `end`.
async fn sleep_until(end: i64, mut changes: watch::Receiver<Adjustment>) {
    loop {
        let now = *changes.borrow_and_update();
        let Ok(left @ 1..) = u64::try_from(end.saturating_sub(now.times().monotonic)) else {
            return;
        };
        tokio::select! {
            () = really_sleep(Duration::from_millis(left)), if now.frozen.is_none() => {}
            // An error means that the clock was dropped; that happens only at the end of a test.
            changed = changes.changed() => if changed.is_err() { return },
        }
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

/// Measures how long something really takes, also while the clock stands still. For people who look at a development server: no
/// decision depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Start measuring.
    pub fn start() -> Stopwatch {
        Stopwatch(Instant::now())
    }

    /// The microseconds since the start.
    pub fn micros(self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
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
    async fn an_adjustable_clock_runs_jumps_and_stands_still() {
        let clock = Clock::adjustable();
        clock.sleep(Duration::from_millis(1)).await;
        let before = clock.both();
        let sleep = clock.sleep(Duration::from_secs(3_600));
        clock.advance(Duration::from_secs(3_600));
        sleep.await;
        assert!(clock.both().wall >= before.wall + 3_600_000);

        assert!(clock.freeze(true) && clock.is_frozen());
        let stood = clock.both();
        let sleep = clock.sleep(Duration::from_millis(2));
        let real = Clock::System.sleep(Duration::from_millis(20));
        tokio::select! {
            () = sleep => panic!("no time has passed"),
            () = real => {}
        }
        let sleep = clock.sleep(Duration::from_millis(2));
        assert_eq!(
            (clock.now(), clock.monotonic()),
            (stood.wall, stood.monotonic)
        );
        clock.advance(Duration::from_millis(1));
        assert_eq!(clock.monotonic(), stood.monotonic + 1);
        assert!(clock.freeze(false) && !clock.is_frozen());
        sleep.await;
        let now = clock.both();
        assert!(
            now.monotonic >= stood.monotonic + 2,
            "it continues from there"
        );
        assert!(now.wall < stood.wall + 60_000 && now.wall + 5 > stood.wall);
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
