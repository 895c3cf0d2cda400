//! Formats one step of a transcript: first the clients' requests with what they caused, then what no request caused, then the
//! requests to each bridge.

use std::collections::BTreeSet;

use actors::runtime::trace::TracedMessage;
use serde_json::Value;

use super::did::{Done, Message, Step, Transaction, frozen};
use super::{Entry, Kind};
use workbench::transcript::layout;
use workbench::transcript::names::Names;

/// The indentation of the parts of an entry, in columns.
const BODY: usize = 2;
const MESSAGE: usize = 4;
const ROWS: usize = 6;

/// A member of a message that the request contains too is shown again only if it is not longer than this.
const SHORT: usize = 30;

/// Writes a transcript step by step.
#[derive(Default)]
pub(super) struct Writer {
    out: String,
    names: Names,
}

impl Writer {
    pub(super) fn finish(mut self) -> String {
        self.out.truncate(self.out.trim_end().len());
        self.out.push('\n');
        self.out
    }

    fn line(&mut self, indent: usize, text: &str) {
        let text = self.names.shorten(text);
        self.out
            .push_str(&format!("{}{text}\n", " ".repeat(indent)));
    }

    /// Writes a heading followed by JSON.
    fn json(&mut self, indent: usize, head: &str, json: &str) {
        let json = layout::without_unsigned(json);
        let (head, json) = (self.names.shorten(head), self.names.shorten(&json));
        self.out.push_str(&layout::lines(&head, &json, indent));
        self.out.push('\n');
    }

    pub(super) fn step(
        &mut self,
        step: usize,
        title: &str,
        all: &[Entry],
        seen: &[&TracedMessage],
    ) {
        self.out.push_str(&format!("# {title}\n\n"));
        let mut did = Step::new(seen);
        let here = all.iter().filter(|e| e.step == step);
        for entry in here {
            if let Kind::Asked(method, path) = &entry.kind {
                let done = did.request(method, path).unwrap_or_default();
                let (method, shown) = entry.line.split_once(' ').unwrap_or_default();
                self.line(0, &format!("{} → {method} {}", entry.lane, decoded(shown)));
                if !entry.body.is_empty() {
                    self.json(BODY, "", &entry.body);
                }
                self.done(&done, &entry.body);
                self.answer(entry, step);
            }
        }
        let late: Vec<&Entry> = all.iter().filter(|e| e.is_late_in(step)).collect();
        let go_on = late.iter().filter_map(|entry| match &entry.kind {
            Kind::Asked(method, path) => Some((*entry, did.request(method, path))),
            _ => None,
        });
        let go_on: Vec<(&Entry, Option<Done>)> = go_on.collect();
        for entry in late.iter().filter(|e| matches!(e.kind, Kind::Question)) {
            self.late_answer(entry, step);
        }
        let bridges = all.iter().filter(|e| e.step == step || e.is_late_in(step));
        let bridges = bridges.filter(|e| !matches!(e.kind, Kind::Asked(..)));
        let lanes: BTreeSet<&str> = bridges.map(|e| e.lane.as_str()).collect();
        let mut transactions = Vec::new();
        for lane in lanes {
            for entry in in_order(all, lane, step) {
                let became = match &entry.kind {
                    Kind::Transaction(Some(id)) => {
                        let answer = entry.answered_in(step).unwrap_or_default();
                        did.transaction(lane, id, answer)
                    }
                    _ => Transaction::default(),
                };
                transactions.push((entry, became));
            }
        }
        self.rest(did);
        for (entry, became) in transactions {
            self.bridge(entry, &became, step);
        }
        for (entry, done) in go_on {
            let (method, shown) = entry.line.split_once(' ').unwrap_or_default();
            self.line(
                0,
                &format!("{} → {method} {}  goes on", entry.lane, decoded(shown)),
            );
            self.done(&done.unwrap_or_default(), &entry.body);
            self.answer(entry, step);
        }
        self.out.push('\n');
    }

    /// Writes what no request caused, in an order that does not depend on timing.
    fn rest(&mut self, did: Step) {
        let (mut messages, mut lines) = did.rest();
        messages.sort_by_key(|m| (m.head(), m.body.to_string()));
        for message in &messages {
            self.message(message, "");
        }
        lines.sort();
        for line in lines {
            self.line(MESSAGE, &line);
        }
    }

    /// Writes a request to a bridge, or the answer to an earlier one, and what happened to the transaction.
    fn bridge(&mut self, entry: &Entry, became: &Transaction, step: usize) {
        if let (Some(rows), Kind::Transaction(Some(id))) = (became.frozen, &entry.kind) {
            self.line(MESSAGE, &frozen(&entry.lane, id, rows));
        }
        if entry.step < step {
            self.late_answer(entry, step);
        } else {
            self.line(0, &format!("server → {}  {}", entry.lane, entry.line));
            if !entry.body.is_empty() {
                self.json(BODY, "", &entry.body);
            }
            self.answer(entry, step);
        }
        if let (true, Kind::Transaction(Some(id))) = (became.acknowledged, &entry.kind) {
            self.line(MESSAGE, &format!("acknowledged {id}"));
        }
        self.done(&became.effects, "");
    }

    fn late_answer(&mut self, entry: &Entry, step: usize) {
        self.line(0, &format!("{} answers {}", entry.lane, entry.line));
        self.answer(entry, step);
    }

    fn answer(&mut self, entry: &Entry, step: usize) {
        match entry.answered_in(step) {
            Some(answer) => {
                let (status, body) = answer.split_once(' ').unwrap_or((answer, ""));
                self.json(BODY, &format!("← {status}"), body);
            }
            None => self.line(BODY, "… waits"),
        }
    }

    fn done(&mut self, done: &Done, asked: &str) {
        for message in &done.messages {
            self.message(message, asked);
        }
        if let Some(wakes) = done.wakes() {
            self.line(MESSAGE, &wakes);
        }
    }

    fn message(&mut self, message: &Message, asked: &str) {
        if !message.is_bare() {
            let body = without_nulls(message.body.clone());
            let body = without_repeated(body, &Repeated::of(asked));
            let body = match body {
                Value::Null => String::new(),
                body => body.to_string().replace("\"…\"", "…"),
            };
            self.json(MESSAGE, &message.head(), &body);
        }
        if !message.rows.is_empty() {
            let rows = message.rows.to_string();
            match message.actor_of_bare() {
                Some(actor) => self.line(MESSAGE, &format!("{actor}: {rows}")),
                None => self.line(ROWS, &rows),
            }
        }
    }
}

/// The entries of a bridge in this step: first its answers to earlier requests, then transactions in their order, then
/// questions. Questions are asked at the same time and arrive in any order, so they are sorted.
fn in_order<'a>(all: &'a [Entry], lane: &str, step: usize) -> Vec<&'a Entry> {
    let of_lane = all.iter().filter(|e| e.is_from(lane));
    let mut entries: Vec<&Entry> = of_lane
        .filter(|e| match e.kind {
            Kind::Transaction(_) => e.step == step || e.is_late_in(step),
            _ => e.step == step,
        })
        .collect();
    entries.sort_by_key(|e| match e.kind {
        Kind::Question => (true, e.line.clone()),
        _ => (false, String::new()),
    });
    entries
}

/// The path of a client's request without percent-encoding where it is not needed to understand the path.
fn decoded(path: &str) -> String {
    let plain = [
        ("%21", "!"),
        ("%22", "\""),
        ("%24", "$"),
        ("%3A", ":"),
        ("%40", "@"),
    ];
    let plain = plain
        .into_iter()
        .chain([("%7B", "{"), ("%7D", "}"), ("%5B", "["), ("%5D", "]")]);
    plain.fold(path.to_owned(), |path, (code, sign)| {
        path.replace(code, sign)
    })
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().filter(|(_, value)| !value.is_null());
            members
                .map(|(key, value)| (key, without_nulls(value)))
                .collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// The long values in the body of a request.
#[derive(Default)]
struct Repeated(BTreeSet<String>);

impl Repeated {
    fn of(asked: &str) -> Repeated {
        let mut all = Repeated::default();
        all.add(&serde_json::from_str(asked).unwrap_or_default());
        all
    }

    fn add(&mut self, value: &Value) {
        let text = value.to_string();
        if text.len() > SHORT {
            self.0.insert(text);
        }
        match value {
            Value::Object(members) => members.values().for_each(|value| self.add(value)),
            Value::Array(items) => items.iter().for_each(|value| self.add(value)),
            _ => {}
        }
    }
}

/// Replaces each member of a message that the request contains too by `…`.
fn without_repeated(value: Value, repeated: &Repeated) -> Value {
    if repeated.0.contains(&value.to_string()) {
        return "…".into();
    }
    match value {
        Value::Object(members) => {
            let members = members.into_iter();
            members
                .map(|(key, value)| (key, without_repeated(value, repeated)))
                .collect()
        }
        other => other,
    }
}
