//! The commands for authors of proposals: `mscs` lists the proposals, `new-msc` begins one.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use clap::{Args, ValueEnum};

use crate::experiments;
use crate::mscs::{self, Msc};
use crate::say::{print, say};

/// The template of a proposal, which compiles as a module of the tests (`mscs/template`).
const CODE: &str = include_str!("mscs/template/mod.rs");
const SCENARIO: &str = include_str!("mscs/template/scenario.yaml");

/// The folder of the proposals in the source code.
const FOLDER: &str = "server/src/mscs";

/// Options of `new-msc`.
#[derive(Debug, Args)]
pub struct NewMsc {
    /// The number of the proposal
    #[arg(value_parser = mscs::number_of)]
    pub number: u16,
    /// Its title
    pub title: String,
    /// What the proposal adds, separated by commas; a timer and a transaction bring the endpoint that begins them
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "endpoint"
    )]
    pub adds: Vec<Addition>,
}

/// What a proposal adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Addition {
    /// An endpoint that stores and reads a value
    Endpoint,
    /// Code around an existing endpoint
    Around,
    /// A section of transactions, delivered until it is acknowledged
    Transaction,
    /// A section of /sync
    Sync,
    /// Part of the writes that change memberships, devices, keys, account data, profiles and messages
    Change,
    /// A check of events before they are accepted
    Event,
    /// A timer
    Timer,
}

/// List the proposals and the experiments of this server.
pub(crate) fn list_mscs() {
    for msc in mscs::ALL {
        print(&described(msc));
    }
    for experiment in experiments::ALL {
        say!(
            "experiment {}, off by default: {}",
            experiment.name,
            experiment.title
        );
        say!("  registration: {}", experiment.registration.join(", "));
        say!("  names: {}", experiment.names.join(", "));
    }
}

fn described(msc: &Msc) -> String {
    let state = match (msc.specified, msc.by_default) {
        (Some(version), _) => format!("in the specification since {version}"),
        (None, true) => "on by default".to_owned(),
        (None, false) => "off by default".to_owned(),
    };
    let mut text = format!("MSC{}, {state}: {}\n", msc.number(), msc.title);
    let mut line = |what: &str, all: Vec<String>| {
        if !all.is_empty() {
            text.push_str(&format!("  {what}: {}\n", all.join(", ")));
        }
    };
    let texts = |all: &[&str]| all.iter().map(ToString::to_string).collect();
    line("registration", texts(msc.registration));
    line("versions", texts(msc.flags));
    let names = msc.names.iter();
    let names = names.map(|name| format!("{} (later {})", name.unstable, name.stable));
    line("names", names.collect());
    text
}

/// Begin a proposal in the source code in the present folder.
pub(crate) fn new_msc(options: &NewMsc) -> Result<(), String> {
    let root = Path::new(".");
    let folder = root.join(FOLDER).join(format!("msc{}", options.number));
    let list = root.join(FOLDER).join("mod.rs");
    let text = std::fs::read_to_string(&list).map_err(|e| {
        format!(
            "{}: {e}; run this in the folder of understudy's source code",
            list.display()
        )
    })?;
    if folder.exists() {
        return Err(format!("{} exists already", folder.display()));
    }
    let title = options.title.trim();
    if title.is_empty() || title.contains(|c: char| c.is_control() || matches!(c, '"' | '\\')) {
        return Err("a title is one line, without quotation marks and backslashes".to_owned());
    }
    let listed = with_entry(&text, options.number)?;
    let fill = |template| filled(template, &options.adds, options.number, title);
    let write = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
    };
    std::fs::create_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    write(&folder.join("mod.rs"), fill(CODE))?;
    write(&folder.join("scenario.yaml"), fill(SCENARIO))?;
    write(&list, listed)?;
    let number = options.number;
    // The code is only formatted less well if the formatter is missing.
    let mut format = Command::new("rustfmt");
    let _ = format
        .arg("--edition=2024")
        .arg(folder.join("mod.rs"))
        .status();
    say!("{FOLDER}/msc{number}/mod.rs         the data sheet and the hooks");
    say!("{FOLDER}/msc{number}/scenario.yaml  what it promises; it fails until you fill it in");
    say!("try: cargo run -- scenario run {FOLDER}/msc{number}/scenario.yaml");
    Ok(())
}

/// The list of proposals with one more.
fn with_entry(list: &str, number: u16) -> Result<String, String> {
    let changed = format!("{FOLDER}/mod.rs is not the list of proposals that this program knows");
    let (before, after) = list.split_once("mod part;\n").ok_or(&changed)?;
    let list = format!("{before}pub mod msc{number};\nmod part;\n{after}");
    let start = list.find("pub static ALL").ok_or(&changed)?;
    let end = start + list[start..].find("\n];").ok_or(&changed)?;
    Ok(format!(
        "{}\n    msc{number}::MSC,{}",
        &list[..end],
        &list[end..]
    ))
}

/// The template with these additions. A line that ends with `adds: NAME` belongs to an addition, and so do the lines from
/// `adds: NAME {` to `}`.
fn filled(template: &str, adds: &[Addition], number: u16, title: &str) -> String {
    let adds: BTreeSet<String> = adds
        .iter()
        .flat_map(|add| match add {
            Addition::Timer | Addition::Transaction => vec![*add, Addition::Endpoint],
            _ => vec![*add],
        })
        .filter_map(|add| Some(add.to_possible_value()?.get_name().to_owned()))
        .collect();
    let (mut text, mut regions) = (String::new(), Vec::new());
    for line in template.lines() {
        let bare = line.trim_start().trim_start_matches(['/', '#', ' ']);
        let is_comment = line.trim_start().starts_with(['/', '#']);
        let chosen = |names: &str| names.split(", ").any(|name| adds.contains(name));
        if let Some(names) = bare
            .strip_prefix("adds: ")
            .and_then(|n| n.strip_suffix(" {"))
        {
            regions.push(chosen(names));
            continue;
        }
        if is_comment && bare == "}" {
            regions.pop();
            continue;
        }
        let (line, wanted) = match line.split_once("adds: ") {
            Some((line, names)) => {
                let line = line.trim_end_matches(['/', '#', ' ', '(']);
                (line, chosen(names.trim_end_matches(')')))
            }
            None => (line, true),
        };
        if wanted && regions.iter().all(|wanted| *wanted) {
            text.push_str(line);
            text.push('\n');
        }
    }
    let text = text.replace("9999", &number.to_string());
    let mut text = text.replace("TITLE", title).trim_end().to_owned();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_selection_imports_what_it_uses_and_nothing_else() {
        let all = Addition::value_variants();
        let mut selections: Vec<Vec<Addition>> = all.iter().map(|add| vec![*add]).collect();
        selections.push(all.to_vec());
        selections.push(vec![
            Addition::Endpoint,
            Addition::Transaction,
            Addition::Sync,
        ]);
        for adds in selections {
            let text = filled(CODE, &adds, 9998, "A title");
            assert!(!text.contains("adds:") && !text.contains("9999"), "{text}");
            let is_code = |l: &&str| !(l.starts_with("use ") || l.trim_start().starts_with("//"));
            let body = text.lines().filter(is_code);
            let body = body.collect::<Vec<_>>().join("\n");
            for line in text.lines().filter(|line| line.starts_with("use ")) {
                let names = line.trim_end_matches([';', '}']);
                let names = names.rsplit(['{', ':']).next().unwrap_or_default();
                for name in names.split(", ") {
                    assert!(body.contains(name), "{adds:?}: {name} is imported\n{text}");
                }
            }
            for name in [
                "Value", "json!", "Part<", "Stored", "SyncPart", "Caller", "part::",
            ] {
                let name = name.trim_end_matches(['!', '<', ':']);
                let used = body
                    .lines()
                    .any(|line| !line.starts_with("//") && line.contains(name));
                let is_imported = text
                    .lines()
                    .any(|l| l.starts_with("use ") && l.contains(name));
                assert!(
                    !used || is_imported || name == "part",
                    "{adds:?}: {name}\n{text}"
                );
            }
            let scenario = filled(SCENARIO, &adds, 9998, "A title");
            assert!(
                !scenario.contains("adds:") && !scenario.contains("9999"),
                "{scenario}"
            );
        }
    }

    #[test]
    fn a_new_proposal_is_added_to_the_list() {
        let list = with_entry(include_str!("mscs/mod.rs"), 9998).expect("the list");
        assert!(list.contains("pub mod msc9998;\n") && list.contains("    msc9998::MSC,\n];"));
        assert!(with_entry("fn main() {}", 1).is_err());
    }

    #[test]
    fn every_proposal_is_described() {
        let text = described(&mscs::msc4203::MSC);
        assert!(
            text.contains("de.sorunome.msc2409.to_device (later to_device)"),
            "{text}"
        );
        assert!(text.starts_with("MSC4203, on by default"), "{text}");
    }
}
