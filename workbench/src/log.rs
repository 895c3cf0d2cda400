//! The record of a scenario: the requests of clients, and the requests of the server to bridges. Its text is the transcript.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use crate::secrets;
use crate::transcript::layout;
use crate::transcript::names::Names;

/// Shown in place of the body of a transaction that was sent before.
const SAME: &str = "(the same bytes)";

#[derive(Debug)]
struct Entry {
    step: usize,
    lane: String,
    is_to_bridge: bool,
    /// Method and path.
    line: String,
    body: String,
    /// The step in which the request was answered, and the answer.
    answer: Option<(usize, String)>,
}

#[derive(Debug, Default)]
struct State {
    steps: Vec<String>,
    entries: Vec<Entry>,
    sent: BTreeSet<(String, String)>,
    /// Random values, and what they are called in the transcript.
    labels: BTreeMap<String, String>,
    /// Passwords and tokens; `None` if they protect nothing.
    secrets: Option<BTreeSet<String>>,
}

impl State {
    /// A text in which random values have names, and secrets are hidden.
    fn named(&self, text: &str) -> String {
        let mut labels: Vec<(&String, &String)> = self.labels.iter().collect();
        // A value can be part of another one, so the longest come first.
        labels.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
        let text = labels.iter().fold(text.to_owned(), |text, (value, name)| {
            text.replace(value.as_str(), &format!("‹{name}›"))
        });
        match &self.secrets {
            Some(secrets) => secrets::without(&text, secrets),
            None => text,
        }
    }

    fn collect(&mut self, json: &str) {
        if let Some(secrets) = &mut self.secrets
            && let Ok(json) = serde_json::from_str(json)
        {
            secrets::collect(&json, secrets);
        }
    }
}

/// A request and its answer, as the transcript shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The step: how it is written.
    pub step: String,
    /// The client that asks, or the bridge that is asked.
    pub lane: String,
    /// Whether the homeserver asks a bridge.
    pub is_to_bridge: bool,
    /// Whether the request belongs to an earlier step, and only its answer to this one.
    pub is_late: bool,
    /// Method and path.
    pub line: String,
    /// The body of the request; empty if it has none, or is late.
    pub body: String,
    /// The status and the body of the answer, if it came within the step.
    pub answer: Option<String>,
}

/// A request and its answer, as they were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raw {
    /// The number of the step, from 1; 0 before the first.
    pub step: usize,
    /// The client that asks, or the bridge that is asked.
    pub lane: String,
    /// Whether the homeserver asks a bridge.
    pub is_to_bridge: bool,
    /// Method and path.
    pub line: String,
    /// The status and the body of the answer.
    pub answer: Option<String>,
}

/// The record of a scenario. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<State>>);

impl Log {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hides the passwords and tokens of requests and answers from now on.
    pub fn hide_secrets(&self) {
        self.with(|s| s.secrets = Some(BTreeSet::new()));
    }

    /// Hides this text too, if secrets are hidden.
    pub(crate) fn hide(&self, secret: &str) {
        self.with(|s| {
            if let Some(secrets) = &mut s.secrets {
                secrets.insert(secret.to_owned());
            }
        });
    }

    /// A text in which random values have names, and secrets are hidden.
    #[must_use]
    pub fn named(&self, text: &str) -> String {
        self.with(|s| s.named(text))
    }

    /// Begins a step. What happened before the first one is not shown.
    pub fn step(&self, title: &str) {
        self.with(|s| s.steps.push(title.to_owned()));
    }

    /// Records a client's request. Returns the number of its entry.
    pub fn asks(&self, lane: &str, line: String, body: &str) -> usize {
        self.begin(lane, false, line, body.to_owned())
    }

    /// Records a request to a bridge. Returns the number of its entry.
    pub fn sends(&self, lane: &str, line: String, body: &str) -> usize {
        let key = (lane.to_owned(), format!("{line} {body}"));
        let is_new = self.with(|s| s.sent.insert(key)) || body.is_empty();
        let body = if is_new { body } else { SAME };
        self.begin(lane, true, line, body.to_owned())
    }

    fn begin(&self, lane: &str, is_to_bridge: bool, line: String, body: String) -> usize {
        self.with(|s| {
            s.collect(&body);
            s.entries.push(Entry {
                step: s.steps.len(),
                lane: lane.to_owned(),
                is_to_bridge,
                line,
                body,
                answer: None,
            });
            s.entries.len() - 1
        })
    }

    /// Records the answer to a request.
    pub fn answered(&self, entry: usize, answer: &str) {
        self.with(|s| {
            let step = s.steps.len();
            s.collect(answer.split_once(' ').map_or("", |(_, body)| body));
            s.entries[entry].answer = Some((step, answer.trim_end().to_owned()));
        });
    }

    /// Names a random value. A repeated name gets a number.
    pub fn label(&self, value: &str, name: &str) {
        self.with(|s| {
            let is_alike = |known: &&String| {
                let number = known
                    .strip_prefix(name)
                    .and_then(|rest| rest.strip_prefix(' '));
                number.is_some_and(|number| number.parse::<usize>().is_ok())
            };
            let earlier = s.labels.values().filter(is_alike).count();
            let name = format!("{name} {}", earlier + 1);
            s.labels.entry(value.to_owned()).or_insert(name);
        });
    }

    /// The requests and answers, in the order in which they began.
    #[must_use]
    pub fn raw(&self) -> Vec<Raw> {
        self.with(|s| {
            let plain = |text: &str| match &s.secrets {
                Some(secrets) => secrets::without(text, secrets),
                None => text.to_owned(),
            };
            let raw = |e: &Entry| Raw {
                step: e.step,
                lane: e.lane.clone(),
                is_to_bridge: e.is_to_bridge,
                line: plain(&decoded(&e.line)),
                answer: e.answer.as_ref().map(|(_, answer)| plain(answer)),
            };
            s.entries.iter().map(raw).collect()
        })
    }

    /// The transcript.
    #[must_use]
    pub fn text(&self) -> String {
        self.shown().0
    }

    /// The transcript; what it shows one by one, in the same order; and the short names in it.
    #[must_use]
    pub fn shown(&self) -> (String, Vec<Exchange>, Names) {
        self.with(|s| {
            let mut page = Page {
                out: String::new(),
                exchanges: Vec::new(),
                names: Names::default(),
                state: s,
            };
            for (step, title) in (1..).zip(&s.steps) {
                page.out.push_str(&format!("# {title}\n\n"));
                let here =
                    |e: &&Entry| e.step == step || e.answer.as_ref().is_some_and(|a| a.0 == step);
                let (to_bridges, mut asked): (Vec<&Entry>, Vec<&Entry>) =
                    s.entries.iter().filter(here).partition(|e| e.is_to_bridge);
                let mut to_bridges = to_bridges;
                to_bridges.sort_by(|a, b| a.lane.cmp(&b.lane));
                asked.extend(to_bridges);
                for entry in asked {
                    page.entry(entry, step, title);
                }
                if !page.out.ends_with("\n\n") {
                    page.out.push('\n');
                }
            }
            let text = page.out.trim_end().to_owned() + "\n";
            (text, page.exchanges, page.names)
        })
    }
}

struct Page<'a> {
    out: String,
    exchanges: Vec<Exchange>,
    names: Names,
    state: &'a State,
}

impl Page<'_> {
    fn named(&mut self, text: &str) -> String {
        self.names.shorten(&self.state.named(text))
    }

    /// Writes a line. Returns it without its indentation.
    fn line(&mut self, indent: usize, head: &str, json: &str) -> String {
        let (head, json) = (
            self.named(head),
            self.named(&layout::without_unsigned(json)),
        );
        let shown = layout::lines(&head, &json, indent);
        self.out.push_str(&shown);
        self.out.push('\n');
        shown.trim_start().to_owned()
    }

    fn entry(&mut self, entry: &Entry, step: usize, title: &str) {
        let line = decoded(&entry.line);
        let is_late = entry.step < step;
        let mut body = String::new();
        if is_late {
            let head = match entry.is_to_bridge {
                true => format!("{} answers {line}", entry.lane),
                false => format!("server answers {}: {line}", entry.lane),
            };
            self.line(0, &head, "");
        } else {
            let head = match entry.is_to_bridge {
                true => format!("server → {}  {line}", entry.lane),
                false => format!("{} → {line}", entry.lane),
            };
            self.line(0, &head, "");
            if !entry.body.is_empty() {
                body = self.line(2, "", &entry.body);
            }
        }
        let answer = match entry.answer.as_ref().filter(|(at, _)| *at <= step) {
            None => {
                self.line(2, "… waits", "");
                None
            }
            Some((_, answer)) => {
                let (status, body) = answer.split_once(' ').unwrap_or((answer, ""));
                let shown = self.line(2, &format!("← {status}"), body);
                Some(shown.trim_start_matches("← ").to_owned())
            }
        };
        let line = self.named(&line);
        self.exchanges.push(Exchange {
            step: title.to_owned(),
            lane: entry.lane.clone(),
            is_to_bridge: entry.is_to_bridge,
            is_late,
            line,
            body,
            answer,
        });
    }
}

/// A path without percent-encoding where it is not needed to understand the path.
fn decoded(path: &str) -> String {
    let plain = [
        ("%21", "!"),
        ("%23", "#"),
        ("%24", "$"),
        ("%3A", ":"),
        ("%40", "@"),
    ];
    plain.iter().fold(path.to_owned(), |path, (code, sign)| {
        path.replace(code, sign)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_later_is_shown_where_it_is_answered() {
        let log = Log::default();
        log.step("one");
        log.label("c2VjcmV0", "key of alice");
        let ask = log.asks("alice", "PUT /x/%21r".to_owned(), "{\"k\":\"c2VjcmV0\"}");
        log.answered(ask, "200 {}");
        let sent = log.sends("irc", "PUT /transactions/1".to_owned(), "{}");
        log.step("two");
        log.answered(sent, "502");
        log.sends("irc", "PUT /transactions/1".to_owned(), "{}");
        let late = log.asks("alice", "GET /sync".to_owned(), "");
        log.step("three");
        log.answered(late, "200 {}");
        let expected = "# one\n\nalice → PUT /x/!r\n  {\"k\": \"‹key of alice 1›\"}\n  ← 200 {}\n\
            server → irc  PUT /transactions/1\n  {}\n  … waits\n\n\
            # two\n\nalice → GET /sync\n  … waits\n\
            irc answers PUT /transactions/1\n  ← 502\n\
            server → irc  PUT /transactions/1\n  (the same bytes)\n  … waits\n\n\
            # three\n\nserver answers alice: GET /sync\n  ← 200 {}\n";
        assert_eq!(log.text(), expected);
    }
}
