//! The record of a test: the requests of clients, what the actors did because of them, and the requests to bridges.
//! `tests/snapshots/README.md` explains its text, the transcript.

mod did;
mod step;

use std::sync::{Arc, Mutex};

use actors::runtime::trace::{Trace, TracedMessage};
use serde_json::Value;

use crate::person::whole;

/// Shown in place of the body of a request that was sent before.
pub const SAME: &str = "(the same bytes)";

/// The kind of a request.
#[derive(Debug, Clone)]
enum Kind {
    /// A client's request to the server: method and full path.
    Asked(String, String),
    /// A request of the server to a bridge, other than a transaction or ping.
    Question,
    /// A transaction to a bridge, with its id, or a ping.
    Transaction(Option<String>),
}

#[derive(Debug, Clone)]
struct Entry {
    step: usize,
    lane: String,
    /// Method and path.
    line: String,
    body: String,
    kind: Kind,
    /// The step in which the request was answered, and the answer.
    answer: Option<(usize, String)>,
}

impl Entry {
    fn is_from(&self, lane: &str) -> bool {
        self.lane == lane && !matches!(self.kind, Kind::Asked(..))
    }

    /// Whether the request came in an earlier step and was answered in this one.
    fn is_late_in(&self, step: usize) -> bool {
        self.step < step && self.answered_in(step).is_some()
    }

    fn answered_in(&self, step: usize) -> Option<&str> {
        let (at, answer) = self.answer.as_ref()?;
        (*at == step).then_some(answer)
    }
}

#[derive(Default)]
struct State {
    steps: Vec<String>,
    entries: Vec<Entry>,
    /// What the actors did, each with its step, in order.
    seen: Vec<(usize, TracedMessage)>,
    last_seen: u64,
}

/// The record so far. Clones share it.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<State>>);

impl Log {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().expect("no panic while recording"))
    }

    /// Begins a step.
    pub fn step(&self, what: &str) {
        self.with(|s| s.steps.push(what.to_owned()));
    }

    fn begin(&self, lane: &str, line: String, body: String, kind: Kind) -> usize {
        self.with(|s| {
            s.entries.push(Entry {
                step: s.steps.len(),
                lane: lane.to_owned(),
                line,
                body,
                kind,
                answer: None,
            });
            s.entries.len() - 1
        })
    }

    /// Records a client's request to the server. Returns the number of its entry.
    pub(crate) fn asks(&self, lane: &str, method: &str, path: &str, body: Option<&Value>) -> usize {
        let without_query = path.split('?').next().unwrap_or(path);
        let kind = Kind::Asked(method.to_owned(), whole(without_query));
        let body = body.map(ToString::to_string).unwrap_or_default();
        self.begin(lane, format!("{method} {path}"), body, kind)
    }

    /// Records a request of the server to a bridge, other than a transaction or ping. Returns the number of its entry.
    pub(crate) fn question(&self, lane: &str, line: String, body: &str) -> usize {
        self.begin(lane, line, body.to_owned(), Kind::Question)
    }

    /// Records a transaction or a ping to a bridge. Returns the number of its entry.
    pub fn transaction(&self, lane: &str, line: String, body: &str) -> usize {
        let id = line
            .split_once("/transactions/")
            .map(|(_, id)| id.to_owned());
        self.begin(lane, line, body.to_owned(), Kind::Transaction(id))
    }

    /// Records the answer to a request.
    pub fn answered(&self, entry: usize, status: u16, body: &str) {
        self.with(|s| {
            let answer = format!("{status} {body}").trim_end().to_owned();
            s.entries[entry].answer = Some((s.steps.len(), answer));
        });
    }

    /// Records what the actors did since the last call.
    pub fn collect(&self, trace: &Trace) {
        self.with(|s| {
            let step = s.steps.len();
            for seen in trace.after(s.last_seen) {
                s.last_seen = seen.number;
                s.seen.push((step, seen));
            }
        });
    }

    /// Records that a new server runs, which numbers the actions of its actors from the start.
    pub fn new_server(&self) {
        self.with(|s| s.last_seen = 0);
    }

    /// The transcript. Leaves out what happened before the first step.
    #[must_use]
    pub fn text(&self) -> String {
        self.with(|s| {
            let mut writer = step::Writer::default();
            for (step, title) in (1..).zip(&s.steps) {
                let seen = s.seen.iter().filter(|(at, _)| *at == step);
                let seen: Vec<&TracedMessage> = seen.map(|(_, seen)| seen).collect();
                writer.step(step, title, &s.entries, &seen);
            }
            writer.finish()
        })
    }
}
