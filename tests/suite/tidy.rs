//! Rules about the source code. A failure names the file and what to do.

use std::path::{Path, PathBuf};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

/// Every Rust file below a folder of the workspace, with its text.
pub(crate) fn files(folder: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                std::fs::read_dir(&path)
                    .expect("a folder")
                    .map(|e| e.expect("an entry").path()),
            );
        } else if path.extension().is_some_and(|e| e == "rs") {
            let name = path
                .strip_prefix(root())
                .expect("inside")
                .display()
                .to_string();
            all.push((name, std::fs::read_to_string(&path).expect("text")));
        }
    }
    all.sort();
    all
}

#[test]
fn imports_go_down_only() {
    let forbidden = [
        (
            "schema/src",
            &["actix", "actors", "regex", "reqwest", "ruma::"][..],
        ),
        ("actors/src", &["actix_web", "diesel", "understudy"][..]),
        ("server/src", &["diesel", "reqwest"][..]),
        (
            "workbench/src",
            &[
                "actix::",
                "actors",
                "diesel",
                "ruma::",
                "schema::",
                "understudy",
            ][..],
        ),
        ("tests/suite", &["diesel"][..]),
    ];
    let mut wrong = Vec::new();
    for (folder, names) in forbidden {
        for (file, text) in files(folder) {
            for (number, line) in text.lines().enumerate() {
                let used = line
                    .trim_start()
                    .strip_prefix("pub ")
                    .unwrap_or(line.trim_start())
                    .strip_prefix("use ");
                for name in names
                    .iter()
                    .filter(|name| used.is_some_and(|used| used.starts_with(**name)))
                {
                    wrong.push(format!("{file}:{}: imports {name}; see ARCHITECTURE.md for what each crate may import", number + 1));
                }
            }
        }
    }
    let reqwest = |file: &str| file.ends_with("actors/src/transport.rs");
    for (file, text) in files("actors/src")
        .into_iter()
        .filter(|(file, _)| !reqwest(file))
    {
        if text.contains("reqwest::") {
            wrong.push(format!(
                "{file}: names the HTTP client; only transport.rs may"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const ACTORS: [&str; 11] = [
    "accounts",
    "rooms",
    "device_lists",
    "key_proxy",
    "key_store",
    "to_device_inbox",
    "appservices",
    "appservice_sender",
    "appservice_queries",
    "sync",
    "proposals",
];

#[test]
fn the_runtime_names_no_actor() {
    let mut wrong = Vec::new();
    for (file, text) in files("actors/src/runtime") {
        for actor in ACTORS {
            if text.contains(&format!("crate::{actor}::")) {
                wrong.push(format!("{file}: names the actor {actor}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn actor_headers_state_what_the_actor_owns_and_promises() {
    let mut wrong = Vec::new();
    for actor in ACTORS {
        let file = format!("actors/src/{actor}/mod.rs");
        let text = std::fs::read_to_string(root().join(&file)).expect("an actor");
        for heading in ["*Owns*", "*Asks*", "*Tells*", "*Promises*", "*Spec*"] {
            if !text.contains(&format!("//! {heading}")) {
                wrong.push(format!("{file}: its header has no {heading}"));
            }
        }
        if !text.contains("self.watchdog.watch(ctx") {
            wrong.push(format!(
                "{file}: it is not supervised; see actors/src/runtime/watchdog.rs"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_folders_of_actors_have_one_layout() {
    let mut wrong = Vec::new();
    for actor in ACTORS {
        let folder = format!("actors/src/{actor}");
        let inside: Vec<_> = files(&folder)
            .into_iter()
            .filter(|(file, _)| !file.contains("tests"))
            .collect();
        let has = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|n| format!("{folder}/{n}")).collect();
            inside.iter().any(|(file, _)| names.contains(file))
        };
        for names in [
            &["mod.rs"][..],
            &["messages.rs"],
            &["rules.rs", "rules/mod.rs"],
        ] {
            if !has(names) {
                wrong.push(format!("{folder}: has no {}", names.join(" or ")));
            }
        }
        let rules = inside
            .iter()
            .filter(|(file, _)| file.starts_with(&format!("{folder}/rules")));
        for (file, text) in rules {
            for name in ["actix", "Clock", "Conn", "Env", "Store", "Tx"] {
                let words = text
                    .lines()
                    .filter(|line| !line.trim_start().starts_with("//"));
                let is_named = |line: &str| {
                    line.split(|c: char| !c.is_alphanumeric() && c != '_')
                        .any(|word| word == name)
                };
                if words.into_iter().any(is_named) {
                    wrong.push(format!("{file}: names {name}; a rule is a pure function"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_section_of_routes_links_the_specification() {
    let mut wrong = Vec::new();
    for (file, text) in files("server/src/routes")
        .into_iter()
        .filter(|(file, _)| !file.ends_with("mod.rs"))
    {
        let registered = text
            .split("fn routes(")
            .nth(1)
            .and_then(|rest| rest.split("\n}").next());
        let registered: Vec<&str> = registered
            .unwrap_or_default()
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .collect();
        let mut doc = String::new();
        for (number, line) in text.lines().enumerate() {
            if line.starts_with("///") {
                doc.push_str(line);
            } else if line.starts_with("async fn") || line.starts_with("pub async fn") {
                let name = line
                    .split("fn ")
                    .nth(1)
                    .and_then(|rest| rest.split(['(', '<']).next())
                    .unwrap_or_default();
                let linked =
                    doc.contains("spec.matrix.org") || doc.contains("matrix-spec-proposals");
                if !linked && registered.contains(&name) {
                    wrong.push(format!(
                        "{file}:{}: {name} does not link the section it implements",
                        number + 1
                    ));
                }
                doc.clear();
            } else if !line.starts_with("//") && !line.starts_with("#[") {
                doc.clear();
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn long_files_are_listed() {
    // A file should have at most about 400 lines. Longer ones are listed, and do not fail the test.
    for folder in ["schema", "actors", "workbench", "server", "tests"] {
        for (file, text) in files(folder)
            .into_iter()
            .filter(|(_, text)| text.lines().count() > 400)
        {
            println!("{file}: {} lines; can it be split?", text.lines().count());
        }
    }
}

/// Diesel prepares an update, an upsert and, on PostgreSQL, an insert anew each time, unless the statement says that its prepared form
/// is kept.
#[test]
fn inserts_and_updates_keep_their_prepared_form() {
    let mut wrong = Vec::new();
    for (file, text) in files("schema/src") {
        for start in ["diesel::update(", " diesel::insert_into(", ".do_update()"] {
            for (at, _) in text.match_indices(start) {
                let rest = &text[at..];
                let ends = [".execute(", ".load(", ".get_result"].map(|end| rest.find(end));
                let statement = ends.into_iter().flatten().min().map(|end| &rest[..end]);
                if statement.is_some_and(|statement| !statement.contains(".kept")) {
                    let line = text[..at].lines().count();
                    wrong.push(format!("{file}:{line}: call `kept` before it is executed"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_proposal_is_named_in_its_folder_and_in_the_list_alone() {
    let is_own = |file: &str, number: u16| {
        let folder = format!("server/src/mscs/msc{number}/");
        file.starts_with(&folder) || file == "server/src/mscs/mod.rs"
    };
    let mut wrong = Vec::new();
    for folder in ["schema/src", "actors/src", "server/src"] {
        for (file, text) in files(folder) {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for msc in understudy::mscs::ALL
                .iter()
                .filter(|m| !is_own(&file, m.number()))
            {
                let module = format!("msc{}::", msc.number());
                let names = msc.names.iter().map(|name| name.unstable);
                let found = names
                    .chain([module.as_str()])
                    .find(|name| code.contains(name));
                if let Some(name) = found {
                    wrong.push(format!("{file} names {name} of MSC{}", msc.number()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
