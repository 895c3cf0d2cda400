//! What each command does. Whatever goes wrong is one line on standard error and exit code 1.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use actors::appservices::Problems;
use actors::wire::Naming;
use actors::{Clock, Ids, Settings, ask};
use clap::Parser;
use ruma::OwnedServerName;
use schema::registration::ServiceId;
use tracing_subscriber::EnvFilter;

use crate::app::{self, Door, Options};
use crate::cli::{Cli, Command, Dev, LogFormat};
use crate::config::{Config, PASSWORD_COST};
use crate::limits::{CLAIMS, LOGINS, QUESTIONS, READS, REQUESTS};
use crate::offline::{add_user, forget_appservice, list_appservices};
use crate::people::{announce, people};
use crate::{experiments, mscs, private};

/// How many bytes of messages between actors a development server keeps.
const TRACE: usize = 4 << 20;

/// Where the time of a seeded server stands still at first: 2025-01-01T00:00:00Z.
const SEEDED_TIME: i64 = 1_735_689_600_000;

/// Do what the command line says.
pub fn run(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    let start = Instant::now();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are printed to standard output and are no failure.
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
        Command::Doctor(doctor) => in_system(crate::doctor::run(doctor)),
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

/// An error as the one line that a person is shown.
pub(crate) fn text(error: impl Display) -> String {
    error.to_string().replace('\n', " ")
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

fn settings(
    server_name: &str,
    observe: Option<Vec<String>>,
    room_version: &str,
) -> Result<Settings, String> {
    let server_name = OwnedServerName::try_from(server_name)
        .map_err(|e| format!("server name {server_name:?}: {e}"))?;
    if !matches!(room_version, "11" | "12") {
        return Err(format!(
            "default_room_version {room_version:?}: this server knows 11 and 12"
        ));
    }
    Ok(Settings {
        server_name,
        observe: observe.map(|ids| ids.into_iter().map(ServiceId::from).collect()),
        proposals: schema::interests::Proposals::default(),
        password_cost: PASSWORD_COST,
        default_room_version: room_version.to_owned(),
        open_registration: false,
        presence: true,
    })
}

/// Fill in what the enabled proposals do.
fn with_proposals(options: &mut Options, numbers: &[u16], naming: Naming) -> Result<(), String> {
    let enabled = mscs::enabled(numbers).map_err(|unknown| {
        let known: Vec<String> = mscs::ALL.iter().map(|m| m.number.to_string()).collect();
        format!(
            "proposal {unknown} is not known; known are {}",
            known.join(", ")
        )
    })?;
    let (hooks, proposals) = mscs::hooks(&enabled, naming);
    options.hooks = hooks;
    options.settings.proposals = proposals;
    options.proposals = enabled.iter().map(|m| m.number).collect();
    Ok(())
}

fn with_experiments(options: &mut Options, names: &[String]) -> Result<(), String> {
    let proposals = &mut options.settings.proposals;
    experiments::switch_on(names, &mut options.hooks, proposals)
}

fn options(settings: Settings, database: String) -> Options {
    Options {
        database,
        appservices: None,
        settings,
        hooks: actors::wire::Hooks::default(),
        proposals: Vec::new(),
        clock: Clock::System,
        ids: Ids::Random,
        trace: 0,
        rate_limit: None,
        claim_limit: None,
        door: Door::default(),
        dev: false,
        lock_wait: schema::Options::default().lock_wait,
        faults: schema::faults::Faults::default(),
        actor_faults: actors::faults::Faults::default(),
        fatal: Arc::new(|why| {
            tracing::error!(why, "the process ends; starting again loses nothing");
            eprintln!("understudy: {why}");
            std::process::exit(1);
        }),
    }
}

/// The file of the database, for its owner alone.
pub(crate) fn make_database(url: &str) -> Result<(), String> {
    private::make_database(url).map_err(|e| format!("{url}: {e}"))
}

/// Start, print what a person needs, run until told to end.
async fn run_dev(dev: Dev, start: Instant) -> Result<(), String> {
    start_log(&dev.log.log, dev.log.log_format == LogFormat::Json)?;
    if !dev.listen.ip().is_loopback() && !dev.allow_remote {
        return Err(format!(
            "{}: a development server listens on loopback only; --allow-remote lifts this",
            dev.listen
        ));
    }
    let listener = app::bind(dev.listen).map_err(text)?;
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
    options.claim_limit = dev.claim_limit.then_some(CLAIMS);
    options.door.hosts = dev.allow_host;
    make_database(&options.database)?;
    let running = app::serve(listener, options).await.map_err(text)?;
    let people = people(&running.app.actors, &dev.data).await?;
    let problems = ask(&running.app.actors.appservices, Problems).await;
    let problems = problems.map_err(text)?;
    announce(&running, &people, &appservices, &problems, start.elapsed());
    running.until_signal().await.map_err(text)
}

/// What a configuration file says, as a server is started with.
pub(crate) fn configured(path: &Path) -> Result<(Config, Options), String> {
    let config = Config::read(path)?;
    let settings = settings(
        &config.server_name,
        Some(config.observe.clone()),
        &config.default_room_version,
    )?;
    let mut options = options(settings, config.database.clone());
    options.appservices = Some(config.appservices.clone());
    options.settings.open_registration = config.registration;
    options.settings.presence = config.presence;
    options.rate_limit = config.rate_limit.get(REQUESTS);
    options.claim_limit = config.claim_limit.get(CLAIMS);
    options.door = Door {
        trusted_proxies: config.trusted_proxies.clone(),
        read_limit: config.read_limit.get(READS),
        login_limit: config.login_limit.get(LOGINS),
        question_limit: config.question_limit.get(QUESTIONS),
        anonymous_questions: config.anonymous_questions,
        hosts: Vec::new(),
    };
    with_proposals(&mut options, &config.enabled_mscs, config.msc_names)?;
    with_experiments(&mut options, &config.experiments)?;
    Ok((config, options))
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
    let listener = app::bind(config.listen).map_err(text)?;
    make_database(&options.database)?;
    let running = app::serve(listener, options).await.map_err(text)?;
    tracing::info!(address = %running.addr, server = config.server_name, "ready");
    running.until_signal().await.map_err(text)?;
    tracing::info!("stopped");
    Ok(())
}
