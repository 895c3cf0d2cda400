//! What is wrong with a scenario that can be read: found before it is played, so that no step passes whatever comes.

use serde_json::Value;

use crate::expect;
use crate::format::{Answer, Expected, Head, KEYS, Receives, Request, Step};
use crate::sentence::{FINAL, is_final};

/// The names that a scenario gives itself become names of users, files and folders.
const NAMED: &str = "a name has the characters A-Z a-z 0-9 . _ = - alone, and is not . or ..";

/// Whether a name can stand for a user, a device or a file.
fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._=-".contains(c);
    !name.is_empty() && name.chars().all(allowed) && name != "." && name != ".."
}

/// What is wrong with the names of people, devices and bridges: the section of the head, the name, and why.
///
/// # Errors
/// If one is wrong.
pub(crate) fn names(head: &Head) -> Result<(), (&'static str, &str, String)> {
    for (section, names) in [
        ("people:", head.people.keys().collect::<Vec<_>>()),
        ("bridges:", head.bridges.keys().collect()),
    ] {
        for name in names {
            let refuse = |why: String| Err((section, name.as_str(), why));
            if !is_name(name) {
                return refuse(format!("{name:?}: {NAMED}"));
            }
            if KEYS.contains(&name.as_str()) {
                return refuse(format!("{name} is the name of a step"));
            }
            if name == "anonymous" {
                return refuse("`anonymous` is the client without a token".to_owned());
            }
            if section == "bridges:" && head.people.contains_key(name) {
                return refuse(format!("{name} is a person and a bridge"));
            }
        }
    }
    for person in head.people.values() {
        if let Some(device) = person.device.as_deref().filter(|device| !is_name(device)) {
            return Err(("people:", device, format!("device {device:?}: {NAMED}")));
        }
    }
    Ok(())
}

/// What is wrong with a step.
///
/// # Errors
/// If it cannot be played, or would pass whatever comes.
pub(crate) fn step(step: &Step) -> Result<(), String> {
    match step {
        Step::Request(step) => {
            if step.by.is_empty() {
                return Err("a request says `by:` what client it is made".to_owned());
            }
            step.line()?;
            expected("expect: body", step.expect.body.as_ref())
        }
        Step::Sync(step) => expected("expect", step.expect.as_ref()),
        Step::SyncEnds(step) => expected("expect", step.expect.as_ref()),
        Step::Decrypted(step) => expected("content", step.content.as_ref()),
        Step::Transaction(step) => expected("body", step.body.as_ref()),
        Step::Receives(step) => receives(step),
        Step::Answer(step) => answer(step),
        Step::Asked(step) => expected("body", step.body.as_ref()),
        Step::Check(step) => expect::check(&step.is),
        Step::Deed(..)
        | Step::ToDevice(_)
        | Step::Olm(_)
        | Step::Event(_)
        | Step::Registration(_)
        | Step::Wait(_)
        | Step::Server(_) => Ok(()),
    }
}

fn expected(member: &str, given: Option<&Value>) -> Result<(), String> {
    match given {
        None => Ok(()),
        Some(Value::Null) => Err(format!(
            "`{member}` is empty; leave it out to expect nothing"
        )),
        Some(given) => expect::check(given),
    }
}

fn receives(step: &Receives) -> Result<(), String> {
    let mut items = step.items().into_iter().flat_map(|(_, items)| items);
    let Some(first) = items.next() else {
        return Err("`receives` names at least one item of a section".to_owned());
    };
    [first].into_iter().chain(items).try_for_each(expect::check)
}

fn answer(step: &Answer) -> Result<(), String> {
    if !is_final(step.status) {
        return Err(format!("status {}: {FINAL}", step.status));
    }
    step.first.iter().try_for_each(|request: &Request| {
        request.line()?;
        let Expected { status, body } = &request.expect;
        if status.is_some() || body.is_some() || !request.capture.is_empty() {
            let why = "no step compares the answer to a request under `first`";
            return Err(format!("{why}: leave `expect` and `capture` out"));
        }
        Ok(())
    })
}
