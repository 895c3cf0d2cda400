//! A scenario file: its text, its typed steps, and the lines at which they stand.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::format::{Head, KEYS, Step};
use crate::sentence;

/// A scenario that can be played.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Everything but the steps.
    pub head: Head,
    /// The steps.
    pub steps: Vec<PlacedStep>,
}

/// A step with its place in the file.
#[derive(Debug, Clone)]
pub struct PlacedStep {
    /// The line at which it begins, from 1.
    pub line: usize,
    /// How it is written, on one line.
    pub text: String,
    /// What it is.
    pub step: Step,
}

/// Why a file cannot be played: one line with the file and the line.
pub type Problem = String;

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or is no scenario.
    pub fn read(file: &Path) -> Result<Scenario, Problem> {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        Scenario::parse(file, &text)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// If it is no scenario.
    pub fn parse(file: &Path, text: &str) -> Result<Scenario, Problem> {
        let place = |line: usize, why: &str| format!("{}:{line}: {why}", file.display());
        let head: Head = yaml(text).map_err(|(line, why)| place(line.unwrap_or(1), &why))?;
        if head.steps.is_empty() {
            let line = text.lines().position(|line| line.starts_with("steps:"));
            return Err(place(
                line.unwrap_or(0) + 1,
                "a scenario has at least one step",
            ));
        }
        let lines = step_lines(text);
        if lines.len() != head.steps.len() {
            let why =
                "`steps:` is a list with a `- ` at the start of each step, all indented alike";
            return Err(place(1, why));
        }
        let all: Vec<&str> = text.lines().collect();
        let mut steps = Vec::new();
        for (i, value) in head.steps.iter().enumerate() {
            let first = lines[i];
            let end = lines.get(i + 1).copied().unwrap_or(all.len());
            let step = typed(&all[first..end], value)
                .map_err(|(line, why)| place(first + line.unwrap_or(1), &why))?;
            if let Step::Deed(actor, sentence) = &step {
                check_deed(&head, actor, sentence).map_err(|why| place(first + 1, &why))?;
            }
            steps.push(PlacedStep {
                line: first + 1,
                text: words(&all[first..end]),
                step,
            });
        }
        let people: BTreeSet<&String> = head.people.keys().collect();
        for name in head.bridges.keys().chain(people.iter().copied()) {
            if KEYS.contains(&name.as_str()) {
                return Err(place(1, &format!("{name} is the name of a step")));
            }
        }
        if let Some(both) = head.bridges.keys().find(|name| people.contains(name)) {
            return Err(place(1, &format!("{both} is a person and a bridge")));
        }
        Ok(Scenario {
            file: file.to_owned(),
            head,
            steps,
        })
    }
}

/// Parses YAML. An error has the line at which it was found, if the parser knows it.
fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, (Option<usize>, String)> {
    serde_yaml_ng::from_str(text).map_err(|e| {
        let line = e.location().map(|place| place.line());
        let why = e.to_string();
        // The text ends with the position, which the caller puts first.
        let why = why.split(" at line ").next().unwrap_or(&why);
        (line, why.replace('\n', " "))
    })
}

/// A step of its own lines, so that errors have lines; of its value where the lines alone are not YAML, as with an alias.
fn typed(lines: &[&str], value: &serde_yaml_ng::Value) -> Result<Step, (Option<usize>, String)> {
    let alone = lines.join("\n").replacen('-', " ", 1);
    yaml(&alone).or_else(|found| serde_yaml_ng::from_value(value.clone()).map_err(|_| found))
}

/// The longest text of a step.
const WORDS: usize = 110;

/// The lines of a step as one, without comments.
fn words(lines: &[&str]) -> String {
    let lines = lines
        .iter()
        .map(|line| line.trim())
        .filter(|line| !line.starts_with('#'));
    let text = lines.collect::<Vec<_>>().join(" ");
    let text = text.trim_start_matches('-').trim();
    match text.char_indices().nth(WORDS) {
        Some((end, _)) => format!("{} …", text[..end].trim_end()),
        None => text.to_owned(),
    }
}

/// The indices of the lines at which steps begin.
fn step_lines(text: &str) -> Vec<usize> {
    let mut lines = text.lines().enumerate();
    let is_start = |line: &str| line.trim_end() == "steps:" || line.starts_with("steps: #");
    if !lines.any(|(_, line)| is_start(line)) {
        return Vec::new();
    }
    let mut indent = None;
    let mut found = Vec::new();
    for (number, line) in lines {
        let bare = line.trim_start();
        let here = line.len() - bare.len();
        if here == 0 && !bare.is_empty() && !bare.starts_with(['-', '#']) {
            // The next key of the file.
            break;
        }
        let is_item = bare == "-" || bare.starts_with("- ");
        if is_item && *indent.get_or_insert(here) == here {
            found.push(number);
        }
    }
    found
}

/// The parts of the name of an actor: `irc as bob/GHOST`, `alice/TABLET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorName {
    /// The person or the bridge.
    pub owner: String,
    /// The user that a bridge acts as.
    pub ghost: Option<String>,
    /// The device.
    pub device: Option<String>,
}

impl ActorName {
    /// Reads a name.
    #[must_use]
    pub fn read(name: &str) -> ActorName {
        let (owner, ghost) = match name.split_once(" as ") {
            Some((owner, ghost)) => (owner, Some(ghost)),
            None => (name, None),
        };
        let last = ghost.unwrap_or(owner);
        let (last, device) = match last.split_once('/') {
            Some((last, device)) => (last, Some(device.to_owned())),
            None => (last, None),
        };
        ActorName {
            owner: if ghost.is_some() { owner } else { last }.to_owned(),
            ghost: ghost.map(|_| last.to_owned()),
            device,
        }
    }
}

fn check_deed(head: &Head, actor: &str, sentence: &str) -> Result<(), String> {
    let name = ActorName::read(actor);
    let is_bridge = head.bridges.contains_key(&name.owner);
    if !is_bridge && !head.people.contains_key(&name.owner) {
        let known: Vec<&str> = head
            .people
            .keys()
            .chain(head.bridges.keys())
            .map(String::as_str)
            .collect();
        return Err(format!(
            "unknown step or name {actor:?}; the scenario has {}; steps are NAME: sentence | {}",
            known.join(", "),
            KEYS.join(" | ")
        ));
    }
    sentence::read(sentence, is_bridge).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        Scenario::parse(Path::new("x.yaml"), text).unwrap_err()
    }

    #[test]
    fn errors_have_the_line_of_their_step() {
        let head = "title: x\npeople: {alice: {}}\nsteps:\n- alice: syncs\n# why\n";
        let wrong = problem(&format!("{head}- request:\n    by: alice\n    gte: /x\n"));
        assert!(wrong.starts_with("x.yaml:8: "), "{wrong}");
        assert!(wrong.contains("unknown field `gte`"), "{wrong}");
        let wrong = problem(&format!("{head}- alice: dances\n"));
        assert!(
            wrong.starts_with("x.yaml:6: unknown sentence \"dances\""),
            "{wrong}"
        );
        let wrong = problem(&format!("{head}- bob: syncs\n"));
        assert!(
            wrong.starts_with("x.yaml:6: unknown step or name \"bob\""),
            "{wrong}"
        );
        let wrong = problem(&format!("{head}- wait: a while\n"));
        assert!(wrong.starts_with("x.yaml:6: "), "{wrong}");
        let wrong = problem("title: x\nsteps: [\n");
        assert!(wrong.starts_with("x.yaml:"), "{wrong}");
        let wrong = problem("title: x\nsteps: []\n");
        assert_eq!(wrong, "x.yaml:2: a scenario has at least one step");
        let wrong = problem("title: x\nstpes: []\n");
        assert!(
            wrong.starts_with("x.yaml:2: unknown field `stpes`"),
            "{wrong}"
        );
    }

    #[test]
    fn names_of_actors_have_parts() {
        let read = |name: &str| {
            let ActorName {
                owner,
                ghost,
                device,
            } = ActorName::read(name);
            (owner, ghost.unwrap_or_default(), device.unwrap_or_default())
        };
        let parts = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(read("alice"), parts("alice", "", ""));
        assert_eq!(read("alice/TABLET"), parts("alice", "", "TABLET"));
        assert_eq!(read("irc as bob/GHOST"), parts("irc", "bob", "GHOST"));
    }
}
