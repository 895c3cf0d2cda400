//! A scenario file: its text, its typed steps, and the lines at which they stand.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::format::{Head, KEYS, Step};
use crate::{checks, sentence};

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
        let placed = |(line, why): Found| place(line.unwrap_or(1), &why);
        // A map keeps the last of two values with one key. A value refuses the second.
        yaml::<serde_yaml_ng::Value>(text).map_err(placed)?;
        let head: Head = yaml(text).map_err(placed)?;
        let all: Vec<&str> = text.lines().collect();
        let line_of = |begin: usize, part: &str| {
            let found = all.iter().skip(begin).position(|line| line.contains(part));
            found.map_or(begin, |line| begin + line) + 1
        };
        checks::names(&head).map_err(|(section, name, why)| {
            let begin = all.iter().position(|line| line.starts_with(section));
            place(line_of(begin.unwrap_or(0), name), &why)
        })?;
        if head.steps.is_empty() {
            return Err(place(
                line_of(0, "steps:"),
                "a scenario has at least one step",
            ));
        }
        let lines = step_lines(&all);
        if lines.len() != head.steps.len() {
            let why =
                "`steps:` is a list with a `- ` at the start of each step, all indented alike";
            return Err(place(1, why));
        }
        let mut steps = Vec::new();
        for (value, lines) in head.steps.iter().zip(lines) {
            let first = lines.start;
            let lines = &all[lines];
            let step = typed(lines, value)
                .map_err(|(line, why)| place(first + line.unwrap_or(1), &why))?;
            let checked = match &step {
                Step::Deed(actor, sentence) => check_deed(&head, actor, sentence),
                step => checks::step(step),
            };
            checked.map_err(|why| place(first + 1, &why))?;
            steps.push(PlacedStep {
                line: first + 1,
                text: words(lines),
                step,
            });
        }
        Ok(Scenario {
            file: file.to_owned(),
            head,
            steps,
        })
    }

    /// The name: that of the file without its ending, or of the folder of a `scenario.yaml`.
    #[must_use]
    pub fn name(&self) -> String {
        let stem = self.file.file_stem();
        let folder = self.file.parent().and_then(Path::file_name);
        let name = match stem {
            Some(stem) if stem == "scenario" => folder.or(Some(stem)),
            stem => stem,
        };
        name.unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// What a parser found: the line, if it is known, and why.
type Found = (Option<usize>, String);

/// Parses YAML. An error has the line at which it was found, if the parser knows it.
fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, Found> {
    serde_yaml_ng::from_str(text).map_err(|e| found(&e))
}

fn found(error: &serde_yaml_ng::Error) -> Found {
    let line = error.location().map(|place| place.line());
    let why = error.to_string();
    // The text ends with the position, which the caller puts first.
    let why = why.split(" at line ").next().unwrap_or(&why);
    (line, why.replace('\n', " "))
}

/// A step of its own lines, so that errors have lines; of its value where the lines alone are not the same, as with an alias.
fn typed(lines: &[&str], value: &serde_yaml_ng::Value) -> Result<Step, Found> {
    let alone = lines.join("\n").replacen('-', " ", 1);
    match yaml::<serde_yaml_ng::Value>(&alone) {
        Ok(same) if same == *value => yaml(&alone),
        _ => serde_yaml_ng::from_value(value.clone()).map_err(|e| found(&e)),
    }
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

/// The lines of each step, as indices.
fn step_lines(all: &[&str]) -> Vec<Range<usize>> {
    let is_start = |line: &&str| line.trim_end() == "steps:" || line.starts_with("steps: #");
    let Some(start) = all.iter().position(is_start) else {
        return Vec::new();
    };
    let mut indent = None;
    let (mut begins, mut end) = (Vec::new(), all.len());
    for (number, line) in all.iter().enumerate().skip(start + 1) {
        let bare = line.trim_start();
        let here = line.len() - bare.len();
        if here == 0 && !bare.is_empty() && !bare.starts_with(['-', '#']) {
            // The next key of the file.
            end = number;
            break;
        }
        let is_item = bare == "-" || bare.starts_with("- ");
        if is_item && *indent.get_or_insert(here) == here {
            begins.push(number);
        }
    }
    let ends = begins.iter().skip(1).copied().chain([end]);
    begins
        .iter()
        .zip(ends)
        .map(|(begin, end)| *begin..end)
        .collect()
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
    fn names_that_leave_a_folder_or_stand_twice_are_refused() {
        let named = "a name has the characters A-Z a-z 0-9 . _ = - alone, and is not . or ..";
        let rest = "steps:\n- wait: 1 s\n";
        for (head, line, why) in [
            (
                "people:\n  alice: {}\nbridges:\n  irc: {}\n  /tmp/irc: {}\n",
                6,
                format!("\"/tmp/irc\": {named}"),
            ),
            ("bridges: {..: {}}\n", 2, format!("\"..\": {named}")),
            ("people: {'a b': {}}\n", 2, format!("\"a b\": {named}")),
            (
                "people:\n  alice: {device: ../X}\n",
                3,
                format!("device \"../X\": {named}"),
            ),
            (
                "people: {anonymous: {}}\n",
                2,
                "`anonymous` is the client without a token".to_owned(),
            ),
            (
                "people: {wait: {}}\n",
                2,
                "wait is the name of a step".to_owned(),
            ),
            (
                "people: {irc: {}}\nbridges: {irc: {}}\n",
                3,
                "irc is a person and a bridge".to_owned(),
            ),
        ] {
            assert_eq!(
                problem(&format!("title: x\n{head}{rest}")),
                format!("x.yaml:{line}: {why}")
            );
        }
        let twice = problem(&format!(
            "title: x\npeople:\n  alice: {{}}\n  alice: {{device: X}}\n{rest}"
        ));
        assert!(
            twice.starts_with("x.yaml:")
                && twice.contains("duplicate entry")
                && twice.contains("alice"),
            "{twice}"
        );
    }

    #[test]
    fn a_step_that_could_not_be_played_or_passes_always_is_refused() {
        let head = "title: x\npeople: {alice: {}}\nbridges: {irc: {}}\nsteps:\n- alice: syncs\n";
        for (step, why) in [
            (
                "request: {get: /x}",
                "a request says `by:` what client it is made",
            ),
            (
                "request: {by: alice, get: /x, put: /x}",
                "a request has exactly one of get, put, post and delete",
            ),
            (
                "request: {by: alice, get: x}",
                "the path \"x\" does not begin with /",
            ),
            (
                "answer: {bridge: irc, to: x, first: [{get: /x, expect: {status: 200}}]}",
                "no step compares the answer to a request under `first`: leave `expect` and `capture` out",
            ),
            (
                "answer: {bridge: irc, to: x, first: [{get: /x, capture: {a: /b}}]}",
                "no step compares the answer to a request under `first`: leave `expect` and `capture` out",
            ),
            (
                "answer: {bridge: irc, to: x, status: 99}",
                "status 99: an answer has 200 to 599",
            ),
            (
                "check: {value: 1, is: {$contains: {a: 1}}}",
                "$contains needs a list, not {\"a\":1}",
            ),
            (
                "sync: {by: alice, expect: }",
                "`expect` is empty; leave it out to expect nothing",
            ),
            (
                "transaction: {to: irc, body: }",
                "`body` is empty; leave it out to expect nothing",
            ),
            (
                "request: {by: alice, get: /x, expect: {body: }}",
                "`expect: body` is empty; leave it out to expect nothing",
            ),
            (
                "receives: {bridge: irc, left: []}",
                "`receives` names at least one item of a section",
            ),
            (
                "receives: {bridge: irc, left: [{$length: x}]}",
                "$length needs a number, not \"x\"",
            ),
            (
                "irc: answers 70000",
                "\"answers 70000\": status 70000: an answer has 200 to 599",
            ),
        ] {
            let wrong = problem(&format!("{head}- {step}\n- alice: syncs\n"));
            assert_eq!(wrong, format!("x.yaml:6: {why}"));
        }
        assert_eq!(
            problem("title: x\nsteps:\n"),
            "x.yaml:2: a scenario has at least one step"
        );
    }

    #[test]
    fn the_mistake_of_a_step_is_reported_and_not_that_of_its_lines() {
        let head = "title: x\npeople: {alice: {}}\nsteps:\n- event: &e {by: alice, room: '!r', type: m.x}\n";
        let alias = problem(&format!("{head}- event: {{<<: *e, kind: m.y}}\n"));
        assert!(
            alias.starts_with("x.yaml:5: ") && alias.contains("unknown field `<<`"),
            "{alias}"
        );
        let alias = problem(&format!("{head}- sync: *e\n"));
        assert!(
            alias.starts_with("x.yaml:5: ") && alias.contains("unknown field `room`"),
            "{alias}"
        );
        let last = problem("title: x\nsteps:\n- sync:\n    buy: alice\npeople: {alice: {}}\n");
        assert!(
            last.starts_with("x.yaml:4: ") && last.contains("unknown field `buy`"),
            "{last}"
        );
    }

    #[test]
    fn a_scenario_of_a_folder_has_the_name_of_the_folder() {
        let name = |file: &str| {
            let text = "title: x\nsteps:\n- wait: 1 s\n";
            let parsed = Scenario::parse(Path::new(file), text);
            parsed.expect("a scenario").name()
        };
        assert_eq!(name("mscs/msc4140/scenario.yaml"), "msc4140");
        assert_eq!(name("scenarios/a_leave.yaml"), "a_leave");
        assert_eq!(name("scenario.yaml"), "scenario");
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
