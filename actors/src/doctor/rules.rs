//! What is wrong with a registration as it stands, and with several side by side. Nothing here touches the network.

use serde_json::Value;

use schema::registration::{MSC3202, MSC4190, PUSH_EPHEMERAL, RECEIVE_EPHEMERAL, Registration};

use super::checks::{
    Chart, DUPLICATE_ID, DUPLICATE_SENDER, DUPLICATE_TOKEN, Finding, MISSING_FLAG, MISSPELT,
    NEIGHBOUR, NO_URL, NOT_SENT, SAME_TOKENS, SENDER_SPELLING, SHARED_TOKEN, SHORT_TOKEN,
    UNREADABLE, URL_PATH, WITHOUT_FLAG,
};
use super::search::CHOSEN;
use super::{Around, Patient, frameworks, namespaces};
use crate::appservices::rules::parse;

/// A token below this many characters can be guessed, or was typed.
const TOKEN: usize = 16;

/// The keys of a registration that this server reads itself.
const KEYS: &[&str] = &[
    "id",
    "url",
    "as_token",
    "hs_token",
    "sender_localpart",
    "namespaces",
    "rate_limited",
    "protocols",
    RECEIVE_EPHEMERAL,
    PUSH_EPHEMERAL,
    MSC3202,
    MSC4190,
];

/// The lists of patterns.
const LISTS: &[&str] = &["users", "aliases", "rooms"];

/// Everything that can be said of these registrations without asking the services.
#[must_use]
pub fn examine(patients: &[Patient], around: &Around) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut before: Vec<(&str, Registration)> = Vec::new();
    for patient in patients {
        let chart = &mut Chart::new(&patient.file, &mut findings);
        let text = match &patient.text {
            Ok(text) => text,
            Err(why) => {
                chart.found(UNREADABLE, why);
                continue;
            }
        };
        if let Ok(value) = serde_yaml_ng::from_str::<Value>(text) {
            misspelt(chart, &value, &around.known_keys);
        }
        let registration = match parse(text) {
            Ok(registration) => registration,
            Err(why) => {
                chart.found(UNREADABLE, one_line(&why));
                continue;
            }
        };
        let server = around.server_name.as_deref();
        alone(chart, &registration);
        flags(chart, &registration, around.framework);
        namespaces::examine(chart, &registration, server);
        for (file, other) in &before {
            beside(chart, &registration, file, other, server);
        }
        for (file, other) in &around.neighbours {
            match other {
                Ok(other) => beside(chart, &registration, file, other, server),
                Err(why) => chart.found(NEIGHBOUR, format!("{file}: {}", one_line(&why.why))),
            }
        }
        before.push((&patient.file, registration));
    }
    findings
}

fn one_line(why: &str) -> String {
    why.replace('\n', " ")
}

/// Keys that are unknown and look like one that is known.
fn misspelt(chart: &mut Chart<'_>, value: &Value, more: &[&str]) {
    let known: Vec<&str> = KEYS.iter().chain(more).copied().collect();
    for key in value.as_object().into_iter().flat_map(|o| o.keys()) {
        if let Some(meant) = meant(key, &known) {
            chart.found(
                MISSPELT,
                format!("the key {key:?} is not known; {meant} is"),
            );
        }
    }
    let spaces = value.get("namespaces").and_then(Value::as_object);
    for key in spaces.into_iter().flat_map(|o| o.keys()) {
        if !LISTS.contains(&key.as_str()) {
            chart.found(
                MISSPELT,
                format!("namespaces has no list {key:?}, only users, aliases and rooms"),
            );
        }
    }
}

// ANCHOR: meant
/// The known key that an unknown one was probably meant to be: the same last part under another prefix, or two letters off.
fn meant<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
    let digits = |text: &str| {
        let mut digits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).collect();
        digits.sort_unstable();
        digits
    };
    if known.contains(&key) {
        return None;
    }
    let key = plain(key);
    known.iter().copied().find(|known| {
        // Another number is another proposal, unless its digits were swapped.
        let near = digits(&key) == digits(known) && distance(&key, known) <= 2;
        // Two letters are all of "id".
        (near && known.len() > 4) || last(&key) == last(known)
    })
}
// ANCHOR_END: meant

/// How many letters must be put in, left out or exchanged to make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let exchanged = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Tokens, sender and URL.
fn alone(chart: &mut Chart<'_>, registration: &Registration) {
    if registration.as_token == registration.hs_token {
        chart.found(SAME_TOKENS, "as_token and hs_token are the same");
    }
    for (name, token) in [
        ("as_token", &registration.as_token),
        ("hs_token", &registration.hs_token),
    ] {
        if token.len() < TOKEN {
            chart.found(
                SHORT_TOKEN,
                format!("{name} has {} characters", token.len()),
            );
        }
    }
    let sender = &registration.sender_localpart;
    if !sender.bytes().all(|b| CHOSEN.contains(&b)) {
        chart.found(
            SENDER_SPELLING,
            format!("sender_localpart {sender:?} is not spelt as user names are"),
        );
    }
    match &registration.url {
        Some(url) if url.contains("/_matrix") => {
            chart.found(
                URL_PATH,
                format!("url {url:?} holds the path of the API already"),
            );
        }
        Some(_) => {}
        None => {
            let asked: Vec<&str> = [RECEIVE_EPHEMERAL, PUSH_EPHEMERAL, MSC3202]
                .into_iter()
                .filter(|key| registration.says(key))
                .collect();
            if asked.is_empty() {
                chart.found(NO_URL, "url is null: nothing is sent to the service");
            } else {
                chart.found(
                    NOT_SENT,
                    format!(
                        "url is null, so what {} asks for is never sent",
                        asked.join(", ")
                    ),
                );
            }
        }
    }
}

/// What does not work with a framework, or, without one, what would not work with which.
fn flags(
    chart: &mut Chart<'_>,
    registration: &Registration,
    framework: Option<&frameworks::Framework>,
) {
    if registration.url.is_none() {
        return;
    }
    if let Some(framework) = framework {
        for need in framework.needs.iter().filter(|n| n.is_unmet(registration)) {
            chart.found(
                MISSING_FLAG,
                format!(
                    "without {} {} gets no {}",
                    need.keys(),
                    framework.name,
                    need.without
                ),
            );
        }
        return;
    }
    let mut unmet: Vec<(String, &str, Vec<&str>)> = Vec::new();
    for framework in frameworks::ALL {
        for need in framework.needs.iter().filter(|n| n.is_unmet(registration)) {
            match unmet
                .iter_mut()
                .find(|(keys, without, _)| *keys == need.keys() && *without == need.without)
            {
                Some((_, _, names)) => names.push(framework.name),
                None => unmet.push((need.keys(), need.without, vec![framework.name])),
            }
        }
    }
    for (keys, without, names) in unmet {
        chart.found(
            WITHOUT_FLAG,
            format!("without {keys}, no {without} for {}", names.join(", ")),
        );
    }
}

/// What two services may not have in common.
fn beside(
    chart: &mut Chart<'_>,
    registration: &Registration,
    file: &str,
    other: &Registration,
    server: Option<&str>,
) {
    let mine = chart.file;
    if registration.id == other.id {
        chart.found(
            DUPLICATE_ID,
            format!("id {:?} is that of {file} too", other.id.as_str()),
        );
    }
    if registration.as_token == other.as_token {
        chart.found(DUPLICATE_TOKEN, format!("as_token is that of {file} too"));
    }
    if registration.hs_token == other.hs_token {
        chart.found(SHARED_TOKEN, format!("hs_token is that of {file} too"));
    }
    if registration.sender_localpart == other.sender_localpart {
        chart.found(
            DUPLICATE_SENDER,
            format!(
                "sender_localpart {:?} is that of {file} too",
                other.sender_localpart
            ),
        );
    }
    namespaces::sender_claimed(chart, (mine, registration), (file, other), server);
    namespaces::sender_claimed(chart, (file, other), (mine, registration), server);
    namespaces::compare(chart, registration, file, other, server);
}
