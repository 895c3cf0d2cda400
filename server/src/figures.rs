//! Figures for operators that are counted as things happen: requests, and commits of the database.
//!
//! `operators/scrape.rs` adds what is read when the metrics are scraped. All metrics are listed in `spec-notes/src/operators.md`.

use std::sync::Arc;
use std::time::Duration;

use actors::runtime::clock::Stopwatch;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The beginning of the name of each metric.
pub(crate) const PREFIX: &str = "understudy";

/// The bounds of the durations of requests, in seconds: from a cheap request to a `/sync` that waits for half a minute.
const REQUEST: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

/// The bounds of the durations of commits, in seconds.
const COMMIT: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5,
];

/// The bounds of the number of writes in a commit.
const WRITES: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// The path of a route, with its variables as names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Route(Arc<str>);

impl EncodeLabelValue for Route {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.as_ref().encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfRequest {
    method: &'static str,
    route: Route,
    status: u16,
}

struct Inner {
    registry: Registry,
    requests: Family<OfRequest, Histogram, fn() -> Histogram>,
    commits: Histogram,
    writes: Histogram,
}

/// The figures of a server. Clones share them, and they outlive a reset of a database in memory.
#[derive(Clone)]
pub struct Figures(Arc<Inner>);

impl Default for Figures {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let requests: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(REQUEST));
        let (commits, writes) = (Histogram::new(COMMIT), Histogram::new(WRITES));
        let (help, seconds) = ("Answered requests, and how long they took", Unit::Seconds);
        registry.register_with_unit("request", help, seconds, requests.clone());
        let (help, seconds) = (
            "Transactions of the database, from begin to commit",
            Unit::Seconds,
        );
        registry.register_with_unit("commit", help, seconds, commits.clone());
        let help = "Writes in one transaction of the database";
        registry.register("commit_writes", help, writes.clone());
        Figures(Arc::new(Inner {
            registry,
            requests,
            commits,
            writes,
        }))
    }
}

impl std::fmt::Debug for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Figures")
    }
}

impl Figures {
    /// The metrics that are counted as things happen.
    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Count a request that was answered.
    pub(crate) fn request(
        &self,
        method: &'static str,
        route: &Arc<str>,
        status: u16,
        since: Stopwatch,
    ) {
        let of = OfRequest {
            method,
            route: Route(Arc::clone(route)),
            status,
        };
        let seconds = Duration::from_micros(since.micros()).as_secs_f64();
        self.0.requests.get_or_create(&of).observe(seconds);
    }

    /// Count the commits of a database.
    pub(crate) fn watch(&self, store: &schema::Store) {
        let (commits, writes) = (self.0.commits.clone(), self.0.writes.clone());
        store.on_batch(move |size, time| {
            commits.observe(time.as_secs_f64());
            writes.observe(f64::from(u32::try_from(size).unwrap_or(u32::MAX)));
        });
    }
}
