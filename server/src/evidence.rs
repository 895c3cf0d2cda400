//! The command `evidence`: plays a scenario against a server in this process, and writes what a reviewer of a proposal needs.

use std::path::{Component, Path, PathBuf};

use clap::Args;
use workbench::evidence::{Evidence, Proposal};
use workbench::{PASSWORD, Scenario, Verdict, run};

use crate::embedded::Embedded;
use crate::mscs;
use crate::options::text;
use crate::say::say;

/// Options of `evidence`.
#[derive(Debug, Args)]
pub struct EvidenceOptions {
    /// The scenario
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The folder to write [default: the file's name without ending, or that of the folder of a scenario.yaml, in the folder
    /// evidence]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The proposals (MSCs) of the server, by number, separated by commas [default: those that are on by default, and those that the
    /// scenario names]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = mscs::number_of)]
    pub mscs: Option<Vec<u16>>,
}

/// Play the scenario and write the folder.
pub(crate) async fn evidence(options: EvidenceOptions) -> Result<(), String> {
    let EvidenceOptions {
        file,
        out,
        mscs: chosen,
    } = options;
    let named = |e: std::io::Error, path: &Path| format!("{}: {e}", path.display());
    let source = std::fs::read_to_string(&file).map_err(|e| named(e, &file))?;
    let scenario = Scenario::parse(&file, &source)?;
    let outcome = run(&scenario, &Embedded::new(chosen.clone()), PASSWORD).await;
    let numbers = chosen.clone().unwrap_or_else(|| {
        let mut numbers = mscs::by_default();
        numbers.extend(&scenario.head.mscs);
        numbers
    });
    let option = chosen.map_or_else(String::new, |chosen| {
        let numbers: Vec<String> = chosen.iter().map(u16::to_string).collect();
        format!(" --mscs {}", numbers.join(","))
    });
    let proposals = mscs::ALL.iter().filter(|m| numbers.contains(&m.number()));
    let proposals = proposals.map(|msc| Proposal {
        number: msc.number(),
        title: msc.title.to_owned(),
        flags: msc.flags.iter().map(ToString::to_string).collect(),
        names: msc
            .names
            .iter()
            .map(|name| (name.unstable.to_owned(), name.stable.to_owned()))
            .collect(),
    });
    let evidence = Evidence {
        scenario: &scenario,
        source: &source,
        outcome: &outcome,
        program: format!("understudy {}", env!("CARGO_PKG_VERSION")),
        repeatable: "identifiers are counted from 1, and the clock begins at 2025-01-01T00:00:00Z"
            .to_owned(),
        proposals: proposals.collect(),
        command: format!("understudy evidence {}{option}", quoted(&file)),
    };
    let out = match out {
        Some(out) => out,
        None => Path::new("evidence").join(folder(&scenario.name())?),
    };
    std::fs::create_dir_all(&out).map_err(|e| named(e, &out))?;
    let json = serde_json::to_string_pretty(&evidence.json()).map_err(text)? + "\n";
    let files = [
        ("index.html", &evidence.html()),
        ("transcript.txt", &outcome.transcript),
        ("evidence.json", &json),
    ];
    for (name, content) in files {
        let path = out.join(name);
        std::fs::write(&path, content).map_err(|e| named(e, &path))?;
    }
    for (name, _) in files {
        say!("{}", out.join(name).display());
    }
    match outcome.verdict {
        Verdict::Passed => Ok(()),
        Verdict::Skipped(why) => Err(format!("the scenario was skipped: {}", why.trim())),
        Verdict::Failed(why) => Err(format!("the scenario failed: {why}")),
    }
}

/// The name of a folder for the evidence of a scenario.
fn folder(name: &str) -> Result<&str, String> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(_)), None) => Ok(name),
        _ => Err(format!("{name:?} cannot name a folder: give --out")),
    }
}

/// A path as an argument for a shell.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    match path.chars().all(is_plain) {
        true => path,
        false => format!("'{}'", path.replace('\'', "'\\''")),
    }
}
