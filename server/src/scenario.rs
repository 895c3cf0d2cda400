//! The command `scenario`: plays scenario files against a server in this process, or against one that runs elsewhere.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::Value;
use workbench::homeserver::Homeservers;
use workbench::registrations::merged;
use workbench::remote::Remote;
use workbench::{Scenario, Verdict};

use crate::built_in::built_in;
use crate::embedded::Embedded;
use crate::mscs;
use crate::options::text;
use crate::private;
use crate::say::say;

/// What to do with scenario files.
#[derive(Debug, Subcommand)]
pub enum ScenarioCommand {
    /// Play scenarios: each against a server of its own in this process, or all against --server
    Run(RunOptions),
    /// Print the registrations of the bridges of scenarios, to install them on another server before a run with --server
    Registrations {
        /// The scenario files, or folders of them [default: the scenarios of `understudy conformance`]
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The address at which the first bridge will listen; each further one takes the next port
        #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9900")]
        listen: std::net::SocketAddr,
        /// Write a file for each bridge into this folder, for its owner alone; one that exists is kept
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Replace files that exist
        #[arg(long, requires = "out")]
        force: bool,
    },
    /// Print the JSON schema of scenario files, for editors
    Schema,
}

/// A homeserver that is running, in place of one in this process.
#[derive(Debug, Args)]
pub struct OtherServer {
    /// The URL of a homeserver that is running
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// The registration of a bridge on that homeserver, which the scenarios play, or a folder of them; may be repeated
    #[arg(long, value_name = "FILE", requires = "server")]
    pub registration: Vec<PathBuf>,
    /// The name of that homeserver [default: that of the user of the first registration]
    #[arg(long, value_name = "NAME", requires = "server")]
    pub server_name: Option<String>,
    /// A shell command that restarts that homeserver; `stop` or `kill` is added to it, for how it must end
    #[arg(long, value_name = "COMMAND", requires = "server")]
    pub restart: Option<String>,
    /// The password of the people on that homeserver
    #[arg(long, value_name = "PASSWORD", default_value = workbench::PASSWORD)]
    pub password: String,
}

impl OtherServer {
    /// The homeserver; `None` for one in this process.
    pub(crate) async fn find(&self) -> Result<Option<Remote>, String> {
        let Some(url) = &self.server else {
            return Ok(None);
        };
        let name = self.server_name.as_deref();
        let options = "--server-name or --registration";
        let remote = find(url, &self.registration, name, options).await?;
        Ok(Some(remote.restarted_by(self.restart.clone())))
    }
}

/// Find a homeserver that is running. `options` are those that can give its name.
pub(crate) async fn find(
    url: &str,
    registrations: &[PathBuf],
    name: Option<&str>,
    options: &str,
) -> Result<Remote, String> {
    let registrations = files(registrations)?;
    if name.is_none() && registrations.is_empty() {
        return Err(format!("the name of the server is needed: give {options}"));
    }
    Remote::find(url, &registrations, name).await
}

/// Options of `scenario run`.
#[derive(Debug, Args)]
pub struct RunOptions {
    /// The scenario files, or folders of them
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The homeserver.
    #[command(flatten)]
    pub on: OtherServer,
    /// The proposals (MSCs) of an embedded server, by number, separated by commas [default: those that are on by default, and
    /// those that the scenario names]
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        value_parser = mscs::number_of,
        conflicts_with = "server"
    )]
    pub mscs: Option<Vec<u16>>,
    /// Print what was sent and received
    #[arg(long)]
    pub transcript: bool,
}

/// Do what the command says.
pub(crate) async fn scenario(command: ScenarioCommand) -> Result<(), String> {
    match command {
        ScenarioCommand::Run(run) => play(run).await,
        ScenarioCommand::Registrations {
            files: named,
            listen,
            out,
            force,
        } => {
            let scenarios: Vec<Scenario> = match named.is_empty() {
                true => built_in()?,
                false => {
                    let read = files(&named)?.into_iter().map(|file| Scenario::read(&file));
                    read.collect::<Result<_, _>>()?
                }
            };
            registrations(merged(&scenarios, listen)?, out.as_deref(), force)
        }
        ScenarioCommand::Schema => {
            say!("{:#}", workbench::schema::schema());
            Ok(())
        }
    }
}

/// Print registrations, or write a file for each into a folder. Each has tokens of its own that cannot be guessed.
fn registrations(
    all: BTreeMap<String, Value>,
    out: Option<&Path>,
    force: bool,
) -> Result<(), String> {
    let mut texts = Vec::new();
    for (id, mut registration) in all {
        for token in ["as_token", "hs_token"] {
            registration[token] = actors::Ids::Random.opaque(token).into();
        }
        texts.push((id, serde_yaml_ng::to_string(&registration).map_err(text)?));
    }
    let Some(folder) = out else {
        for (_, yaml) in texts {
            say!("---\n{yaml}");
        }
        return Ok(());
    };
    let named = |e: std::io::Error, path: &Path| format!("{}: {e}", path.display());
    let texts: Vec<(PathBuf, String)> = texts
        .into_iter()
        .map(|(id, yaml)| (folder.join(format!("{id}.yaml")), yaml))
        .collect();
    let mut files = texts.iter().map(|(file, _)| file);
    if let Some(file) = files.find(|file| !force && file.exists()) {
        let why = "it exists, and a homeserver may know its tokens; --force replaces it";
        return Err(format!("{}: {why}", file.display()));
    }
    std::fs::create_dir_all(folder).map_err(|e| named(e, folder))?;
    for (file, yaml) in &texts {
        private::write(file, yaml).map_err(|e| named(e, file))?;
    }
    for (file, _) in texts {
        say!("{}", file.display());
    }
    Ok(())
}

async fn play(run: RunOptions) -> Result<(), String> {
    let servers: Box<dyn Homeservers> = match run.on.find().await? {
        Some(remote) => Box::new(remote),
        None => Box::new(Embedded::new(run.mscs.clone())),
    };
    let mut count = (0, 0, 0);
    for file in files(&run.files)? {
        let played = workbench::run_file(&file, servers.as_ref(), &run.on.password).await;
        let verdict = match played {
            Ok((scenario, outcome)) => {
                say!("{}", outcome.shown(&scenario));
                if run.transcript {
                    say!("\n{}", outcome.transcript);
                }
                outcome.verdict
            }
            Err(problem) => {
                say!("FAILED   {problem}");
                Verdict::Failed(problem)
            }
        };
        match verdict {
            Verdict::Passed => count.0 += 1,
            Verdict::Skipped(_) => count.1 += 1,
            Verdict::Failed(_) => count.2 += 1,
        }
    }
    let (passed, skipped, failed) = count;
    say!("{passed} passed, {skipped} skipped, {failed} failed");
    match failed {
        0 => Ok(()),
        _ => Err(format!(
            "{failed} of {} scenarios failed",
            passed + skipped + failed
        )),
    }
}

/// The files that are named, and those in the folders that are named.
pub(crate) fn files(named: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut all = Vec::new();
    for path in named {
        if !path.is_dir() {
            all.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let paths = entries.flatten().map(|entry| entry.path());
        let mut inside: Vec<PathBuf> = paths
            .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
            .collect();
        if inside.is_empty() {
            return Err(format!(
                "{}: this folder has no file *.yaml",
                path.display()
            ));
        }
        inside.sort();
        all.extend(inside);
    }
    Ok(all)
}
