//! The result of a workload: a row of the table.

use std::time::{Duration, Instant};

use crate::server::Server;

/// A row of the table.
pub(crate) struct Figure {
    pub(crate) name: String,
    pub(crate) goal: &'static str,
    pub(crate) measured: String,
    /// The measurement divided by that of the yardstick under the same load.
    pub(crate) ratio: String,
    pub(crate) rate: String,
    pub(crate) latency: String,
    /// The number of operations that were lost, duplicated or out of order.
    pub(crate) faults: usize,
}

/// The CPU time, the wall time and the bytes written between two moments.
#[derive(Clone, Copy, Default)]
pub(crate) struct Spent {
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
    /// Bytes given to `write()` and its like, to files and sockets.
    pub(crate) written: u64,
}

/// What the server has spent up to a moment.
pub(crate) struct Mark {
    cpu: Duration,
    at: Instant,
    written: u64,
}

impl Mark {
    /// The present moment.
    pub(crate) fn now(server: &Server) -> Mark {
        Mark {
            cpu: server.cpu(),
            at: Instant::now(),
            written: server.written(),
        }
    }

    /// What was spent since this mark: wall time up to `end`, the rest up to now.
    pub(crate) fn until(&self, server: &Server, end: Instant) -> Spent {
        Spent {
            cpu: server.cpu() - self.cpu,
            wall: end - self.at,
            written: server.written() - self.written,
        }
    }
}

impl Spent {
    /// The CPU time for each of `count` operations.
    pub(crate) fn each(&self, count: usize) -> Duration {
        self.cpu / u32::try_from(count.max(1)).expect("not so many")
    }

    /// The rate of `count` operations, per second.
    pub(crate) fn rate(&self, count: usize) -> String {
        let count = f64::from(u32::try_from(count).expect("not so many"));
        format!("{:.0}/s", count / self.wall.as_secs_f64())
    }
}

impl Figure {
    /// A row that measures the CPU time for each of `count` operations.
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

    /// A row with its measurement as text.
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

    /// Adds the ratio to the yardstick's measurement.
    pub(crate) fn beside(mut self, mine: Duration, yardstick: Duration) -> Figure {
        self.ratio = format!("{:.1}", mine.as_secs_f64() / yardstick.as_secs_f64());
        self
    }

    /// Adds the percentiles of these latencies.
    pub(crate) fn latency(mut self, times: Vec<Duration>) -> Figure {
        self.latency = percentiles(times);
        self
    }
}

/// A duration as the table shows it.
pub(crate) fn micros(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1000.0)
}

/// An amount of memory as the table shows it.
pub(crate) fn mebibytes(kibibytes: u64) -> String {
    format!("{}.{} MiB", kibibytes / 1024, kibibytes % 1024 * 10 / 1024)
}

/// The duration of a workload that can be of any length: `usual` seconds, or `UNDERSTUDY_BENCH_SECONDS`.
pub(crate) fn seconds(usual: u64) -> Duration {
    let chosen = std::env::var("UNDERSTUDY_BENCH_SECONDS");
    let chosen = chosen.map(|text| text.parse().expect("UNDERSTUDY_BENCH_SECONDS is a number"));
    Duration::from_secs(chosen.unwrap_or(usual))
}

/// A percentile of sorted times: the smallest that this share of them does not exceed.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

/// The median and the 99th percentile.
pub(crate) fn percentiles(mut times: Vec<Duration>) -> String {
    if times.is_empty() {
        return String::new();
    }
    times.sort();
    let millis = |percent| percentile(&times, percent).as_secs_f64() * 1000.0;
    format!("{:.2} / {:.2} ms", millis(50), millis(99))
}

/// Whether the figures are written into the book (`spec-notes`): `UNDERSTUDY_FIGURES` is set.
pub(crate) fn to_be_kept() -> bool {
    std::env::var_os("UNDERSTUDY_FIGURES").is_some()
}

/// Writes the table of a workload into the book, if `UNDERSTUDY_FIGURES` is set and the book has a file for the table.
pub(crate) fn keep(workload: &str, figures: &[Figure]) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../spec-notes/src/figures");
    let file = std::path::Path::new(folder).join(format!("{workload}.md"));
    if to_be_kept() && file.exists() && workload != "sync-or-transactions" {
        let table = table_under(headings(workload), figures);
        std::fs::write(file, table).expect("the table is written");
    }
}

/// The headings of the columns that differ between workloads: the name, the measurement, the rate, the latency and the faults. A
/// column without a heading is omitted.
type Headings = [&'static str; 5];

const USUAL: Headings = [
    "Workload",
    "Measured",
    "Rate",
    "p50 / p99",
    "Lost, doubled, reordered",
];

/// The headings of the table of a workload in the book.
fn headings(workload: &str) -> Headings {
    let [name, measured, rate, latency, faults] = USUAL;
    match workload {
        "busy-bot" => [
            name,
            "Measured (first row: CPU time for each item)",
            "Items of both kinds",
            "From request to receipt, p50 / p99",
            faults,
        ],
        "counts-policies" => [
            "Policy, users, transactions measured",
            "Server CPU for a transaction, mean",
            "Body of a transaction, mean",
            "From request to receipt, p50 / p99",
            "Transactions too many or missing",
        ],
        "interests" => ["Look-up", "Time", rate, latency, ""],
        "messages-beside-services" => [
            name,
            "Server CPU for a message",
            "Messages",
            "From request to receipt, p50 / p99",
            faults,
        ],
        _ => [name, measured, rate, latency, faults],
    }
}

/// The table under the usual headings.
pub(crate) fn table(figures: &[Figure]) -> String {
    table_under(USUAL, figures)
}

/// A column: its heading and what it shows of a figure.
type Column<'a> = (&'a str, fn(&Figure) -> String);

/// The table. A column that is empty in all rows is omitted.
fn table_under([name, measured, rate, latency, faults]: Headings, figures: &[Figure]) -> String {
    let columns: [Column<'_>; 7] = [
        (name, |f| f.name.clone()),
        ("Goal", |f| f.goal.to_owned()),
        (measured, |f| f.measured.clone()),
        ("Times the yardstick", |f| f.ratio.clone()),
        (rate, |f| f.rate.clone()),
        (latency, |f| f.latency.clone()),
        (faults, |f| f.faults.to_string()),
    ];
    let is_shown = |(heading, cell): &Column<'_>| {
        !heading.is_empty() && figures.iter().any(|f| !cell(f).is_empty())
    };
    let shown: Vec<_> = columns.into_iter().filter(is_shown).collect();
    let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let mut lines = vec![
        line(
            shown
                .iter()
                .map(|(heading, _)| (*heading).to_owned())
                .collect(),
        ),
        format!("|{}", "---|".repeat(shown.len())),
    ];
    lines.extend(
        figures
            .iter()
            .map(|f| line(shown.iter().map(|(_, cell)| cell(f)).collect())),
    );
    lines.join("\n") + "\n"
}
