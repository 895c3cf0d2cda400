//! The server of a simulation: started, stopped, killed and started again on the same database, with faults at named points.

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

/// With what a thread of the storage panics, because the simulation says so.
const INJECTED: &str = "a thread of the storage panics, because the simulation says so";

/// Print no panic that was injected: a backtrace takes longer than the rest of a schedule.
pub(crate) fn print_no_injected_panic() {
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

/// A fault that waits for its moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Armed {
    pub(crate) point: Point,
    pub(crate) fault: Fault,
    /// How often the point is passed before it goes wrong.
    pub(crate) after: u32,
    /// Whether the thread that passes it panics.
    pub(crate) panics: bool,
}

/// What went wrong, seen from outside of the server. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Trouble {
    armed: Arc<Mutex<Option<Armed>>>,
    /// A fault of the actors that waits for its moment: where, what, and how often the point is passed before.
    armed_actor: Arc<Mutex<Option<(actor::Point, actor::Fault, u32)>>>,
    /// How many hints were lost.
    lost: Arc<Mutex<u32>>,
    /// The process has ended at a point of an actor: the storage goes no further either.
    ended: Arc<AtomicBool>,
    /// How many faults were injected that may cost a request its answer.
    fired: Arc<Mutex<u32>>,
    last: Arc<Mutex<Option<(Point, Fault)>>>,
    /// The process is dead, or says that it has to die.
    dead: Arc<AtomicBool>,
    died: Arc<Notify>,
    /// A thread of the storage has panicked, as it was told to.
    panicked: Arc<AtomicBool>,
    /// Why the server says that it has to die.
    fatal: Arc<Mutex<Option<String>>>,
    /// Which start of the server is listened to.
    start: Arc<AtomicU32>,
}

impl Trouble {
    pub(crate) fn arm(&self, armed: Option<Armed>) {
        *self.armed.lock().expect("not poisoned") = armed;
        if armed.is_none() {
            self.arm_actor(None);
        }
    }

    pub(crate) fn arm_actor(&self, armed: Option<(actor::Point, actor::Fault, u32)>) {
        *self.armed_actor.lock().expect("not poisoned") = armed;
    }

    fn at_actor(&self, point: actor::Point) -> actor::Fault {
        let mut armed = self.armed_actor.lock().expect("not poisoned");
        match armed.as_mut() {
            Some((at, _, after)) if *at == point && *after > 0 => *after -= 1,
            Some((at, fault, _)) if *at == point => {
                let fault = *fault;
                *armed = None;
                if fault == actor::Fault::Lose {
                    *self.lost.lock().expect("not poisoned") += 1;
                }
                if fault == actor::Fault::End {
                    *self.last.lock().expect("not poisoned") =
                        Some((Point::AfterCommit, Fault::End));
                    self.ended.store(true, Ordering::Release);
                    self.die();
                }
                return fault;
            }
            _ => {}
        }
        actor::Fault::None
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

    /// Whether the last fault was a statement that the database refused: an internal error, for who caused it.
    pub(crate) fn last_refused(&self) -> bool {
        let last = *self.last.lock().expect("not poisoned");
        matches!(last, Some((_, Fault::Refuse))) || matches!(last, Some((Point::ReadBegin, _)))
    }

    /// Whether a thread of the storage has panicked since this was asked last.
    pub(crate) fn take_panicked(&self) -> bool {
        self.panicked.swap(false, Ordering::AcqRel)
    }

    pub(crate) fn has_panicked(&self) -> bool {
        self.panicked.load(Ordering::Acquire)
    }

    /// Whether the last fault was one that a process may end of: PostgreSQL's session of the writer is lost, with its lock.
    pub(crate) fn may_be_fatal(&self) -> bool {
        match *self.last.lock().expect("not poisoned") {
            Some((_, Fault::End)) => true,
            Some((point, Fault::Lost)) => tests::stage::on_postgres() && point != Point::ReadBegin,
            _ => false,
        }
    }

    /// Resolves when the process is dead.
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

    /// Why the server gave up, if it did.
    pub(crate) fn take_fatal(&self) -> Option<String> {
        self.fatal.lock().expect("not poisoned").take()
    }

    /// What the server of this start calls when it has to die. What is left of an earlier one, a request that finds its actors gone,
    /// says nothing about the server that runs now.
    fn heard_from(&self, start: u32) -> Arc<dyn Fn(&str) + Send + Sync> {
        self.start.store(start, Ordering::Release);
        let trouble = self.clone();
        Arc::new(move |why| {
            if trouble.start.load(Ordering::Acquire) == start {
                *trouble.fatal.lock().expect("not poisoned") = Some(why.to_owned());
                trouble.die();
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

/// A server, and everything that it is started with.
pub(crate) struct Server {
    running: Option<Running>,
    tasks: Option<tokio::task::JoinHandle<()>>,
    pub(crate) options: Options,
    pub(crate) trouble: Trouble,
    pub(crate) folder: tempfile::TempDir,
    /// How often it was started.
    pub(crate) starts: u32,
}

/// Where files cost nothing to sync, if there is such a place.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = memory.is_dir().then(|| tempfile::tempdir_in(memory));
    made.and_then(Result::ok)
        .unwrap_or_else(|| tempfile::tempdir().expect("a folder"))
}

impl Server {
    /// A server that is not started yet.
    pub(crate) fn new(observe: &[&str], numbers: &[u16]) -> Server {
        let folder = folder();
        let appservices = folder.path().join("appservices");
        std::fs::create_dir(&appservices).expect("a folder");
        let trouble = Trouble::default();
        let (at, at_actor) = (trouble.clone(), trouble.clone());
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
            hooks: mscs::hooks(&[], Naming::Unstable).0,
            proposals: Vec::new(),
            clock: Clock::manual(START),
            ids: Ids::counted(1),
            trace: 4 << 20,
            door: Door::default(),
            dev: true,
            lock_wait: Duration::from_secs(10),
            faults: Faults::chosen_by(move |point| at.at(point)),
            actor_faults: actor::Faults::chosen_by(move |point| at_actor.at_actor(point)),
            // Each start has one of its own.
            fatal: Arc::new(|_| {}),
        };
        let mut server = Server {
            running: None,
            tasks: None,
            options,
            trouble,
            folder,
            starts: 0,
        };
        server.switch(numbers);
        server
    }

    /// Which proposals are on at the next start.
    pub(crate) fn switch(&mut self, numbers: &[u16]) {
        let enabled = mscs::enabled(numbers).expect("known proposals");
        let (hooks, proposals) = mscs::hooks(&enabled, Naming::Unstable);
        self.options.hooks = hooks;
        self.options.settings.proposals = proposals;
        self.options.proposals = numbers.to_vec();
    }

    /// Start it in a set of tasks of its own, which can be dropped like the memory of a process.
    ///
    /// # Errors
    /// Why it does not start, in its own words.
    pub(crate) async fn start(&mut self) -> Result<(), String> {
        self.trouble.dead.store(false, Ordering::Release);
        self.trouble.ended.store(false, Ordering::Release);
        self.options.fatal = self.trouble.heard_from(self.starts + 1);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let tasks = tokio::task::LocalSet::new();
        let started = {
            let start = tasks.run_until(serve::serve(listener, self.options.clone()));
            tokio::select! {
                started = start => Some(started),
                () = self.trouble.death() => None,
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

    /// Where the registrations stand.
    pub(crate) fn registrations(&self) -> PathBuf {
        self.folder.path().join("appservices")
    }

    /// End it in good order.
    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            let stopped = running.stop();
            tokio::select! {
                () = stopped => {}
                () = self.trouble.death() => {}
            }
        }
        self.drop_tasks().await;
    }

    /// End it like `kill -9`.
    pub(crate) async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill().await;
        }
        self.drop_tasks().await;
    }

    async fn drop_tasks(&mut self) {
        self.trouble.start.store(0, Ordering::Release);
        if let Some(tasks) = self.tasks.take() {
            tasks.abort();
            // That it was aborted is what was wanted.
            let _ = tasks.await;
        }
    }

    /// Wait until nothing is under way; whether it comes to rest.
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
            if self.trouble.is_dead() {
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
