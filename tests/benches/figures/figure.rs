//! What a workload comes to: one line of the table.

use std::time::{Duration, Instant};

use crate::server::Server;

/// One line of the table.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) goal: &'static str,
    pub(crate) measured: String,
    /// How many times what the yardstick needs under the same load.
    pub(crate) ratio: String,
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
            ratio: String::new(),
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
            ratio: String::new(),
            rate: String::new(),
            latency: String::new(),
            faults: 0,
        }
    }

    /// Beside what the yardstick needed for each.
    pub(crate) fn beside(mut self, mine: Duration, yardstick: Duration) -> Figure {
        self.ratio = format!("{:.1}", mine.as_secs_f64() / yardstick.as_secs_f64());
        self
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

/// Memory as the table says it.
pub(crate) fn mebibytes(kibibytes: u64) -> String {
    format!("{}.{} MiB", kibibytes / 1024, kibibytes % 1024 * 10 / 1024)
}

/// How long a workload lasts that lasts as long as one likes: so many seconds, unless `UNDERSTUDY_BENCH_SECONDS` says otherwise.
pub(crate) fn seconds(usual: u64) -> Duration {
    let told = std::env::var("UNDERSTUDY_BENCH_SECONDS");
    let told = told.map(|text| text.parse().expect("UNDERSTUDY_BENCH_SECONDS is a number"));
    Duration::from_secs(told.unwrap_or(usual))
}

/// The one of these times, which are sorted, that so many in a hundred do not exceed.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(at).copied().unwrap_or_default()
}

/// The median and the worst but one in a hundred.
pub(crate) fn percentiles(mut times: Vec<Duration>) -> String {
    if times.is_empty() {
        return String::new();
    }
    times.sort();
    let millis = |percent| percentile(&times, percent).as_secs_f64() * 1000.0;
    format!("{:.2} / {:.2} ms", millis(50), millis(99))
}

/// Whether the figures go into the book: `UNDERSTUDY_FIGURES` is set.
pub(crate) fn to_be_kept() -> bool {
    std::env::var_os("UNDERSTUDY_FIGURES").is_some()
}

/// Put a workload's table where the book includes it, if it includes it and that is wanted.
pub(crate) fn keep(workload: &str, figures: &[Figure]) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../spec-notes/src/figures");
    let file = std::path::Path::new(folder).join(format!("{workload}.md"));
    if to_be_kept() && file.exists() && workload != "sync-or-transactions" {
        std::fs::write(file, table(figures)).expect("the table is written");
    }
}

/// The table; the column of ratios is there where one is known.
pub(crate) fn table(figures: &[Figure]) -> String {
    let compares = figures.iter().any(|f| !f.ratio.is_empty());
    let ratio = |text: &str| {
        if compares {
            format!(" {text} |")
        } else {
            String::new()
        }
    };
    let mut lines = vec![
        format!(
            "| Workload | Goal | Measured |{} Rate | p50 / p99 | Lost, doubled, reordered |",
            ratio("Times the yardstick")
        ),
        format!(
            "|---|---|---|{}---|---|---|",
            if compares { "---|" } else { "" }
        ),
    ];
    lines.extend(figures.iter().map(|f| {
        format!(
            "| {} | {} | {} |{} {} | {} | {} |",
            f.name,
            f.goal,
            f.measured,
            ratio(&f.ratio),
            f.rate,
            f.latency,
            f.faults
        )
    }));
    lines.join("\n") + "\n"
}
