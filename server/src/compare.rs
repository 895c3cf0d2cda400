//! The command `compare`: plays scenarios on two homeservers, and prints where they differ.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use workbench::Scenario;
use workbench::compare::{Side, compare};
use workbench::homeserver::Homeservers;
use workbench::side_by_side::Table;

use crate::built_in::built_in;
use crate::conformance::EMBEDDED;
use crate::embedded::Embedded;
use crate::say::{print, say};
use crate::scenario::{OtherServer, files, find};

/// How the differences are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Columns
    Text,
    /// One JSON object
    Json,
    /// Tables in Markdown
    Markdown,
}

/// Options of `compare`.
#[derive(Debug, Args)]
pub struct CompareOptions {
    /// The scenario files, or folders of them [default: the scenarios of `understudy conformance`]
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The URL of the second homeserver
    #[arg(long, value_name = "URL")]
    pub with: String,
    /// The registration of a bridge on the second homeserver, which the scenarios play, or a folder of them; may be repeated
    #[arg(long, value_name = "FILE")]
    pub with_registration: Vec<PathBuf>,
    /// The name of the second homeserver [default: that of the user of its first registration]
    #[arg(long, value_name = "NAME")]
    pub with_name: Option<String>,
    /// A shell command that restarts the second homeserver; `stop` or `kill` is added to it, for how it must end
    #[arg(long, value_name = "COMMAND")]
    pub with_restart: Option<String>,
    /// The first homeserver.
    #[command(flatten)]
    pub on: OtherServer,
    /// How the differences are shown
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: Form,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

/// Play the scenarios on both homeservers and print the differences. Returns whether there are none. It is an error if nothing could
/// be compared.
pub(crate) async fn compare_servers(options: CompareOptions) -> Result<bool, String> {
    let mut scenarios = Vec::new();
    for file in files(&options.files)? {
        scenarios.push(Scenario::read(&file)?);
    }
    if scenarios.is_empty() {
        scenarios = built_in()?;
    }
    let second = find(
        &options.with,
        &options.with_registration,
        options.with_name.as_deref(),
        "--with-name or --with-registration",
    );
    let second = second.await?.restarted_by(options.with_restart);
    let (first, name): (Box<dyn Homeservers>, String) = match options.on.find().await? {
        Some(remote) => {
            let name = remote.shown();
            (Box::new(remote), name)
        }
        None => (Box::new(Embedded::new(None)), EMBEDDED.to_owned()),
    };
    let names = [name, second.shown()];
    let side = |name: &String, servers| Side {
        name: name.clone(),
        servers,
    };
    let sides = [
        side(&names[0], first.as_ref()),
        side(&names[1], &second as &dyn Homeservers),
    ];
    let mut table = Table {
        names: names.clone(),
        scenarios: Vec::new(),
    };
    for scenario in &scenarios {
        let compared = compare(scenario, &sides, &options.on.password).await;
        table.scenarios.push(compared);
    }
    match options.format {
        Form::Json => say!("{:#}", table.json()),
        _ if options.json => say!("{:#}", table.json()),
        Form::Text => print(&table.text()),
        Form::Markdown => print(&table.markdown()),
    }
    if table.compared() == 0 {
        return Err(format!(
            "nothing was compared: all {} scenarios ended before their first step",
            table.scenarios.len()
        ));
    }
    Ok(table.different() == 0)
}
