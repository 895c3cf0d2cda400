//! When a timer is called.

use std::time::Duration;

/// How long to wait until a time, both in milliseconds since the epoch. `None` if it has come.
pub(super) fn wait_until(due: i64, now: i64) -> Option<Duration> {
    let wait = u64::try_from(due.saturating_sub(now)).ok()?;
    (wait > 0).then(|| Duration::from_millis(wait))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_has_come_is_not_waited_for() {
        let second = Some(Duration::from_secs(1));
        for (due, now, expected) in [
            (1_000, 0, second),
            (5, 5, None),
            (0, 5, None),
            (i64::MIN, i64::MAX, None),
        ] {
            assert_eq!(wait_until(due, now), expected, "{due} {now}");
        }
    }
}
