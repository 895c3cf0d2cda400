//! Finds problems in single registrations and between several, without the network.

use actors::appservices::rules::parse;
use actors::services::{MSC3202, MSC4190, PUSH_EPHEMERAL, RECEIVE_EPHEMERAL, Registration};
use serde_json::Value;

use super::checks::{
    DUPLICATE_ID, DUPLICATE_SENDER, DUPLICATE_TOKEN, Examination, Finding, MISSING_FLAG, MISSPELT,
    NEIGHBOUR, NO_URL, NOT_SENT, SAME_TOKENS, SENDER_SPELLING, SHARED_TOKEN, SHORT_TOKEN,
    UNREADABLE, URL_PATH, WITHOUT_FLAG,
};
use super::context::{ExaminationContext, RegistrationFile};
use super::search::CHOSEN;
use super::{frameworks, namespaces};

/// The length, in characters, below which a token is reported as easy to guess.
const TOKEN: usize = 16;

/// The registration keys that the server reads itself.
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

/// The keys in `namespaces`, each with a list of patterns.
const LISTS: &[&str] = &["users", "aliases", "rooms"];

/// Examine these registrations without sending requests to the appservices.
#[must_use]
pub(super) fn examine(files: &[RegistrationFile], context: &ExaminationContext) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut before: Vec<(&str, Registration)> = Vec::new();
    for examined in files {
        let exam = &mut Examination::new(&examined.name, &mut findings);
        let text = match &examined.text {
            Ok(text) => text,
            Err(why) => {
                exam.found(UNREADABLE, why);
                continue;
            }
        };
        if let Ok(value) = serde_yaml_ng::from_str::<Value>(text) {
            misspelt(exam, &value, &context.known_keys);
        }
        let registration = match parse(text) {
            Ok(registration) => registration,
            Err(why) => {
                exam.found(UNREADABLE, one_line(&why));
                continue;
            }
        };
        let server = context.server_name.as_deref();
        alone(exam, &registration);
        flags(exam, &registration, context.framework);
        namespaces::examine(exam, &registration, server);
        for (file, other) in &before {
            compare_services(exam, &registration, file, other, server);
        }
        for (file, other) in &context.neighbours {
            match other {
                Ok(other) => compare_services(exam, &registration, file, other, server),
                Err(why) => exam.found(NEIGHBOUR, format!("{file}: {}", one_line(&why.why))),
            }
        }
        before.push((&examined.name, registration));
    }
    findings
}

fn one_line(why: &str) -> String {
    why.replace('\n', " ")
}

/// Report unknown keys that resemble a known one.
fn misspelt(exam: &mut Examination<'_>, value: &Value, more: &[&str]) {
    let known: Vec<&str> = KEYS.iter().chain(more).copied().collect();
    for key in value.as_object().into_iter().flat_map(|o| o.keys()) {
        if let Some(meant) = meant(key, &known) {
            exam.found(
                MISSPELT,
                format!("the key {key:?} is not known; {meant} is"),
            );
        }
    }
    let spaces = value.get("namespaces").and_then(Value::as_object);
    for key in spaces.into_iter().flat_map(|o| o.keys()) {
        if !LISTS.contains(&key.as_str()) {
            exam.found(
                MISSPELT,
                format!("namespaces has no list {key:?}, only users, aliases and rooms"),
            );
        }
    }
}

// ANCHOR: meant
/// The known key that an unknown one was probably meant to be: one with the same last part under another prefix, or within two
/// edits.
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
        // A key with another number belongs to another proposal, unless the digits were swapped.
        let near = digits(&key) == digits(known) && distance(&key, known) <= 2;
        // For short keys such as "id", two edits can change everything.
        (near && known.len() > 4) || last(&key) == last(known)
    })
}
// ANCHOR_END: meant

/// The edit distance: how many characters must be inserted, removed or replaced to turn one text into the other.
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

/// Examine tokens, sender and URL.
fn alone(exam: &mut Examination<'_>, registration: &Registration) {
    if registration.as_token == registration.hs_token {
        exam.found(SAME_TOKENS, "as_token and hs_token are the same");
    }
    for (name, token) in [
        ("as_token", &registration.as_token),
        ("hs_token", &registration.hs_token),
    ] {
        if token.len() < TOKEN {
            exam.found(
                SHORT_TOKEN,
                format!("{name} has {} characters", token.len()),
            );
        }
    }
    let sender = &registration.sender_localpart;
    if !sender.bytes().all(|b| CHOSEN.contains(&b)) {
        exam.found(
            SENDER_SPELLING,
            format!("sender_localpart {sender:?} is not spelt as user names are"),
        );
    }
    match &registration.url {
        Some(url) if url.contains("/_matrix") => {
            exam.found(
                URL_PATH,
                format!("url {url:?} holds the path of the API already"),
            );
        }
        Some(_) => {}
        None => {
            let asked: Vec<&str> = [RECEIVE_EPHEMERAL, PUSH_EPHEMERAL, MSC3202]
                .into_iter()
                .filter(|key| registration.has_flag(key))
                .collect();
            if asked.is_empty() {
                exam.found(NO_URL, "url is null: nothing is sent to the service");
            } else {
                exam.found(
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

/// Report the features that do not work for lack of a registration key: those of one framework, or, without one, those of each.
fn flags(
    exam: &mut Examination<'_>,
    registration: &Registration,
    framework: Option<&frameworks::Framework>,
) {
    if registration.url.is_none() {
        return;
    }
    if let Some(framework) = framework {
        for need in framework.needs.iter().filter(|n| n.is_unmet(registration)) {
            exam.found(
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
        exam.found(
            WITHOUT_FLAG,
            format!("without {keys}, no {without} for {}", names.join(", ")),
        );
    }
}

/// Report values that two appservices must not share.
fn compare_services(
    exam: &mut Examination<'_>,
    registration: &Registration,
    file: &str,
    other: &Registration,
    server: Option<&str>,
) {
    let mine = exam.file;
    if registration.id == other.id {
        exam.found(
            DUPLICATE_ID,
            format!("id {:?} is that of {file} too", other.id.as_str()),
        );
    }
    if registration.as_token == other.as_token {
        exam.found(DUPLICATE_TOKEN, format!("as_token is that of {file} too"));
    }
    if registration.hs_token == other.hs_token {
        exam.found(SHARED_TOKEN, format!("hs_token is that of {file} too"));
    }
    if registration.sender_localpart == other.sender_localpart {
        exam.found(
            DUPLICATE_SENDER,
            format!(
                "sender_localpart {:?} is that of {file} too",
                other.sender_localpart
            ),
        );
    }
    namespaces::sender_claimed(exam, (mine, registration), (file, other), server);
    namespaces::sender_claimed(exam, (file, other), (mine, registration), server);
    namespaces::compare(exam, registration, file, other, server);
}
