//! The server in this process on which a scenario is played: a new one for each, with counted identifiers and a manual clock.

use std::any::Any;
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actors::appservices::Reload;
use actors::wire::Naming;
use actors::{Clock, Env, Ids, ask};
use serde_json::Value;
use workbench::homeserver::{
    Done, Halt, Homeserver, Homeservers, Later, Passed, Place, Registered, Work,
};

use crate::mscs;
use crate::options::{make_database, options, settings, text, with_proposals};
use crate::serve::{self, Options, Running};
use crate::temporary::TemporaryFolder;

/// The time at which the clock of an embedded server stands: 2025-01-01T00:00:00Z.
const START: i64 = 1_735_689_600_000;

/// How many bytes of messages between actors an embedded server keeps.
const TRACE: usize = 4 << 20;

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
