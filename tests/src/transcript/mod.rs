//! What was said, written down: grouped by step of the story, a lane for each who speaks, and the actors' messages under the
//! request that caused them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use actors::runtime::trace::{Seen, Trace};
use serde_json::Value;

use crate::person::whole;

/// Messages that say only "look", whose number depends on timing and means nothing, and what the bridge's own lane shows.
const LEFT_OUT: [&str; 7] = [
    "WakeSender",
    "WakeSync",
    "InterestAdded",
    "LogAppended",
    "TakeEphemeral",
    "Attempt",
    "DeviceSeen",
];

/// Whether a bridge has answered a question: its lane shows what. Where none came, nobody else says so.
fn is_answered(seen: &Seen) -> bool {
    seen.what == "Answered" && body(seen)["answer"]["Failed"].is_null()
}

#[derive(Debug, Clone)]
struct Entry {
    step: usize,
    lane: String,
    line: String,
    body: Option<String>,
    answer: Option<String>,
    /// The step in which it was answered.
    answered_in: usize,
    /// Whether it is a question that the server put to a bridge.
    question: bool,
    /// Method and whole path, of a request that a person made.
    asked: Option<(String, String)>,
}

#[derive(Default)]
struct State {
    steps: Vec<String>,
    entries: Vec<Entry>,
    /// Actors' messages of each step, in order.
    messages: Vec<(usize, Seen)>,
    last_message: u64,
}

/// What has been written down so far; clones share it.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<State>>);

impl Log {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().expect("nobody panicked while writing"))
    }

    /// A new step of the story begins.
    pub fn step(&self, what: &str) {
        self.with(|s| s.steps.push(what.to_owned()));
    }

    pub(crate) fn begin(
        &self,
        lane: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> usize {
        let without_query = path.split('?').next().unwrap_or(path);
        self.with(|s| {
            let step = s.steps.len();
            s.entries.push(Entry {
                step,
                lane: lane.to_owned(),
                line: format!("{lane} → {method} {path}"),
                body: body.map(ToString::to_string),
                answer: None,
                answered_in: step,
                question: false,
                asked: Some((method.to_owned(), whole(without_query))),
            });
            s.entries.len() - 1
        })
    }

    pub(crate) fn answer(&self, entry: usize, status: u16, body: &Value) {
        self.answered(entry, format!("{status} {body}"));
    }

    fn answered(&self, entry: usize, answer: String) {
        self.with(|s| {
            s.entries[entry].answered_in = s.steps.len();
            s.entries[entry].answer = Some(answer);
        });
    }

    /// A question of the server arrived at a bridge.
    pub(crate) fn question(&self, lane: &str, line: &str, body: &str) -> usize {
        self.with(|s| {
            let step = s.steps.len();
            s.entries.push(Entry {
                step,
                lane: lane.to_owned(),
                line: line.to_owned(),
                body: (!body.is_empty()).then(|| body.to_owned()),
                answer: None,
                answered_in: step,
                question: true,
                asked: None,
            });
            s.entries.len() - 1
        })
    }

    pub(crate) fn question_answered(&self, entry: usize, status: u16, body: &str) {
        self.answered(entry, format!("{status} {body}"));
    }

    /// A request that the server made and a bridge answered.
    pub fn bridge(&self, lane: &str, line: &str, body: &str, answered: u16, again: bool) {
        self.with(|s| {
            let step = s.steps.len();
            let body = if again {
                "(the same bytes)".to_owned()
            } else {
                body.to_owned()
            };
            s.entries.push(Entry {
                step,
                lane: lane.to_owned(),
                line: format!("server → {lane}  {line}"),
                body: Some(body),
                answer: Some(format!("{answered}")),
                answered_in: step,
                question: false,
                asked: None,
            });
        });
    }

    /// Take down what the actors have said since the last time.
    pub fn collect(&self, trace: &Trace) {
        self.with(|s| {
            let step = s.steps.len();
            for seen in trace.after(s.last_message) {
                s.last_message = seen.number;
                if !LEFT_OUT.contains(&seen.what) && !is_answered(&seen) {
                    s.messages.push((step, seen));
                }
            }
        });
    }

    /// Another server counts its messages from the start.
    pub fn new_server(&self) {
        self.with(|s| s.last_message = 0);
    }

    /// The whole story.
    #[must_use]
    pub fn text(&self) -> String {
        self.with(|s| {
            let mut out = String::new();
            // What came before the first step is how the stage was set, not the story.
            for step in 1..=s.steps.len() {
                let entries: Vec<&Entry> = s.entries.iter().filter(|e| e.step == step).collect();
                let messages: Vec<&Seen> = s
                    .messages
                    .iter()
                    .filter(|(at, _)| *at == step)
                    .map(|(_, seen)| seen)
                    .collect();
                let later = |e: &&Entry| e.step < step && e.answered_in == step;
                let late: Vec<&Entry> = s.entries.iter().filter(later).collect();
                let _ = writeln!(out, "# {}\n", s.steps[step - 1]);
                write_step(&mut out, step, &entries, &late, &messages);
                out.push('\n');
            }
            out.truncate(out.trim_end().len());
            out.push('\n');
            out
        })
    }
}

/// People first, each request with the messages it caused; then what the actors said of their own; then the bridges; then the
/// people's requests of a step before that go on now. What a bridge answers now to a question of a step before stands where it
/// has its effect: after what it did meanwhile.
fn write_step(
    out: &mut String,
    step: usize,
    entries: &[&Entry],
    late: &[&Entry],
    messages: &[&Seen],
) {
    let mut caused: BTreeMap<u64, Vec<&Seen>> = BTreeMap::new();
    let mut own: Vec<String> = Vec::new();
    for seen in messages {
        match seen.cause.split(' ').next().and_then(|n| n.parse().ok()) {
            Some(request) => caused.entry(request).or_default().push(seen),
            None => own.push(message(seen)),
        }
    }
    for entry in entries {
        let Some((method, path)) = &entry.asked else {
            continue;
        };
        let _ = writeln!(out, "{}", entry.line);
        if let Some(body) = &entry.body {
            let _ = writeln!(out, "  {body}");
        }
        for seen in take_caused(&mut caused, method, path) {
            let _ = writeln!(out, "    {}", message(seen));
        }
        write_answer(out, step, entry);
    }
    let goes_on: Vec<(&Entry, Vec<&Seen>)> = late
        .iter()
        .filter_map(|entry| {
            let (method, path) = entry.asked.as_ref()?;
            Some((*entry, take_caused(&mut caused, method, path)))
        })
        .collect();
    for entry in late.iter().filter(|entry| entry.question) {
        let answer = entry.answer.as_deref().unwrap_or_default();
        let _ = writeln!(out, "{} answers {}\n  ← {answer}", entry.lane, entry.line);
    }
    own.extend(caused.into_values().flatten().map(message));
    own.sort();
    for line in own {
        let _ = writeln!(out, "    {line}");
    }
    let mut bridges: Vec<&&Entry> = entries.iter().filter(|e| e.asked.is_none()).collect();
    // Questions are put side by side, and arrive in any order.
    let place = |e: &Entry| (e.lane.clone(), e.question.then(|| e.line.clone()));
    bridges.sort_by_key(|entry| place(entry));
    for entry in bridges {
        if entry.question {
            let _ = writeln!(out, "server → {}  {}", entry.lane, entry.line);
            if let Some(body) = &entry.body {
                let _ = writeln!(out, "  {body}");
            }
            write_answer(out, step, entry);
            continue;
        }
        let answered = entry.answer.as_deref().unwrap_or("not yet");
        let _ = writeln!(out, "{}  (answered {answered})", entry.line);
        if let Some(body) = &entry.body {
            let _ = writeln!(out, "  {body}");
        }
    }
    for (entry, caused) in goes_on {
        let _ = writeln!(out, "{}  goes on", entry.line);
        for seen in caused {
            let _ = writeln!(out, "    {}", message(seen));
        }
        write_answer(out, step, entry);
    }
}

fn write_answer(out: &mut String, step: usize, entry: &Entry) {
    match &entry.answer {
        Some(answer) if entry.answered_in == step => {
            let _ = writeln!(out, "  ← {answer}");
        }
        _ => {
            let _ = writeln!(out, "  … waits");
        }
    }
}

/// The messages of the first request of this method and path; none where it asked nobody.
fn take_caused<'a>(
    caused: &mut BTreeMap<u64, Vec<&'a Seen>>,
    method: &str,
    path: &str,
) -> Vec<&'a Seen> {
    let is_it = |seen: &Seen| {
        let mut words = seen.cause.split(' ').skip(1);
        words.next() == Some(method) && words.next().is_some_and(|t| fits(t, path))
    };
    let first = caused
        .iter()
        .find(|(_, group)| group.first().is_some_and(|seen| is_it(seen)))
        .map(|(request, _)| *request);
    first.and_then(|r| caused.remove(&r)).unwrap_or_default()
}

/// Whether a path is one of a template such as `/devices/{device_id}`.
fn fits(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/'), path.split('/'));
    template.clone().count() == path.clone().count()
        && template
            .zip(path)
            .all(|(t, p)| t.starts_with('{') || t == p)
}

fn message(seen: &Seen) -> String {
    let body = body(seen);
    let body = if body.is_null() {
        String::new()
    } else {
        format!(" {body}")
    };
    format!("{} → {}  {}{body}", seen.from, seen.to, seen.what)
}

/// A message as a value: its keys stand in the order of their names.
fn body(seen: &Seen) -> Value {
    serde_json::from_str(seen.body.get()).expect("a message is JSON")
}
