//! The difference between two runs of a scenario on two homeservers. `side_by_side.rs` shows it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::delivered::two_bodies;
use crate::fold::{Fold, differences};
use crate::homeserver::{Halt, Homeservers};
use crate::listener::Attempt;
use crate::run::{After, Outcome, Verdict, run_and};
use crate::scenario::Scenario;
use crate::sections::{SECTIONS, items};

/// The longest text of a cell.
const LONGEST: usize = 300;

/// What was as expected.
const AS_EXPECTED: &str = "as expected";

/// A homeserver, and the name under which it is shown.
pub struct Side<'a> {
    /// Its name.
    pub name: String,
    /// What starts or finds it.
    pub servers: &'a dyn Homeservers,
}

/// A place at which two runs differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The line of a step, or what a bridge was sent.
    pub at: String,
    /// What came on each side.
    pub sides: [String; 2],
}

/// The difference between two runs of a scenario.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The name of the scenario.
    pub name: String,
    /// The title.
    pub title: String,
    /// Where the runs differ.
    pub rows: Vec<Row>,
    /// Where the scenario ended early because a step could not be played, with the reason.
    pub ended: Option<String>,
    /// Whether both homeservers have played a step of it.
    pub is_compared: bool,
}

/// Plays a scenario on both homeservers. A step that one of them cannot play ends the scenario on both.
pub async fn compare(scenario: &Scenario, sides: &[Side<'_>; 2], password: &str) -> Comparison {
    let mut scenario = scenario.clone();
    let mut ended = None;
    let mut outcomes: [Option<Outcome>; 2] = [None, None];
    // The second one first: it is more likely to lack something, and then the first one need not be played to its end.
    let mut next = 1;
    while outcomes[next].is_none() {
        let outcome = run_and(&scenario, sides[next].servers, password, After::GoOn).await;
        if let Some((steps, why)) = gap(&scenario, &outcome) {
            ended = Some(format!("{}: {}", sides[next].name, why.trim()));
            scenario.steps.truncate(steps);
            outcomes = [None, None];
            if scenario.steps.is_empty() {
                break;
            }
            continue;
        }
        outcomes[next] = Some(outcome);
        next = 1 - next;
    }
    let rows = match &outcomes {
        [Some(left), Some(right)] => rows(&scenario, left, right),
        _ => Vec::new(),
    };
    Comparison {
        name: scenario.name(),
        title: scenario.head.title,
        rows,
        ended,
        is_compared: outcomes.iter().all(Option::is_some),
    }
}

/// How many steps come before one that could not be played, and why it could not.
fn gap(scenario: &Scenario, outcome: &Outcome) -> Option<(usize, String)> {
    let at = outcome
        .steps
        .iter()
        .position(|step| matches!(step, Err(Halt::Skipped(_))));
    match (at, &outcome.verdict) {
        (Some(at), _) => {
            let Err(why) = &outcome.steps[at] else {
                return None;
            };
            let placed = &scenario.steps[at];
            Some((at, format!("line {}, {}: {why}", placed.line, placed.text)))
        }
        (None, Verdict::Skipped(why)) => Some((0, why.clone())),
        (None, Verdict::Failed(why)) if outcome.steps.is_empty() => Some((0, why.clone())),
        (None, _) => None,
    }
}

fn rows(scenario: &Scenario, left: &Outcome, right: &Outcome) -> Vec<Row> {
    let mut rows = Vec::new();
    let (answers, others) = (answers(left), answers(right));
    for (i, placed) in scenario.steps.iter().enumerate() {
        let shown = |outcome: &Outcome| match outcome.steps.get(i) {
            Some(Err(why)) => shortened(&in_short(&Fold(&outcome.names).text(&why.to_string()))),
            _ => AS_EXPECTED.to_owned(),
        };
        let sides = [shown(left), shown(right)];
        let at = format!("line {}: {}", placed.line, placed.text);
        // If neither was as expected, the texts differ in details that the other rows show.
        if sides.contains(&AS_EXPECTED.to_owned()) && sides[0] != sides[1] {
            rows.push(Row {
                at: at.clone(),
                sides,
            });
        }
        let nothing = BTreeMap::new();
        let some = answers.get(&(i + 1)).unwrap_or(&nothing);
        let other = others.get(&(i + 1)).unwrap_or(&nothing);
        for (line, answer) in some {
            for (pointer, one, two) in other
                .get(line)
                .map(|other| differences(answer, other))
                .unwrap_or_default()
            {
                let at = format!("{at}\n{line} {pointer}").trim_end().to_owned();
                let shown = |value: Value| {
                    if value.is_null() {
                        "nothing".to_owned()
                    } else {
                        shortened(&value.to_string())
                    }
                };
                rows.push(Row {
                    at,
                    sides: [shown(one), shown(two)],
                });
            }
        }
    }
    let bridges: BTreeSet<&String> = left.sent.keys().chain(right.sent.keys()).collect();
    for bridge in bridges {
        let (one, two) = (delivered(left, bridge), delivered(right, bridge));
        let parts: BTreeSet<&String> = one.keys().chain(two.keys()).collect();
        for part in parts {
            let of =
                |some: &BTreeMap<String, Vec<String>>| some.get(part).cloned().unwrap_or_default();
            let sides = [lacking(&of(&two), &of(&one)), lacking(&of(&one), &of(&two))];
            if sides[0] != sides[1] {
                rows.push(Row {
                    at: format!("{bridge} is sent: {part}"),
                    sides,
                });
            }
        }
    }
    rows
}

/// The answers to the clients, by step, client and line, with the status.
type Answers = BTreeMap<usize, BTreeMap<String, Value>>;

fn answers(outcome: &Outcome) -> Answers {
    let fold = Fold(&outcome.names);
    let mut all = Answers::new();
    // What a `/sync` has is split differently in each run; the steps say what must be in it.
    for raw in outcome
        .raw
        .iter()
        .filter(|raw| !raw.is_to_bridge && !raw.line.contains("/sync?"))
    {
        let Some((status, body)) = raw
            .answer
            .as_deref()
            .and_then(|answer| answer.split_once(' '))
        else {
            continue;
        };
        let body: Value = serde_json::from_str(body).unwrap_or_default();
        let body = match status.starts_with('2') {
            true => fold.value(&body),
            false => json!({"errcode": body["errcode"]}),
        };
        let line = raw.line.split('?').next().unwrap_or_default();
        let line = format!("{} → {}", raw.lane, fold.text(line));
        let steps = all.entry(raw.step).or_default();
        steps.insert(line, json!({"status": status, "body": body}));
    }
    all
}

/// What a bridge has acknowledged, by section, without what comes when the homeserver sees fit; and how it was sent.
fn delivered(outcome: &Outcome, bridge: &str) -> BTreeMap<String, Vec<String>> {
    let fold = Fold(&outcome.names);
    let nothing = Vec::new();
    let attempts = outcome.sent.get(bridge).unwrap_or(&nothing);
    let mut parts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut put = |part: &str, item: String, once: bool| {
        let items = parts.entry(part.to_owned()).or_default();
        if !once || !items.contains(&item) {
            items.push(item);
        }
    };
    let mut last: BTreeMap<String, Value> = BTreeMap::new();
    for body in attempts
        .iter()
        .filter(|a| a.is_taken())
        .map(Attempt::sections)
    {
        for section in SECTIONS {
            for item in items(&body, section)
                .iter()
                .filter(|item| item["type"] != "m.presence")
            {
                match section {
                    "changed" | "left" => {
                        put(section, fold.text(item.as_str().unwrap_or_default()), true)
                    }
                    "ephemeral" => put(section, fold.event(item), true),
                    _ => put(section, fold.event(item), false),
                }
            }
        }
        for (user, devices) in body["device_one_time_keys_count"]
            .as_object()
            .into_iter()
            .flatten()
        {
            for (device, counts) in devices.as_object().into_iter().flatten() {
                let device = format!("{}/{device}", fold.text(user));
                // Some homeservers leave a count of 0 out.
                let Some(count) = counts.get("signed_curve25519") else {
                    continue;
                };
                if *count == 0 {
                    put("that a device has no one-time key", device.clone(), true);
                }
                last.insert(device, count.clone());
            }
        }
    }
    for (device, count) in last {
        put(
            "the last count of one-time keys",
            format!("{device}: {count}"),
            true,
        );
    }
    if two_bodies(attempts).is_some() {
        put("two transactions under one id", "yes".to_owned(), true);
    }
    for raw in outcome
        .raw
        .iter()
        .filter(|raw| raw.step > 0 && raw.is_to_bridge && raw.lane == bridge)
    {
        if !raw.line.contains("/transactions/") {
            put("requests", fold.text(&raw.line), true);
        }
    }
    parts
}

/// The items of the second list that the first one lacks.
fn lacking(first: &[String], second: &[String]) -> String {
    let mut rest = first.to_vec();
    let mut more: Vec<&String> = Vec::new();
    for item in second {
        match rest.iter().position(|other| other == item) {
            Some(at) => drop(rest.remove(at)),
            None => more.push(item),
        }
    }
    let more: Vec<String> = more.into_iter().map(|item| shortened(item)).collect();
    more.join("\n")
}

/// A failure on one line, without the whole value that it is about.
fn in_short(why: &str) -> String {
    let lines = why.lines().filter(|line| !line.starts_with("  whole: "));
    let words = lines.flat_map(str::split_whitespace);
    words.collect::<Vec<_>>().join(" ")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
