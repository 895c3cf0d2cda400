//! The command `conformance`: plays the scenarios of application services against a homeserver, and prints a score by clause.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use workbench::clauses::Score;
use workbench::homeserver::Homeservers;
use workbench::{Scenario, run};

use crate::built_in::built_in;
use crate::embedded::Embedded;
use crate::say::{print, say};
use crate::scenario::{OtherServer, files};

/// The form of the score.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table, and what did not pass with the reason
    Text,
    /// One JSON object
    Json,
    /// JUnit XML: a test suite for each clause
    Junit,
    /// Tables in Markdown
    Markdown,
}

/// Options of `conformance`.
#[derive(Debug, Args)]
pub struct ConformanceOptions {
    /// Further scenario files, or folders of them
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Play only the scenarios whose name has this part
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// The homeserver.
    #[command(flatten)]
    pub on: OtherServer,
    /// The form of the score
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Format,
}

/// How a server in this process is called.
pub(crate) const EMBEDDED: &str = concat!("understudy ", env!("CARGO_PKG_VERSION"));

/// Play the scenarios and print the score. Returns whether none failed. It is an error if all were skipped.
pub(crate) async fn conformance(options: ConformanceOptions) -> Result<bool, String> {
    // Without a bridge nearly every scenario would be skipped.
    if options.on.server.is_some() && options.on.registration.is_empty() {
        return Err("--server needs the --registration of a bridge".to_owned());
    }
    let mut scenarios = built_in()?;
    for file in files(&options.files)? {
        scenarios.push(Scenario::read(&file)?);
    }
    if let Some(part) = &options.only {
        scenarios.retain(|scenario| scenario.file.to_string_lossy().contains(part));
        if scenarios.is_empty() {
            return Err(format!("no scenario has {part:?} in its name"));
        }
    }
    let (servers, shown): (Box<dyn Homeservers>, String) = match options.on.find().await? {
        Some(remote) => {
            let shown = remote.shown();
            (Box::new(remote), shown)
        }
        None => (Box::new(Embedded::new(None)), EMBEDDED.to_owned()),
    };
    let mut score = Score::new(&shown);
    for scenario in &scenarios {
        let outcome = run(scenario, servers.as_ref(), &options.on.password).await;
        score.add(scenario, outcome.verdict);
    }
    match options.format {
        Format::Text => print(&score.text()),
        Format::Json => say!("{:#}", score.json()),
        Format::Junit => print(&score.junit()),
        Format::Markdown => print(&score.markdown()),
    }
    let count = score.total();
    if count.passed + count.failed == 0 {
        return Err(format!(
            "nothing was played: all {} scenarios were skipped",
            count.skipped
        ));
    }
    Ok(count.failed == 0)
}
