//! Checks the marks that name clauses of the specification, and generates `spec-notes/src/clause-index.md` from them.
//!
//! A mark is a comment that ends with `Clause:` and ids from `spec-notes/clauses.toml`. It stands at the rule that keeps the clauses,
//! or at a test that shows them; a scenario names clauses under `spec:`. After a change of a mark, the command
//! `INSTA_UPDATE=always cargo test --workspace --test suite clause` writes the index again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use workbench::Scenario;
use workbench::specification::{Level, Section, clause, sections};

use crate::tidy::{files, root};

/// The mark, in two parts so that this line is none.
const MARK: &str = concat!("Cla", "use: ");

/// A place in the code that names a clause.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    file: String,
    /// The function or type, or nothing for a mark at the head of a file.
    item: String,
    is_test: bool,
}

/// The name of the item that a line begins, if it begins one.
fn item_in(line: &str) -> Option<&str> {
    const BEFORE: [&str; 7] = [
        "pub",
        "pub(crate)",
        "pub(super)",
        "async",
        "const",
        "static",
        "unsafe",
    ];
    const KINDS: [&str; 6] = ["fn", "struct", "enum", "trait", "type", "macro_rules!"];
    let mut words = line.split_whitespace().peekable();
    let mut constant = None;
    while let Some(word) = words.next() {
        let next = *words.peek()?;
        let name = next
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .next();
        if KINDS.contains(&word) {
            return name;
        }
        if ["const", "static"].contains(&word) {
            constant = name;
        }
        if !BEFORE.contains(&word) {
            break;
        }
        if constant.is_some() && !KINDS.contains(&next) && !BEFORE.contains(&next) {
            return constant;
        }
    }
    None
}

/// The item that a mark in this line belongs to: the next one, or inside of a function the function.
fn item_at(lines: &[&str], at: usize) -> String {
    let code = |line: &str| {
        let line = line.trim_start();
        !(line.is_empty() || line.starts_with("//") || line.starts_with("#["))
    };
    let next = lines[at + 1..]
        .iter()
        .position(|line| code(line))
        .map(|n| at + 1 + n);
    let found = next.and_then(|n| Some((n, item_in(lines[n])?)));
    let found = found.or_else(|| (0..at).rev().find_map(|n| Some((n, item_in(lines[n])?))));
    match found {
        // A handler is known by its message.
        Some((n, "handle")) => {
            let handler = lines[..n]
                .iter()
                .rev()
                .find(|line| line.starts_with("impl Handler<"));
            let message = handler.and_then(|line| line.split(['<', '>']).nth(1));
            message.map_or_else(
                || "handle".to_owned(),
                |message| format!("Handler<{message}>"),
            )
        }
        Some((_, name)) => name.to_owned(),
        None => String::new(),
    }
}

/// The marks of a file: each clause, with the place that names it.
fn marks(file: &str, text: &str) -> Vec<(String, Place)> {
    let lines: Vec<&str> = text.lines().collect();
    let tests_from = lines
        .iter()
        .position(|line| *line == "#[cfg(test)]")
        .unwrap_or(lines.len());
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((before, ids)) = line.split_once(MARK) else {
            continue;
        };
        if !before.contains("//") {
            continue;
        }
        let item = if before.trim_start().starts_with("//!") {
            String::new()
        } else {
            item_at(&lines, at)
        };
        let is_test = at > tests_from
            || file.contains("/tests/")
            || file.starts_with("tests/")
            || file.ends_with("/tests.rs");
        let place = Place {
            file: file.to_owned(),
            item,
            is_test,
        };
        found.extend(
            ids.split(", ")
                .map(|id| (id.trim().to_owned(), place.clone())),
        );
    }
    found
}

/// All marks in the code, by clause.
fn all_marks() -> BTreeMap<String, BTreeSet<Place>> {
    let mut by_clause: BTreeMap<String, BTreeSet<Place>> = BTreeMap::new();
    for folder in ["schema", "actors", "workbench", "server", "tests"] {
        for (file, text) in files(folder) {
            for (id, place) in marks(&file, &text) {
                by_clause.entry(id).or_default().insert(place);
            }
        }
    }
    by_clause
}

/// The scenarios, those of proposals included, by the clauses that they name. An address of a section names no clause.
fn scenarios() -> BTreeMap<String, BTreeSet<String>> {
    let inside = |folder: &str| {
        let all = std::fs::read_dir(root().join(folder)).expect("a folder");
        all.map(|entry| entry.expect("an entry").path())
    };
    let own =
        inside("tests/scenarios").filter(|path| path.extension().is_some_and(|e| e == "yaml"));
    let of_proposals = inside("server/src/mscs").map(|folder| folder.join("scenario.yaml"));
    let mut by_clause: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in own.chain(
        of_proposals.filter(|path| path.is_file() && !path.to_string_lossy().contains("template")),
    ) {
        let scenario = Scenario::read(&path).expect("a scenario");
        let name = match path.file_stem().expect("a name").to_string_lossy() {
            name if name == "scenario" => path
                .parent()
                .and_then(Path::file_name)
                .expect("a folder")
                .to_string_lossy(),
            name => name,
        };
        for id in scenario
            .head
            .spec
            .into_iter()
            .filter(|id| !id.contains(':'))
        {
            by_clause
                .entry(id)
                .or_default()
                .insert(name.clone().into_owned());
        }
    }
    by_clause
}

#[test]
fn each_clause_has_an_id_of_its_own_and_each_mark_and_scenario_names_one() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for section in sections() {
        let chapter = format!("spec-notes/src/{}", section.chapter);
        if !root().join(&chapter).is_file() {
            wrong.push(format!("clauses.toml: there is no {chapter}"));
        }
        for clause in &section.clauses {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-".contains(c);
            if !seen.insert(clause.0.as_str()) || !clause.0.chars().all(plain) {
                wrong.push(format!("clauses.toml: {} is doubled or no id", clause.0));
            }
        }
    }
    for (id, places) in all_marks() {
        if !seen.contains(id.as_str()) {
            wrong.push(format!(
                "{places:?} name {id}, which is not in spec-notes/clauses.toml"
            ));
        }
    }
    for (id, names) in scenarios() {
        if clause(&id).is_none() {
            wrong.push(format!(
                "{names:?}: spec names {id}, which is not in spec-notes/clauses.toml"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_mark_belongs_to_the_item_after_it_or_around_it() {
    let text = format!(
        "//! A file. {MARK}a.file\n/// Once. {MARK}a.one, a.two\n#[must_use]\npub(crate) async fn once() {{\n\
         // Here. {MARK}a.inside\nlet x = 1;\n}}\nimpl Handler<Ask> for Actor {{\n/// {MARK}a.ask\nfn handle(\n\
         /// {MARK}a.limit\npub const LIMIT: u8 = 1;\n#[cfg(test)]\n/// {MARK}a.shown\n#[test]\nfn shows() {{\n"
    );
    let found: Vec<(String, String, bool)> = marks("x.rs", &text)
        .into_iter()
        .map(|(id, p)| (id, p.item, p.is_test))
        .collect();
    let expected = [
        ("a.file", "", false),
        ("a.one", "once", false),
        ("a.two", "once", false),
        ("a.inside", "once", false),
        ("a.ask", "Handler<Ask>", false),
        ("a.limit", "LIMIT", false),
        ("a.shown", "shows", true),
    ];
    assert_eq!(
        found,
        expected.map(|(id, item, is_test)| (id.to_owned(), item.to_owned(), is_test))
    );
}

/// The places that keep a clause, or that show it.
fn places(entries: &[String]) -> String {
    if entries.is_empty() {
        return "nothing: a **gap**".to_owned();
    }
    entries.join(", ")
}

/// How a clause is kept and shown.
fn row(
    section: &Section,
    n: usize,
    marks: &BTreeMap<String, BTreeSet<Place>>,
    scenarios: &BTreeMap<String, BTreeSet<String>>,
) -> (Vec<String>, Vec<String>) {
    let id = &section.clauses[n].0;
    let places = marks.get(id).into_iter().flatten();
    let (tests, rules): (Vec<&Place>, Vec<&Place>) = places.partition(|place| place.is_test);
    let rules = rules.into_iter().map(|place| match place.item.as_str() {
        "" => format!("`{}`", place.file),
        item => format!("`{}`: `{item}`", place.file),
    });
    let scenarios = scenarios
        .get(id)
        .into_iter()
        .flatten()
        .map(|name| format!("scenario `{name}`"));
    let tests = tests.into_iter().map(|place| {
        let snapshot = format!("tests/snapshots/{}.snap", place.item);
        let kind = if Path::new(&root().join(snapshot)).is_file() {
            "transcript"
        } else {
            "test"
        };
        format!("{kind} `{}`", place.item)
    });
    (rules.collect(), scenarios.chain(tests).collect())
}

/// The chapter.
fn index() -> String {
    let (marks, scenarios) = (all_marks(), scenarios());
    let (mut tables, mut not_kept, mut not_shown, mut all) =
        (String::new(), Vec::new(), Vec::new(), 0);
    for section in sections() {
        let Section {
            title,
            source,
            chapter,
            clauses,
        } = section;
        let text = source
            .as_ref()
            .map_or_else(String::new, |source| format!("[The text]({source}). "));
        let _ = write!(tables, "\n## {title}\n\n{text}[The chapter]({chapter}).\n");
        for (n, clause) in clauses.iter().enumerate() {
            let (kept, shown) = row(section, n, &marks, &scenarios);
            let level = match clause.1 {
                Level::Must => "must",
                Level::Should => "should",
                Level::May => "may",
                Level::Own => "own",
            };
            all += 1;
            match (kept.is_empty(), shown.is_empty()) {
                (true, _) => not_kept.push(format!("`{}`: {}", clause.0, clause.2)),
                (false, true) => not_shown.push(format!("`{}`", clause.0)),
                _ => {}
            }
            let _ = writeln!(
                tables,
                "\n<a id=\"{0}\"></a>`{0}` ({level}): {1}<br>\n*Kept by* {2}.<br>\n*Shown by* {3}.",
                clause.0,
                clause.2,
                places(&kept),
                places(&shown)
            );
        }
    }
    let list = |gaps: &[String]| match gaps {
        [] => "- none\n".to_owned(),
        gaps => gaps.iter().map(|gap| format!("- {gap}\n")).collect(),
    };
    format!(
        "# Clause index\n\n\
         <!-- Generated: INSTA_UPDATE=always cargo test --workspace --test suite clause -->\n\n\
         What the specification asks of a homeserver in the part that understudy serves: each clause in one sentence, with the rule in\n\
         the code that keeps it, and with the scenarios, transcripts and tests that show it. `must` and `should` are those of the text; what it\n\
         states as a fact about a homeserver counts as `must`. `own` marks what understudy promises beyond the text. Proposals that are not\n\
         accepted yet are listed as if they were.\n\n\
         The list of clauses is `spec-notes/clauses.toml`. This page is generated from it and from marks in the code: a comment that ends with\n\
         `{MARK}` and ids, at a rule or at a test, and `spec:` in a scenario. `understudy conformance` counts its scenarios by the same ids.\n\n\
         {all} clauses: {} with a rule and something that shows it, {} with a rule alone, {} without a rule.\n\n\
         ## Gaps\n\nNo rule keeps these; [Deviations](deviations.md) says what is done instead:\n\n{}\n\
         These have a rule, and no scenario, transcript or test is marked as showing them:\n\n{}{tables}",
        all - not_kept.len() - not_shown.len(),
        not_shown.len(),
        not_kept.len(),
        list(&not_kept),
        list(&not_shown),
    )
}

#[test]
fn the_clause_index_matches_the_marks() {
    let file = root().join("spec-notes/src/clause-index.md");
    let made = index();
    if std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always") {
        std::fs::write(&file, made).expect("it can be written");
        return;
    }
    let shown = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        shown == made,
        "spec-notes/src/clause-index.md does not match the marks; run INSTA_UPDATE=always cargo test --workspace --test suite clause"
    );
}
