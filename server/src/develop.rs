//! The command `dev`: starts a development server, announces it, and runs it until it is stopped.

use std::path::{Path, PathBuf};
use std::time::Instant;

use actors::appservices::Problems;
use actors::wire::Naming;
use actors::{Clock, Ids, ask};

use crate::announce::{Announcement, announce};
use crate::cli::{Dev, LogFormat};
use crate::http::limits::CLAIMS;
use crate::logs::start_log;
use crate::mscs;
use crate::options::{make_database, options, settings, text, with_experiments, with_proposals};
use crate::people::people;
use crate::serve::{self, Signals};
use crate::start::{IN_MEMORY, Options};
use crate::temporary::TemporaryFolder;

/// How many bytes of messages between actors the trace of a development server keeps.
const TRACE: usize = 4 << 20;

/// The time at which the clock of a seeded server starts, and stands still: 2025-01-01T00:00:00Z.
const SEEDED_TIME: i64 = 1_735_689_600_000;

/// The lowest cost of a password that argon2 allows. The passwords of a database in memory protect nothing, and a server that is
/// started for each test should be ready in milliseconds.
const NO_COST: (u32, u32) = (8, 1);

/// The folders of a development server.
struct Folders {
    /// The folder of the database and the users; `None` for a database in memory.
    data: Option<PathBuf>,
    appservices: PathBuf,
    /// Removed when this is dropped.
    _temporary: Option<TemporaryFolder>,
}

impl Folders {
    /// Make the folders that the options name, or those that are used without them.
    fn make(dev: &Dev) -> Result<Folders, String> {
        let made = |what: &Path, e: std::io::Error| format!("{}: {e}", what.display());
        let mut temporary = None;
        let data = if dev.database.as_deref() != Some(IN_MEMORY) {
            dev.data.clone().or(Some("understudy-data".into()))
        } else if dev.data.is_none() && dev.appservices.is_none() {
            let folder = TemporaryFolder::make().map_err(|e| made(&std::env::temp_dir(), e))?;
            temporary.insert(folder).path().to_owned().into()
        } else {
            dev.data.clone()
        };
        let below = || {
            data.as_deref()
                .unwrap_or(Path::new("."))
                .join("appservices")
        };
        let appservices = dev.appservices.clone().unwrap_or_else(below);
        for folder in data.iter().chain([&appservices]) {
            std::fs::create_dir_all(folder).map_err(|e| made(folder, e))?;
        }
        Ok(Folders {
            data: data.filter(|_| dev.database.as_deref() != Some(IN_MEMORY)),
            appservices,
            _temporary: temporary,
        })
    }

    /// The URL of the database.
    fn database(&self, dev: &Dev) -> String {
        let in_folder = |data: &PathBuf| format!("sqlite:{}", data.join("understudy.db").display());
        let chosen = dev.database.clone();
        chosen
            .or_else(|| self.data.as_ref().map(in_folder))
            .unwrap_or_else(|| IN_MEMORY.to_owned())
    }
}

/// Start a development server, print how to use it, and run until a signal arrives.
pub(crate) async fn run_dev(dev: Dev, start: Instant) -> Result<(), String> {
    start_log(&dev.log.log, dev.log.log_format == LogFormat::Json)?;
    let listen = dev.address();
    if !listen.ip().is_loopback() && !dev.allow_remote {
        return Err(format!(
            "{listen}: a development server listens on loopback only; --allow-remote lifts this"
        ));
    }
    let listener = serve::bind(listen).map_err(text)?;
    let folders = Folders::make(&dev)?;
    let options = options_of(&dev, &folders)?;
    make_database(&options.database)?;
    let database = options.database.clone();
    let running = serve::serve(listener, options).await.map_err(text)?;
    // Before the server is announced: a signal sent from then on must stop it cleanly.
    let mut signals = Signals::install().map_err(text)?;
    if dev.exit_with_parent {
        signals = signals.and_end_of_input().map_err(text)?;
    }
    let people = people(&running.app.actors, folders.data.as_deref()).await?;
    running.keep_for_reset().await.map_err(text)?;
    let problems = ask(&running.app.actors.appservices, Problems).await;
    let announcement = Announcement {
        address: running.addr,
        server_name: dev.server_name,
        users: people,
        appservices: std::path::absolute(&folders.appservices).unwrap_or_default(),
        database,
        problems: problems.map_err(text)?,
        took: start.elapsed(),
    };
    announce(&announcement, dev.print_json);
    running.until_signal(signals).await.map_err(text)
}

fn options_of(dev: &Dev, folders: &Folders) -> Result<Options, String> {
    let settings = settings(&dev.server_name, None, "11")?;
    let mut options = options(settings, folders.database(dev));
    options.appservices = Some(folders.appservices.clone());
    options.trace = TRACE;
    options.settings.open_registration = true;
    if options.database == IN_MEMORY {
        options.settings.password_cost = NO_COST;
    }
    options.dev = true;
    options.clock = Clock::adjustable();
    if let Some(seed) = dev.seed {
        options.ids = Ids::counted(seed);
        options.clock = Clock::manual(SEEDED_TIME);
    }
    let chosen = mscs::chosen(dev.enable_msc.as_deref())?;
    with_proposals(&mut options, &chosen, Naming::Unstable)?;
    with_experiments(&mut options, &dev.enable_experiment)?;
    options.settings.proposals.counts_policies = true;
    options.door.claim_limit = dev.claim_limit.then_some(CLAIMS);
    options.door.hosts.clone_from(&dev.allow_host);
    Ok(options)
}
