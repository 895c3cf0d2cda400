//! What the actors did, from their trace: messages, writes and wakes, grouped so that the result does not depend on timing.

use std::collections::{BTreeMap, BTreeSet};

use actors::runtime::trace::TracedMessage;
use serde_json::Value;

/// Messages without content, and messages whose content is shown as a request to a bridge.
const LEFT_OUT: [&str; 5] = [
    "InterestAdded",
    "LogAppended",
    "TakeEphemeral",
    "Attempt",
    "DeviceSeen",
];

/// The name of the rows of messages that their device has acknowledged and that stay for appservices.
const FOR_SERVICES: &str = "inbox for services";

/// A message between actors, and the rows that its receiver wrote because of it.
pub(super) struct Message {
    from: String,
    to: String,
    what: String,
    pub(super) body: Value,
    pub(super) rows: Rows,
}

impl Message {
    /// The message without its content.
    pub(super) fn head(&self) -> String {
        format!("{} → {}  {}", self.from, self.to, self.what)
    }

    pub(super) fn is_bare(&self) -> bool {
        self.what.is_empty()
    }

    /// The name of the actor, if this stands for writes that no message caused.
    pub(super) fn actor_of_bare(&self) -> Option<&str> {
        self.is_bare().then_some(&self.to)
    }
}

/// For each name of rows, the number that writes added minus the number that they removed.
#[derive(Default, Clone)]
pub(super) struct Rows(BTreeMap<String, i64>);

impl Rows {
    fn add(&mut self, name: &str, rows: i64) {
        *self.0.entry(name.to_owned()).or_default() += rows;
    }

    fn of(seen: &TracedMessage) -> Rows {
        Rows(serde_json::from_str(seen.body.get()).expect("rows by name"))
    }

    /// Takes the rows whose name begins with `begin`. Returns the rest of each name, and the number.
    fn take(&mut self, begin: &str) -> Vec<(String, i64)> {
        let (taken, rest) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(name, _)| name.starts_with(begin));
        self.0 = rest;
        let taken: BTreeMap<String, i64> = taken;
        let rest = |name: String| name[begin.len()..].to_owned();
        taken
            .into_iter()
            .map(|(name, rows)| (rest(name), rows))
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.values().all(|rows| *rows == 0)
    }
}

impl std::fmt::Display for Rows {
    /// `inbox +1, owed irc +1 (exclusive_namespace)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let changed = self.0.iter().filter(|(_, rows)| **rows != 0);
        let shown = changed.map(|(name, rows)| {
            let sign = if *rows < 0 { "−" } else { "+" };
            let (what, detail) = match name.split_once(" (") {
                Some((what, detail)) => (what, format!(" ({detail}")),
                None => (name.as_str(), String::new()),
            };
            format!("{what} {sign}{}{detail}", rows.abs())
        });
        f.write_str(&shown.collect::<Vec<_>>().join(", "))
    }
}

/// What was done because of one request, or without one.
#[derive(Default)]
pub(super) struct Done {
    pub(super) messages: Vec<Message>,
    senders: BTreeSet<String>,
    syncs: BTreeSet<String>,
}

impl Done {
    fn take(&mut self, seen: &TracedMessage) {
        let body: Value = serde_json::from_str(seen.body.get()).expect("a message is JSON");
        match seen.what {
            "Write" => self.wrote(seen.from, Rows::of(seen)),
            "WakeSender" => {
                let service = body["service"].as_str().unwrap_or_default();
                self.senders.insert(service.to_owned());
            }
            "WakeSync" => {
                let names = ["users", "rooms"].map(|key| body[key].as_array().cloned());
                let names = names.into_iter().flatten().flatten();
                self.syncs
                    .extend(names.filter_map(|name| name.as_str().map(str::to_owned)));
            }
            what => self.messages.push(Message {
                from: seen.from.to_owned(),
                to: seen.to.to_owned(),
                what: what.to_owned(),
                body,
                rows: Rows::default(),
            }),
        }
    }

    /// Assigns a write to the last message to its actor.
    fn wrote(&mut self, actor: &str, rows: Rows) {
        let led_to_it = self.messages.iter_mut().rev().find(|m| m.to == actor);
        if let Some(message) = led_to_it {
            for (name, more) in rows.0 {
                message.rows.add(&name, more);
            }
            return;
        }
        self.messages.push(Message {
            from: actor.to_owned(),
            to: actor.to_owned(),
            what: String::new(),
            body: Value::Null,
            rows,
        });
    }

    /// `wakes irc; /sync of @irc_bob:test`; `None` if nothing was woken.
    pub(super) fn wakes(&self) -> Option<String> {
        let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
        match (self.senders.is_empty(), self.syncs.is_empty()) {
            (true, true) => None,
            (false, true) => Some(format!("wakes {}", list(&self.senders))),
            (true, false) => Some(format!("wakes /sync of {}", list(&self.syncs))),
            (false, false) => Some(format!(
                "wakes {}; /sync of {}",
                list(&self.senders),
                list(&self.syncs)
            )),
        }
    }
}

/// What was done in a step, by cause.
#[derive(Default)]
pub(super) struct Step {
    /// What each request did, by the number of the request, with its method and path.
    requests: BTreeMap<u64, (String, Done)>,
    /// The transactions that were sent, by appservice and transaction id.
    transactions: BTreeMap<(String, String), Transaction>,
    /// The rows of the writes that no request caused, by actor.
    rows: BTreeMap<String, Rows>,
    /// The messages between actors that no request caused.
    messages: Vec<Message>,
    /// The senders that were woken without a request.
    senders: BTreeSet<String>,
}

/// What happened to a transaction in a step.
#[derive(Default)]
pub(super) struct Transaction {
    /// The number of owed rows that it carries, if it was frozen in this step.
    pub(super) frozen: Option<i64>,
    pub(super) acknowledged: bool,
    /// The messages that the sender sent after the acknowledgement, and the rows that their receivers wrote.
    pub(super) effects: Done,
}

impl Step {
    pub(super) fn new(all: &[&TracedMessage]) -> Step {
        let mut step = Step::default();
        for seen in all.iter().filter(|seen| is_shown(seen)) {
            step.take(seen);
        }
        step
    }

    fn take(&mut self, seen: &TracedMessage) {
        let mut cause = seen.cause.split(' ');
        let first = cause.next().unwrap_or_default();
        if let Ok(request) = first.parse() {
            let rest = cause.collect::<Vec<_>>().join(" ");
            let (_, done) = self
                .requests
                .entry(request)
                .or_insert((rest, Done::default()));
            return done.take(seen);
        }
        if let ("transaction", Some(service), Some(id)) = (first, cause.next(), cause.next()) {
            let key = (service.to_owned(), id.to_owned());
            let effects = &mut self.transactions.entry(key).or_default().effects;
            if seen.what != "Write" {
                return effects.take(seen);
            }
            let mut rows = Rows::of(seen);
            // Whether a row stays for another appservice depends on which of them acknowledged first.
            let all = self.rows.entry(seen.from.to_owned()).or_default();
            for (name, more) in rows.take(FOR_SERVICES) {
                all.add(&format!("{FOR_SERVICES}{name}"), more);
            }
            return effects.wrote(seen.from, rows);
        }
        match seen.what {
            "Write" => self.wrote(seen),
            // Whether a sender that was held back is woken depends on timing.
            "WakeSender" | "WakeSync" if seen.from != "wake" || seen.what == "WakeSync" => {}
            "WakeSender" => {
                let mut done = Done::default();
                done.take(seen);
                self.senders.extend(done.senders);
            }
            _ => {
                let mut done = Done::default();
                done.take(seen);
                self.messages.extend(done.messages);
            }
        }
    }

    fn wrote(&mut self, seen: &TracedMessage) {
        let mut rows = Rows::of(seen);
        let key = |name: &str| {
            let (service, id) = name.split_once(' ').unwrap_or_default();
            (service.to_owned(), id.to_owned())
        };
        for (name, carried) in rows.take("frozen ") {
            self.transactions.entry(key(&name)).or_default().frozen = Some(carried);
        }
        for (name, _) in rows.take("acknowledged ") {
            self.transactions
                .entry(key(&name))
                .or_default()
                .acknowledged = true;
        }
        let all = self.rows.entry(seen.from.to_owned()).or_default();
        for (name, more) in rows.0 {
            all.add(&name, more);
        }
    }

    /// Takes what the first request with this method and path did, if it did anything.
    pub(super) fn request(&mut self, method: &str, path: &str) -> Option<Done> {
        let is_it = |cause: &str| {
            let (asked, template) = cause.split_once(' ').unwrap_or_default();
            asked == method && fits(template, path)
        };
        let (request, _) = self.requests.iter().find(|(_, (cause, _))| is_it(cause))?;
        let request = *request;
        self.requests.remove(&request).map(|(_, done)| done)
    }

    /// Takes what happened to a transaction up to the request that got this answer. After a failed request, only the freezing.
    pub(super) fn transaction(&mut self, service: &str, id: &str, answer: &str) -> Transaction {
        let key = (service.to_owned(), id.to_owned());
        let Some(mut became) = self.transactions.remove(&key) else {
            return Transaction::default();
        };
        if answer.starts_with('2') {
            return became;
        }
        let frozen = became.frozen.take();
        self.transactions.insert(key, became);
        Transaction {
            frozen,
            ..Transaction::default()
        }
    }

    /// What remains: done without a request, by a request that belongs to no step, or for a transaction that was not sent.
    pub(super) fn rest(self) -> (Vec<Message>, Vec<String>) {
        let mut messages = self.messages;
        let mut lines = Vec::new();
        for (_, done) in self.requests.into_values() {
            lines.extend(done.wakes());
            messages.extend(done.messages);
        }
        for ((service, id), transaction) in self.transactions {
            lines.extend(transaction.frozen.map(|rows| frozen(&service, &id, rows)));
            messages.extend(transaction.effects.messages);
        }
        let rows = self.rows.iter().filter(|(_, rows)| !rows.is_empty());
        lines.extend(rows.map(|(actor, rows)| format!("{actor}: {rows}")));
        if !self.senders.is_empty() {
            let senders: Vec<String> = self.senders.into_iter().collect();
            lines.push(format!("wakes {}", senders.join(", ")));
        }
        (messages, lines)
    }
}

/// `frozen T1: 2 owed to irc`.
pub(super) fn frozen(service: &str, id: &str, rows: i64) -> String {
    match rows {
        0 => format!("frozen {id}: ephemeral data alone"),
        _ => format!("frozen {id}: {rows} owed to {service}"),
    }
}

/// Whether the transcript shows a message. The answer of a bridge is shown with the request to it; only a failed request has no
/// such entry.
fn is_shown(seen: &TracedMessage) -> bool {
    let is_answered = seen.what == "Answered" && seen.body.get().contains("\"Failed\"");
    !LEFT_OUT.contains(&seen.what) && (seen.what != "Answered" || is_answered)
}

/// Whether a path matches a template such as `/devices/{device_id}`.
fn fits(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/'), path.split('/'));
    template.clone().count() == path.clone().count()
        && template
            .zip(path)
            .all(|(t, p)| t.starts_with('{') || t == p)
}
