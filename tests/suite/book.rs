//! Checks that every include of the book finds its file and anchor, so that the book stays up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::tidy::files;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

fn chapters() -> Vec<(String, String)> {
    let folder = root().join("spec-notes/src");
    let mut all: Vec<_> = std::fs::read_dir(folder)
        .expect("the book")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.is_file())
        .map(|path| {
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, std::fs::read_to_string(path).expect("text"))
        })
        .collect();
    all.sort();
    all
}

/// Each include of the book: the chapter, the file, and the anchor or lines.
fn includes() -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    for (chapter, text) in chapters() {
        for part in text.split("{{#include ").skip(1) {
            let target = part.split("}}").next().expect("an end");
            let (file, what) = target.split_once(':').unwrap_or((target, ""));
            all.push((chapter.clone(), file.to_owned(), what.to_owned()));
        }
    }
    all
}

#[test]
fn every_include_finds_something() {
    let all = includes();
    assert!(all.len() > 5, "the book includes code and transcripts");
    for (chapter, file, what) in all {
        let text = std::fs::read_to_string(root().join("spec-notes/src").join(&file))
            .unwrap_or_else(|e| panic!("{chapter}: {file}: {e}"));
        if file.ends_with(".snap") {
            assert_eq!(
                text.lines().nth(2),
                Some("---"),
                "{chapter}: {file}: the header of a transcript has three lines"
            );
            assert_eq!(
                what, "4:",
                "{chapter}: {file}: a transcript is included without its header"
            );
            continue;
        }
        if file.starts_with("figures/") {
            // A table written by a benchmark, a test or a command, perhaps with a line about it.
            assert!(
                what.is_empty() && (text.starts_with("| ") || text.contains("\n| ")),
                "{chapter}: {file}: a table is included as a whole"
            );
            continue;
        }
        if [
            "/simulation/kept/",
            "/tests/scenarios/",
            "/tests/exercises/",
            "/docker/",
            "/model/traces/",
        ]
        .iter()
        .any(|folder| file.contains(folder))
        {
            // A schedule, a scenario, a program, a registration or a trace: a line with the reason or the title, then the rest.
            assert!(
                what.is_empty() && text.lines().count() > 1,
                "{chapter}: {file}: it is included as a whole"
            );
            continue;
        }
        let start = text
            .find(&format!("// ANCHOR: {what}\n"))
            .unwrap_or_else(|| panic!("{chapter}: {file} has no anchor {what}"));
        let end = text
            .find(&format!("// ANCHOR_END: {what}\n"))
            .unwrap_or_else(|| panic!("{chapter}: {file}: {what} has no end"));
        assert!(
            text[start..end].lines().count() > 2,
            "{chapter}: {file}:{what} is empty"
        );
    }
}

#[test]
fn every_anchor_in_the_code_is_included_by_a_chapter() {
    let included: BTreeSet<(String, String)> = includes()
        .into_iter()
        .map(|(_, file, what)| (file.trim_start_matches("../").to_owned(), what))
        .collect();
    let mut unused = Vec::new();
    for folder in ["schema", "actors", "workbench", "server", "tests"] {
        for (file, text) in files(folder) {
            let anchors = text
                .lines()
                .filter_map(|line| line.trim_start().strip_prefix("// ANCHOR: "));
            for anchor in anchors {
                if !included.contains(&(file.clone(), anchor.to_owned())) {
                    unused.push(format!("{file}: no chapter includes the anchor {anchor}"));
                }
            }
        }
    }
    assert!(unused.is_empty(), "{}", unused.join("\n"));
}

/// The fragments that lead to the headings of a chapter, as mdBook makes them.
fn headings(text: &str) -> BTreeSet<String> {
    let mut in_code = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        in_code ^= line.starts_with("```");
        if let (false, true) = (in_code, line.starts_with('#')) {
            let title = line.trim_start_matches('#').trim();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            found.insert(kept.collect::<String>().to_lowercase().replace(' ', "-"));
        }
    }
    found
}

#[test]
fn every_link_to_a_chapter_leads_somewhere() {
    let all: BTreeMap<String, String> = chapters().into_iter().collect();
    let mut wrong = Vec::new();
    for (name, text) in &all {
        for link in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let (file, fragment) = link.split_once('#').unwrap_or((link, ""));
            let file = if file.is_empty() { name.as_str() } else { file };
            if link.contains("://") || !file.ends_with(".md") {
                continue;
            }
            let found = all
                .get(file)
                .is_some_and(|text| fragment.is_empty() || headings(text).contains(fragment));
            if !found {
                wrong.push(format!("{name}: {link}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_chapter_is_in_the_summary() {
    let all = chapters();
    let summary = &all
        .iter()
        .find(|(name, _)| name == "SUMMARY.md")
        .expect("a summary")
        .1;
    for (name, _) in all.iter().filter(|(name, _)| name != "SUMMARY.md") {
        assert!(
            summary.contains(&format!("({name})")),
            "{name} is not in the summary"
        );
    }
}

#[test]
fn the_chart_matches_its_figures() {
    for (file, made) in tests::chart::made_of(&tests::chart::read()) {
        let shown = std::fs::read_to_string(&file).expect("it is in the book");
        assert!(
            shown == made,
            "{} does not match its figures; run cargo run -p understudy-tests --example chart",
            file.display()
        );
    }
}

#[test]
fn the_example_registration_can_be_parsed() {
    let text = std::fs::read_to_string(root().join("docker/registration.example.yaml"))
        .expect("the example");
    let registration = actors::appservices::rules::parse(&text).expect("a registration");
    assert_eq!(registration.id.as_str(), "example");
    assert!(registration.msc3202 && registration.msc4190 && registration.receive_ephemeral);
    assert!(
        registration.other.is_empty(),
        "every key of the example is known"
    );
}
