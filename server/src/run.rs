//! The commands. A failure is one line on standard error and exit code 1.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use actors::appservices::Problems;
use actors::wire::Naming;
use actors::{Clock, Ids, ask};
use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command, Dev, LogFormat};
use crate::diagnose::diagnose;
use crate::http::limits::CLAIMS;
use crate::mscs;
use crate::offline::{add_user, forget_appservice, list_appservices};
use crate::options::{
    configured, make_database, options, settings, text, with_experiments, with_proposals,
};
use crate::people::{announce, people};
use crate::serve::{self, Signals};

/// How many bytes of messages between actors the trace of a development server keeps.
const TRACE: usize = 4 << 20;

/// The time at which the clock of a seeded server starts, and stands still: 2025-01-01T00:00:00Z.
const SEEDED_TIME: i64 = 1_735_689_600_000;

/// Run the command that the arguments name.
pub fn run(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let start = Instant::now();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` also arrive here, and are no failure.
            let failed = error.use_stderr();
            let _ = error.print();
            return if failed {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    let done = match cli.command.unwrap_or(Command::Dev(cli.dev)) {
        Command::Dev(dev) => in_system(run_dev(dev, start)),
        Command::Serve(serve) => in_system(run_serve(serve.config)),
        Command::AddUser(add) => in_system(add_user(add)),
        Command::Appservices(serve) => in_system(list_appservices(serve.config)),
        Command::ForgetAppservice(forget) => in_system(forget_appservice(forget)),
        Command::Doctor(doctor) => in_system(diagnose(doctor)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("understudy: {why}");
            ExitCode::FAILURE
        }
    }
}

fn in_system<F: Future<Output = Result<(), String>>>(command: F) -> Result<(), String> {
    actix_rt::System::new().block_on(command)
}

fn start_log(filter: &str, json: bool) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| format!("log filter {filter:?}: {e}"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if json {
        log.json().init()
    } else {
        log.with_ansi(std::io::stderr().is_terminal()).init()
    }
    Ok(())
}

/// Start a development server, print how to use it, and run until a signal arrives.
async fn run_dev(dev: Dev, start: Instant) -> Result<(), String> {
    start_log(&dev.log.log, dev.log.log_format == LogFormat::Json)?;
    if !dev.listen.ip().is_loopback() && !dev.allow_remote {
        return Err(format!(
            "{}: a development server listens on loopback only; --allow-remote lifts this",
            dev.listen
        ));
    }
    let listener = serve::bind(dev.listen).map_err(text)?;
    let made = |what: &Path, e: std::io::Error| format!("{}: {e}", what.display());
    std::fs::create_dir_all(&dev.data).map_err(|e| made(&dev.data, e))?;
    let appservices = dev
        .appservices
        .unwrap_or_else(|| dev.data.join("appservices"));
    std::fs::create_dir_all(&appservices).map_err(|e| made(&appservices, e))?;
    let database = dev
        .database
        .unwrap_or_else(|| format!("sqlite:{}", dev.data.join("understudy.db").display()));

    let mut options = options(settings(&dev.server_name, None, "11")?, database);
    options.appservices = Some(appservices.clone());
    options.trace = TRACE;
    options.settings.open_registration = true;
    options.dev = true;
    if let Some(seed) = dev.seed {
        options.ids = Ids::counted(seed);
        options.clock = Clock::manual(SEEDED_TIME);
    }
    let chosen = dev.enable_msc.unwrap_or_else(mscs::by_default);
    with_proposals(&mut options, &chosen, Naming::Unstable)?;
    with_experiments(&mut options, &dev.enable_experiment)?;
    options.settings.proposals.counts_policies = true;
    options.door.claim_limit = dev.claim_limit.then_some(CLAIMS);
    options.door.hosts = dev.allow_host;
    make_database(&options.database)?;
    let running = serve::serve(listener, options).await.map_err(text)?;
    // Before the server is announced: a signal sent from then on must stop it cleanly.
    let signals = Signals::install().map_err(text)?;
    let people = people(&running.app.actors, &dev.data).await?;
    let problems = ask(&running.app.actors.appservices, Problems).await;
    let problems = problems.map_err(text)?;
    announce(&running, &people, &appservices, &problems, start.elapsed());
    running.until_signal(signals).await.map_err(text)
}

async fn run_serve(path: std::path::PathBuf) -> Result<(), String> {
    let (config, options) = configured(&path)?;
    if !matches!(config.log.format.as_str(), "text" | "json") {
        return Err(format!(
            "{}: log.format {:?}: text or json",
            path.display(),
            config.log.format
        ));
    }
    start_log(&config.log.filter, config.log.format == "json")?;
    let listener = serve::bind(config.listen).map_err(text)?;
    make_database(&options.database)?;
    let running = serve::serve(listener, options).await.map_err(text)?;
    // Before the server is announced: a signal sent from then on must stop it cleanly.
    let signals = Signals::install().map_err(text)?;
    tracing::info!(address = %running.addr, server = config.server_name, "ready");
    running.until_signal(signals).await.map_err(text)?;
    tracing::info!("stopped");
    Ok(())
}
