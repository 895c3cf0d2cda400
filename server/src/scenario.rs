//! The command `scenario`: plays scenario files against a server in this process, or against one that runs elsewhere.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actors::appservices::Reload;
use actors::wire::Naming;
use actors::{Clock, Env, Ids, ask};
use clap::{Args, Subcommand};
use serde_json::Value;
use workbench::homeserver::{
    Done, Halt, Homeserver, Homeservers, Later, Passed, Place, Registered, Work,
};
use workbench::registrations::merged;
use workbench::remote::Remote;
use workbench::{Scenario, Verdict};

use crate::built_in::built_in;
use crate::mscs;
use crate::options::{make_database, options, settings, text, with_proposals};
use crate::private;
use crate::say::say;
use crate::serve::{self, Options, Running};
use crate::temporary::TemporaryFolder;

/// The time at which the clock of an embedded server stands: 2025-01-01T00:00:00Z.
const START: i64 = 1_735_689_600_000;

/// How many bytes of messages between actors an embedded server keeps.
const TRACE: usize = 4 << 20;

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
            registration[token] = Ids::Random.opaque(token).into();
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

/// Starts a server in this process for each scenario, with counted identifiers and a clock that only the scenario advances.
pub struct Embedded {
    /// The proposals; `None` for those that are on by default and those that the scenario names.
    mscs: Option<Vec<u16>>,
    /// The URL of a new database, given a new folder.
    database: Box<dyn Fn(&Path) -> String>,
}

impl Embedded {
    /// Servers with these proposals, on SQLite.
    #[must_use]
    pub fn new(mscs: Option<Vec<u16>>) -> Embedded {
        Embedded::on(mscs, |folder| {
            format!("sqlite:{}", folder.join("understudy.db").display())
        })
    }

    /// Servers with these proposals, on databases of the caller.
    #[must_use]
    pub fn on(mscs: Option<Vec<u16>>, database: impl Fn(&Path) -> String + 'static) -> Embedded {
        Embedded {
            mscs,
            database: Box::new(database),
        }
    }

    async fn server(&self, needed: &[u16]) -> Result<EmbeddedServer, String> {
        let folder = TemporaryFolder::make().map_err(|e| format!("no temporary folder: {e}"))?;
        let appservices = folder.path().join("appservices");
        std::fs::create_dir_all(&appservices)
            .map_err(|e| format!("{}: {e}", appservices.display()))?;
        let mut options = options(
            settings("test", None, "11")?,
            (self.database)(folder.path()),
        );
        options.appservices = Some(appservices);
        options.trace = TRACE;
        options.dev = true;
        options.clock = Clock::manual(START);
        options.ids = Ids::counted(1);
        options.settings.open_registration = true;
        // With presence, each `/sync` would send something to bridges.
        options.settings.presence = false;
        // The passwords protect nothing.
        options.settings.password_cost = (8, 1);
        let mut chosen = self.mscs.clone().unwrap_or_else(mscs::by_default);
        if self.mscs.is_none() {
            chosen.extend(needed);
        }
        with_proposals(&mut options, &chosen, Naming::Unstable)?;
        options.settings.proposals.counts_policies = true;
        make_database(&options.database)?;
        let mut server = EmbeddedServer {
            running: None,
            tasks: None,
            options,
            work: ServerWork::default(),
            fatal: Arc::default(),
            folder,
        };
        server.start().await?;
        Ok(server)
    }
}

impl Homeservers for Embedded {
    fn start<'a>(&'a self, mscs: &'a [u16]) -> Later<'a, Done<Box<dyn Homeserver>>> {
        Box::pin(async move {
            let server = self.server(mscs).await?;
            Ok(Box::new(server) as Box<dyn Homeserver>)
        })
    }
}

/// Why the server of a start has ended by itself.
type Fatal = Arc<Mutex<Option<String>>>;

/// What the running server does.
#[derive(Clone, Default)]
struct ServerWork {
    /// `None` while the server does not run.
    env: Arc<Mutex<Option<Env>>>,
}

impl ServerWork {
    /// Wait until the server is idle, except for work that waits for the outside.
    async fn rest(&self) -> Result<(), String> {
        let (mut still, mut version) = (0, None);
        for _ in 0..10_000 {
            pause().await;
            let (now, is_idle) = match &*lock(&self.env) {
                Some(env) => (
                    Some(env.trace.version()),
                    env.trace.under_way() <= 0 && env.store.waiting() == 0,
                ),
                None => return Err("the server does not run".to_owned()),
            };
            let is_calm = is_idle && now == version;
            version = now;
            still = if is_calm { still + 1 } else { 0 };
            if still == 3 {
                return Ok(());
            }
        }
        Err("the server does not become idle".to_owned())
    }
}

impl Work for ServerWork {
    fn parked(&self) -> Box<dyn Any + Send> {
        Box::new(lock(&self.env).as_ref().map(|env| env.trace.parked()))
    }

    fn settled(&self) -> Later<'static, ()> {
        let work = self.clone();
        Box::pin(async move {
            // Whether it ever becomes idle is found out by the next step.
            let _ = work.rest().await;
        })
    }
}

/// A server in this process.
struct EmbeddedServer {
    running: Option<Running>,
    /// The server's tasks, which can be dropped as if the process had been killed.
    tasks: Option<tokio::task::JoinHandle<()>>,
    options: Options,
    work: ServerWork,
    fatal: Fatal,
    folder: TemporaryFolder,
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl EmbeddedServer {
    async fn start(&mut self) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(text)?;
        // A task of a killed server may still report that its actors are gone, which concerns no later server.
        let fatal = Fatal::default();
        self.fatal = Arc::clone(&fatal);
        self.options.fatal = Arc::new(move |why| *lock(&fatal) = Some(why.to_owned()));
        let tasks = tokio::task::LocalSet::new();
        let running = tasks
            .run_until(serve::serve(listener, self.options.clone()))
            .await;
        let running = running.map_err(text)?;
        *lock(&self.work.env) = Some(running.app.actors.env.clone());
        self.running = Some(running);
        self.tasks = Some(actix_rt::spawn(tasks));
        self.rest().await
    }

    async fn end(&mut self, kill: bool) {
        *lock(&self.work.env) = None;
        if let Some(running) = self.running.take() {
            match kill {
                true => running.kill().await,
                false => running.stop().await,
            }
        }
        if let Some(tasks) = self.tasks.take() {
            tasks.abort();
            // The error says that the task was aborted, which is intended.
            let _ = tasks.await;
        }
    }

    fn running(&self) -> Result<&Running, String> {
        self.running
            .as_ref()
            .ok_or_else(|| "the server does not run".to_owned())
    }

    /// Wait until the server is idle, except for work that waits for the outside.
    async fn rest(&self) -> Result<(), String> {
        let rest = self.work.rest().await;
        match lock(&self.fatal).clone() {
            Some(why) => Err(format!("the server has ended: {why}")),
            None => rest,
        }
    }

    async fn load(&self, id: &str, registration: &Value) -> Result<Registered, String> {
        let file = self
            .folder
            .path()
            .join("appservices")
            .join(format!("{id}.yaml"));
        // JSON is valid YAML.
        std::fs::write(&file, registration.to_string())
            .map_err(|e| format!("{}: {e}", file.display()))?;
        let loaded = ask(&self.running()?.app.actors.appservices, Reload)
            .await
            .map_err(text)?;
        if let Some(problem) = loaded.problems.first() {
            return Err(format!("the registration of {id}: {problem:?}"));
        }
        self.rest().await?;
        let of = |key: &str| registration[key].as_str().unwrap_or_default().to_owned();
        Ok(Registered {
            as_token: of("as_token"),
            sender: of("sender_localpart"),
        })
    }
}

impl Homeserver for EmbeddedServer {
    fn base(&self) -> String {
        self.running
            .as_ref()
            .map_or_else(String::new, |running| format!("http://{}", running.addr))
    }

    fn name(&self) -> String {
        self.options.settings.server_name.to_string()
    }

    fn is_fresh(&self) -> bool {
        true
    }

    fn place(&self, _: &str) -> Done<Option<Place>> {
        Ok(None)
    }

    fn known(&self) -> Vec<String> {
        Vec::new()
    }

    fn register<'a>(
        &'a mut self,
        id: &'a str,
        registration: &'a Value,
    ) -> Later<'a, Done<Registered>> {
        Box::pin(async move { Ok(self.load(id, registration).await?) })
    }

    fn settle(&self) -> Later<'_, Done<bool>> {
        Box::pin(async {
            self.rest().await?;
            Ok(true)
        })
    }

    fn advance(&self, time: Duration) -> Later<'_, Done<Passed>> {
        Box::pin(async move {
            self.rest().await?;
            self.options.clock.advance(time);
            self.rest().await?;
            Ok(Passed::Advanced)
        })
    }

    fn restart(&mut self, kill: bool) -> Later<'_, Done> {
        Box::pin(async move {
            if !kill {
                self.rest().await?;
            }
            self.end(kill).await;
            self.start().await.map_err(Halt::Failed)
        })
    }

    fn work(&self) -> Option<Arc<dyn Work>> {
        Some(Arc::new(self.work.clone()))
    }

    fn stop(&mut self) -> Later<'_, ()> {
        // Its database goes away, so nothing is lost.
        Box::pin(self.end(true))
    }
}

/// Wait two milliseconds, so that other tasks and threads run.
#[expect(
    clippy::disallowed_methods,
    reason = "a scenario waits for the threads of its server"
)]
async fn pause() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}
