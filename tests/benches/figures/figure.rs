//! What a workload comes to: one line of the table.

use std::time::{Duration, Instant};

use crate::server::Server;

/// One line of the table.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) goal: &'static str,
    pub(crate) measured: String,
    pub(crate) rate: String,
    pub(crate) latency: String,
    /// Lost, duplicated or out of order.
    pub(crate) faults: usize,
}

/// What was spent between two moments.
#[derive(Clone, Copy, Default)]
pub(crate) struct Spent {
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
}

/// A moment on the clock and on the server's ruler.
pub(crate) struct Mark {
    cpu: Duration,
    at: Instant,
}

impl Mark {
    /// Now.
    pub(crate) fn now(server: &Server) -> Mark {
        Mark {
            cpu: server.cpu(),
            at: Instant::now(),
        }
    }

    /// What was spent since; the clock stopped at `end`, the ruler is read now.
    pub(crate) fn until(&self, server: &Server, end: Instant) -> Spent {
        Spent {
            cpu: server.cpu() - self.cpu,
            wall: end - self.at,
        }
    }
}

impl Spent {
    /// CPU time for each of so many.
    pub(crate) fn each(&self, count: usize) -> Duration {
        self.cpu / u32::try_from(count.max(1)).expect("not so many")
    }

    /// How many of so many there were in a second.
    pub(crate) fn rate(&self, count: usize) -> String {
        let count = f64::from(u32::try_from(count).expect("not so many"));
        format!("{:.0}/s", count / self.wall.as_secs_f64())
    }
}

impl Figure {
    /// A figure whose measure is CPU time for each of so many.
    pub(crate) fn of(
        name: impl Into<String>,
        goal: &'static str,
        spent: Spent,
        count: usize,
    ) -> Figure {
        Figure {
            name: name.into(),
            goal,
            measured: micros(spent.each(count)),
            rate: spent.rate(count),
            latency: String::new(),
            faults: 0,
        }
    }

    /// A figure that is only its own words.
    pub(crate) fn said(name: impl Into<String>, goal: &'static str, measured: String) -> Figure {
        Figure {
            name: name.into(),
            goal,
            measured,
            rate: String::new(),
            latency: String::new(),
            faults: 0,
        }
    }

    /// With these latencies.
    pub(crate) fn latency(mut self, times: Vec<Duration>) -> Figure {
        self.latency = percentiles(times);
        self
    }
}

/// A duration as the table says it.
pub(crate) fn micros(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1000.0)
}

/// The median and the worst but one in a hundred.
pub(crate) fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| times.get((times.len().saturating_sub(1)) * percent / 100);
    match (at(50), at(99)) {
        (Some(p50), Some(p99)) => format!(
            "{:.2} / {:.2} ms",
            p50.as_secs_f64() * 1000.0,
            p99.as_secs_f64() * 1000.0
        ),
        _ => String::new(),
    }
}

/// Print the table.
pub(crate) fn print(figures: &[Figure]) {
    println!("| Workload | Goal | Measured | Rate | p50 / p99 | Lost, doubled, reordered |");
    println!("|---|---|---|---|---|---|");
    for f in figures {
        println!(
            "| {} | {} | {} | {} | {} | {} |",
            f.name, f.goal, f.measured, f.rate, f.latency, f.faults
        );
    }
}
