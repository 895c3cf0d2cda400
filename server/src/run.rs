//! The commands. A failure is one line on standard error and exit code 1; a wrong command line ends with 2; what `conformance` and `compare` find has its own codes.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::compare::compare_servers;
use crate::conformance::conformance;
use crate::control::control;
use crate::develop::run_dev;
use crate::diagnose::diagnose;
use crate::evidence::evidence;
use crate::logs::start_log;
use crate::offline::{add_user, forget_appservice, list_appservices};
use crate::options::{configured, make_database, text};
use crate::propose::{list_mscs, new_msc};
use crate::scenario::scenario;
use crate::serve::{self, Signals};

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
                ExitCode::from(WRONG_USE)
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
        Command::Mscs => {
            list_mscs();
            Ok(())
        }
        Command::NewMsc(options) => new_msc(&options),
        Command::Scenario(command) => in_system(scenario(command)),
        Command::Conformance(options) => return found(in_system(conformance(options))),
        Command::Compare(options) => return found(in_system(compare_servers(options))),
        Command::Evidence(options) => in_system(evidence(options)),
        Command::Control(command) => control(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("understudy: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The exit code of commands that could not do what they are for.
const WRONG_USE: u8 = 2;

/// The exit code of a command that examines something: 0 if all is well, 1 if not, 2 if it could not be examined.
fn found(done: Result<bool, String>) -> ExitCode {
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("understudy: {why}");
            ExitCode::from(WRONG_USE)
        }
    }
}

fn in_system<T, F: Future<Output = Result<T, String>>>(command: F) -> Result<T, String> {
    actix_rt::System::new().block_on(command)
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
