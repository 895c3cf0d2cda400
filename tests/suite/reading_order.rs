//! Checks the reading order at the head of README.md and ARCHITECTURE.md: each file exists, is about as long as stated, and names
//! the file to read next.

use crate::tidy::{files, root};

/// One of the lists: files in the order in which data flows through them.
#[derive(Debug, PartialEq, Eq)]
struct Way {
    /// What flows, such as "a to-device message".
    what: String,
    /// Each file, with its number of lines.
    files: Vec<(String, usize)>,
}

/// The largest number of files on the way of a to-device message, and of lines in all of them.
const FIRST: (usize, usize) = (14, 3_000);

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The lists of a page: under `## Reading order`, a line `**The way of …**`, and an item "1. `path` (lines): why" for each file.
fn ways(page: &str) -> Vec<Way> {
    let text = text(page);
    let (_, section) = text.split_once("\n## Reading order\n").expect("a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut ways: Vec<Way> = Vec::new();
    for line in section.lines() {
        if let Some(what) = line.strip_prefix("**The way of ") {
            let what = what.split("**").next().unwrap_or_default().to_owned();
            ways.push(Way {
                what,
                files: Vec::new(),
            });
        }
        let is_item = line
            .split_once(". `")
            .is_some_and(|(n, _)| n.parse::<u8>().is_ok());
        if let (true, Some(way)) = (is_item, ways.last_mut()) {
            let mut parts = line.split('`');
            let path = parts.nth(1).expect("a path").to_owned();
            let lines = parts.next().and_then(|rest| rest.split(['(', ')']).nth(1));
            let lines = lines.and_then(|n| n.parse().ok());
            way.files
                .push((path, lines.expect("the lines of the file, in brackets")));
        }
    }
    ways
}

#[test]
fn both_pages_begin_with_the_same_three_lists() {
    let ways = ways("README.md");
    assert_eq!(ways, self::ways("ARCHITECTURE.md"));
    let what: Vec<&str> = ways.iter().map(|way| way.what.as_str()).collect();
    assert_eq!(what, ["a to-device message", "a leave", "a claim"]);
}

#[test]
fn each_file_is_as_long_as_listed_and_names_the_next() {
    let mut wrong = Vec::new();
    for way in ways("README.md") {
        for (i, (path, said)) in way.files.iter().enumerate() {
            let text = text(path);
            let lines = text.lines().count();
            if lines.abs_diff(*said) > 10.max(lines / 10) {
                wrong.push(format!("{path} has {lines} lines, not {said}"));
            }
            let Some((next, _)) = way.files.get(i + 1) else {
                continue;
            };
            let line = format!("//! Next on the way of {}: `{next}`.", way.what);
            if !text.contains(&line) {
                wrong.push(format!("{path} should say\n    {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_way_of_a_to_device_message_stays_short() {
    let ways = ways("README.md");
    let files = &ways[0].files;
    let lines: usize = files.iter().map(|(_, lines)| lines).sum();
    assert!(
        files.len() <= FIRST.0 && lines <= FIRST.1,
        "{} files, {lines} lines",
        files.len()
    );
}

/// The largest number of lines of the five central actors, without unit tests. (ARCHITECTURE.md, "Size")
const HEART: usize = 8_000;

/// The largest number of lines of all `src` folders, without unit tests. ARCHITECTURE.md, "Size", gives the reason for raising it.
const ALL: usize = 57_000;

/// The number of lines of the files below a folder, without unit tests.
fn lines_of(folder: &str) -> usize {
    let of = |(path, text): (String, String)| {
        if path.ends_with("/tests.rs") || path.contains("/tests/") {
            return 0;
        }
        let code = text
            .split("\n#[cfg(test)]\nmod ")
            .next()
            .unwrap_or_default();
        code.lines().count()
    };
    files(folder).into_iter().map(of).sum()
}

#[test]
fn the_code_keeps_its_line_budget() {
    let actors = [
        "to_device_inbox",
        "device_lists",
        "key_store",
        "appservices",
        "appservice_sender",
    ];
    let heart: usize = actors
        .iter()
        .map(|a| lines_of(&format!("actors/src/{a}")))
        .sum();
    let crates = ["schema/src", "actors/src", "server/src"].map(lines_of);
    let all: usize = crates.iter().sum();
    println!(
        "heart {heart} of {HEART}; schema, actors and server {crates:?}, together {all} of {ALL}"
    );
    assert!(
        heart <= HEART,
        "the heart has {heart} lines; {HEART} is its bound"
    );
    assert!(all <= ALL, "`src` has {all} lines; {ALL} is its bound");
    let size = text("ARCHITECTURE.md");
    let named = [HEART, ALL].map(|bound| format!("{},{:03}", bound / 1_000, bound % 1_000));
    assert!(
        named.iter().all(|bound| size.contains(bound)),
        "ARCHITECTURE.md names both bounds"
    );
}
