//! The server of a simulation. It is started, stopped, killed and restarted on the same database, with faults at named points.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actors::runtime::faults as actor;
use actors::wire::Naming;
use actors::{Clock, Ids, Settings};
use schema::faults::{Fault, Faults, Point};
use tests::stage::START;
use tokio::sync::Notify;
use understudy::http::door::Door;
use understudy::mscs;
use understudy::serve::{self, Options, Running};
use understudy::state::App;

/// The payload of an injected panic in a thread of the storage.
const INJECTED: &str = "a panic injected by the simulation in a thread of the storage";

/// Suppress the output of injected panics: printing a backtrace takes longer than the rest of a schedule.
pub(crate) fn suppress_injected_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&INJECTED) {
                print(info);
            }
        }));
    });
}

/// A fault that will happen at a point of the storage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Armed {
    pub(crate) point: Point,
    pub(crate) fault: Fault,
    /// How often the point is passed before the fault happens.
    pub(crate) after: u32,
    /// Whether the thread panics when it passes the point.
    pub(crate) panics: bool,
}

/// The faults that are going to happen, and the faults that have happened to the server so far. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct InjectedFaults {
    armed: Arc<Mutex<Option<Armed>>>,
    /// A fault that will happen in the actors: the point, the fault, and how often the point is passed before.
    armed_actor: Arc<Mutex<Option<(actor::DeliveryPoint, actor::DeliveryFault, u32)>>>,
    /// How many hints were lost.
    lost: Arc<Mutex<u32>>,
    /// The process has ended at a point of an actor, so the storage must stop as well.
    ended: Arc<AtomicBool>,
    /// How many faults were injected that may cost a request its answer.
    fired: Arc<Mutex<u32>>,
    last: Arc<Mutex<Option<(Point, Fault)>>>,
    /// The process has ended, or the server has reported a fatal error.
    dead: Arc<AtomicBool>,
    died: Arc<Notify>,
    /// A thread of the storage has panicked, because of an injected panic.
    panicked: Arc<AtomicBool>,
    /// The fatal error that the server has reported.
    fatal: Arc<Mutex<Option<String>>>,
    /// The number of the server's current start. Fatal errors from earlier starts are ignored.
    start: Arc<AtomicU32>,
}

impl InjectedFaults {
    pub(crate) fn arm(&self, armed: Option<Armed>) {
        *self.armed.lock().expect("not poisoned") = armed;
        if armed.is_none() {
            self.arm_actor(None);
        }
    }

    pub(crate) fn arm_actor(
        &self,
        armed: Option<(actor::DeliveryPoint, actor::DeliveryFault, u32)>,
    ) {
        *self.armed_actor.lock().expect("not poisoned") = armed;
    }

    fn at_actor(&self, point: actor::DeliveryPoint) -> actor::DeliveryFault {
        let mut armed = self.armed_actor.lock().expect("not poisoned");
        match armed.as_mut() {
            Some((at, _, after)) if *at == point && *after > 0 => *after -= 1,
            Some((at, fault, _)) if *at == point => {
                let fault = *fault;
                *armed = None;
                if fault == actor::DeliveryFault::Lose {
                    *self.lost.lock().expect("not poisoned") += 1;
                }
                if fault == actor::DeliveryFault::End {
                    *self.last.lock().expect("not poisoned") =
                        Some((Point::AfterCommit, Fault::End));
                    self.ended.store(true, Ordering::Release);
                    self.die();
                }
                return fault;
            }
            _ => {}
        }
        actor::DeliveryFault::None
    }

    pub(crate) fn fired(&self) -> u32 {
        *self.fired.lock().expect("not poisoned")
    }

    pub(crate) fn hints_lost(&self) -> u32 {
        *self.lost.lock().expect("not poisoned")
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Whether the last fault was a statement that the database refused. The request that caused it gets an internal error.
    pub(crate) fn last_refused(&self) -> bool {
        let last = *self.last.lock().expect("not poisoned");
        matches!(last, Some((_, Fault::Refuse))) || matches!(last, Some((Point::ReadBegin, _)))
    }

    /// Whether a thread of the storage has panicked since the last call.
    pub(crate) fn take_panicked(&self) -> bool {
        self.panicked.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Acquire)
    }

    /// Whether the last fault is one after which the process may end. On PostgreSQL that includes a lost session of the writer,
    /// because its lock is lost with it.
    pub(crate) fn may_be_fatal(&self) -> bool {
        match *self.last.lock().expect("not poisoned") {
            Some((_, Fault::End)) => true,
            Some((point, Fault::Lost)) => tests::stage::on_postgres() && point != Point::ReadBegin,
            _ => false,
        }
    }

    /// Resolves when the process has ended.
    pub(crate) async fn death(&self) {
        loop {
            let died = self.died.notified();
            tokio::pin!(died);
            died.as_mut().enable();
            if self.is_dead() {
                return;
            }
            died.await;
        }
    }

    /// Take the fatal error that the server has reported, if any.
    pub(crate) fn take_fatal(&self) -> Option<String> {
        self.fatal.lock().expect("not poisoned").take()
    }

    /// The callback by which the server of this start reports a fatal error. Reports from tasks of earlier starts are ignored: a
    /// request that finds the actors of a killed server gone does not concern the running one.
    fn on_fatal(&self, start: u32) -> Arc<dyn Fn(&str) + Send + Sync> {
        self.start.store(start, Ordering::Release);
        let faults = self.clone();
        Arc::new(move |why| {
            if faults.start.load(Ordering::Acquire) == start {
                *faults.fatal.lock().expect("not poisoned") = Some(why.to_owned());
                faults.die();
            }
        })
    }

    fn die(&self) {
        self.dead.store(true, Ordering::Release);
        self.died.notify_waiters();
    }

    fn at(&self, point: Point) -> Fault {
        if self.ended.load(Ordering::Acquire) {
            return Fault::End;
        }
        let mut armed = self.armed.lock().expect("not poisoned");
        match armed.as_mut() {
            Some(waits) if waits.point == point && waits.after > 0 => {
                waits.after -= 1;
                Fault::None
            }
            Some(waits) if waits.point == point => {
                let (fault, panics) = (waits.fault, waits.panics);
                *armed = None;
                drop(armed);
                if panics {
                    self.panicked.store(true, Ordering::Release);
                    std::panic::panic_any(INJECTED);
                }
                *self.fired.lock().expect("not poisoned") += 1;
                *self.last.lock().expect("not poisoned") = Some((point, fault));
                if fault == Fault::End {
                    self.die();
                }
                fault
            }
            _ => Fault::None,
        }
    }
}

/// A server, and the options with which it is started.
pub(crate) struct Server {
    running: Option<Running>,
    tasks: Option<tokio::task::JoinHandle<()>>,
    pub(crate) options: Options,
    pub(crate) faults: InjectedFaults,
    pub(crate) folder: tempfile::TempDir,
    /// How often the server was started.
    pub(crate) starts: u32,
}

/// A temporary folder, in memory if possible, where syncing files is fast.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = memory.is_dir().then(|| tempfile::tempdir_in(memory));
    made.and_then(Result::ok)
        .unwrap_or_else(|| tempfile::tempdir().expect("a folder"))
}

impl Server {
    /// A server that has not been started yet.
    pub(crate) fn new(observe: &[&str], numbers: &[u16]) -> Server {
        let folder = folder();
        let appservices = folder.path().join("appservices");
        std::fs::create_dir(&appservices).expect("a folder");
        let faults = InjectedFaults::default();
        let (at, at_actor) = (faults.clone(), faults.clone());
        let settings = Settings {
            server_name: "test".try_into().expect("a server name"),
            observe: Some(observe.iter().map(|id| (*id).into()).collect()),
            proposals: actors::services::Proposals::default(),
            password_cost: (8, 1),
            default_room_version: "11".to_owned(),
            open_registration: true,
            presence: false,
        };
        let options = Options {
            database: tests::stage::new_database(folder.path()),
            appservices: Some(appservices),
            settings,
            hooks: mscs::hooks(&[], &Naming::Unstable.into()).0,
            proposals: Vec::new(),
            clock: Clock::manual(START),
            ids: Ids::counted(1),
            trace: 4 << 20,
            door: Door::default(),
            figures: understudy::figures::Figures::default(),
            metrics: None,
            dev: true,
            lock_wait: Duration::from_secs(10),
            faults: Faults::chosen_by(move |point| at.at(point)),
            actor_faults: actor::DeliveryFaults::chosen_by(move |point| at_actor.at_actor(point)),
            // Replaced at each start.
            fatal: Arc::new(|_| {}),
        };
        let mut server = Server {
            running: None,
            tasks: None,
            options,
            faults,
            folder,
            starts: 0,
        };
        server.switch(numbers);
        server
    }

    /// Choose the proposals that are enabled from the next start on.
    pub(crate) fn switch(&mut self, numbers: &[u16]) {
        let enabled = mscs::enabled(&mscs::with_specified(numbers)).expect("known proposals");
        self.options.enable(enabled, Naming::Unstable);
    }

    /// Start the server in its own set of tasks, which can be dropped as if the process had been killed.
    ///
    /// # Errors
    /// The server's message, if it does not start.
    pub(crate) async fn start(&mut self) -> Result<(), String> {
        self.faults.dead.store(false, Ordering::Release);
        self.faults.ended.store(false, Ordering::Release);
        self.options.fatal = self.faults.on_fatal(self.starts + 1);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let tasks = tokio::task::LocalSet::new();
        let started = {
            let start = tasks.run_until(serve::serve(listener, self.options.clone()));
            tokio::select! {
                started = start => Some(started),
                () = self.faults.death() => None,
            }
        };
        self.starts += 1;
        match started {
            Some(Ok(running)) => {
                self.running = Some(running);
                self.tasks = Some(actix_rt::spawn(tasks));
                Ok(())
            }
            Some(Err(error)) => Err(error.to_string()),
            None => {
                drop(tasks);
                Err("killed at its start".to_owned())
            }
        }
    }

    pub(crate) fn app(&self) -> &App {
        &self.running.as_ref().expect("the server runs").app
    }

    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn base(&self) -> String {
        let running = self.running.as_ref();
        running.map_or_else(String::new, |r| format!("http://{}", r.addr))
    }

    /// The folder of the registration files.
    pub(crate) fn registrations(&self) -> PathBuf {
        self.folder.path().join("appservices")
    }

    /// Stop the server gracefully.
    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            let stopped = running.stop();
            tokio::select! {
                () = stopped => {}
                () = self.faults.death() => {}
            }
        }
        self.drop_tasks().await;
    }

    /// Stop the server as `kill -9` does.
    pub(crate) async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill().await;
        }
        self.drop_tasks().await;
    }

    async fn drop_tasks(&mut self) {
        self.faults.start.store(0, Ordering::Release);
        if let Some(tasks) = self.tasks.take() {
            tasks.abort();
            // The error says that the task was aborted, which is intended.
            let _ = tasks.await;
        }
    }

    /// Wait until the server is idle. Returns whether it becomes idle.
    pub(crate) async fn rests(&self) -> bool {
        let Some(running) = &self.running else {
            return true;
        };
        let env = &running.app.actors.env;
        let (mut still, mut version) = (0, env.trace.version());
        for _ in 0..300 {
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
            pause().await;
            if self.faults.is_dead() {
                return true;
            }
            let now = env.trace.version();
            let calm = env.trace.under_way() <= 0 && env.store.waiting() == 0 && now == version;
            version = now;
            still = if calm { still + 1 } else { 0 };
            if still == 2 {
                return true;
            }
        }
        false
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the simulation waits for threads of the server, not for time"
)]
async fn pause() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
