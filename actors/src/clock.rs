//! Time: the system's, or one that a test moves by hand. Nothing else reads a clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

/// Where time comes from. Back-off, long-polls, typing, token age and every delay ask it.
#[derive(Clone)]
pub enum Clock {
    /// The machine's.
    System,
    /// Stands still until [`Clock::advance`].
    Manual(Arc<Manual>),
}

/// A clock that stands still.
pub struct Manual {
    state: Mutex<ManualState>,
}

struct ManualState {
    now: i64,
    next: u64,
    waiting: BTreeMap<(i64, u64), oneshot::Sender<()>>,
}

impl Clock {
    /// A clock that stands still at this time, in milliseconds since the epoch.
    #[must_use]
    pub fn manual(now: i64) -> Clock {
        Clock::Manual(Arc::new(Manual {
            state: Mutex::new(ManualState {
                now,
                next: 0,
                waiting: BTreeMap::new(),
            }),
        }))
    }

    /// Milliseconds since the epoch.
    #[must_use]
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

    /// Resolves when this much time has passed.
    pub fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send + 'static {
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
                    // The clock is never dropped before its sleepers; if it were, time would have ended.
                    let _ = woken.await;
                }
            }
        }
    }

    /// Move a manual clock on and wake who has waited long enough. Nothing on the system's clock.
    pub fn advance(&self, time: Duration) {
        if let Clock::Manual(manual) = self {
            manual.advance(time);
        }
    }

    /// Whether somebody moves this clock by hand.
    #[must_use]
    pub fn is_manual(&self) -> bool {
        matches!(self, Clock::Manual(_))
    }
}

impl Manual {
    fn wait(&self, time: Duration) -> oneshot::Receiver<()> {
        let (wake, woken) = oneshot::channel();
        if let Ok(mut state) = self.state.lock() {
            let at = state.now.saturating_add(millis(time));
            if at <= state.now {
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
        let end = (state.now.saturating_add(1), 0);
        let later = state.waiting.split_off(&end);
        let due = std::mem::replace(&mut state.waiting, later);
        drop(state);
        for wake in due.into_values() {
            // Whoever gave up waiting is not there to hear it.
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
        assert_eq!(clock.now(), 2_000);
    }
}
