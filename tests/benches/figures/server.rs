//! The measured server in a process of its own, with its CPU time and memory.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tests::process::{binary, free_port};

use crate::http::{Connection, request};

/// The variable that selects the yardstick. It holds the arguments, one on each line.
const YARDSTICK: &str = "UNDERSTUDY_BENCH_YARDSTICK";

/// The arguments of the yardstick, if this process is to run it.
pub(crate) fn to_be_the_yardstick() -> Option<Vec<String>> {
    let arguments = std::env::var(YARDSTICK).ok()?;
    Some(arguments.lines().map(str::to_owned).collect())
}

/// A kind of server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `understudy serve`
    Serve,
    /// `understudy dev`
    Development,
    /// The yardstick.
    Yardstick,
}

/// The surroundings of a server: its folder, its database, the URL of its bridge, and the number of users.
pub(crate) struct Scene<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) database: &'a str,
    pub(crate) bridge: &'a str,
    pub(crate) people: usize,
}

/// Builds the release binary from the present sources, because that is what is measured.
pub(crate) fn build() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut build = Command::new(cargo);
    // With these variables, which cargo sets for this program, cargo would build some dependencies again each time.
    let is_set_by_cargo =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars().filter(|(name, _)| is_set_by_cargo(name)) {
        build.env_remove(name);
    }
    let built = build
        // Both packages are named, so that the dependencies they share are built once.
        .args(["build", "--release", "--quiet", "--bin", "understudy"])
        .args(["-p", "understudy", "-p", "understudy-tests"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status();
    assert!(built.is_ok_and(|s| s.success()), "understudy is built");
}

/// Writes the configuration file of a long-lived server. Returns its arguments.
fn serve(addr: SocketAddr, folder: &Path, database: &str) -> Vec<String> {
    let config = folder.join("server.toml");
    let text = format!(
        "server_name = \"bench\"\nlisten = \"{addr}\"\ndatabase = \"{database}\"\nappservices = \"{}\"\n\
         rate_limit = false\nread_limit = false\nclaim_limit = false\n[log]\nfilter = \"warn\"\n",
        folder.join("appservices").display()
    );
    std::fs::write(&config, text).expect("the configuration is written");
    let config = config.display().to_string();
    ["serve", "--config", &config].map(str::to_owned).into()
}

/// The arguments of a development server.
fn develop(addr: SocketAddr, folder: &Path, database: &str) -> Vec<String> {
    let (addr, data) = (addr.to_string(), folder.display().to_string());
    let listen = ["dev", "--listen", &addr, "--server-name", "bench"];
    let keep = ["--data", &data, "--database", database];
    listen.iter().chain(&keep).map(|&s| s.to_owned()).collect()
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    /// The address at which it listens.
    pub(crate) addr: SocketAddr,
    /// The time from the start of the process to its first response.
    pub(crate) ready_after: Duration,
}

impl Server {
    /// Starts a server and waits until it responds.
    pub(crate) async fn start(kind: Kind, scene: Scene<'_>) -> Server {
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (folder, database) = (scene.folder, scene.database);
        let mut program = match kind {
            Kind::Yardstick => {
                let mut me =
                    Command::new(std::env::current_exe().expect("this program has a path"));
                let path = folder.join("yardstick.db").display().to_string();
                let (addr, people) = (addr.to_string(), scene.people.to_string());
                me.env(YARDSTICK, [&addr, &path, scene.bridge, &people].join("\n"));
                me
            }
            Kind::Serve | Kind::Development => Command::new(binary()),
        };
        match kind {
            Kind::Serve => drop(program.args(serve(addr, folder, database))),
            Kind::Development => drop(program.args(develop(addr, folder, database))),
            Kind::Yardstick => {}
        }
        let begun = Instant::now();
        let child = program
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        let mut server = Server {
            child,
            addr,
            ready_after: Duration::ZERO,
        };
        while tokio::net::TcpStream::connect(addr).await.is_err() {
            assert!(
                server.child.try_wait().expect("a process").is_none()
                    && begun.elapsed().as_secs() < 60,
                "the server does not start"
            );
            pause(Duration::from_micros(300)).await;
        }
        let versions = request("GET", "/_matrix/client/versions", "", "");
        Connection::open(addr).await.ask(&versions).await;
        server.ready_after = begun.elapsed();
        server
    }

    /// The base URL of the server.
    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The CPU time of all threads so far.
    pub(crate) fn cpu(&self) -> Duration {
        let threads =
            std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let spent = |thread: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
            let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok()
        };
        Duration::from_nanos(threads.filter_map(spent).sum())
    }

    /// The bytes that were given to `write()` and its like so far.
    pub(crate) fn written(&self) -> u64 {
        let path = format!("/proc/{}/io", self.child.id());
        let counts = std::fs::read_to_string(path).expect("it runs");
        let number = counts.lines().find_map(|l| l.strip_prefix("wchar: "));
        number.and_then(|n| n.parse().ok()).expect("a number")
    }

    /// A value of `/proc/…/status` in KiB: `VmRSS` is the present memory, `VmHWM` the most so far.
    pub(crate) fn memory(&self, what: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|l| l.strip_prefix(what));
        let number = line.and_then(|l| l.split_whitespace().nth(1));
        number.and_then(|n| n.parse().ok()).expect("a number")
    }

    /// Stops the server with SIGTERM.
    pub(crate) async fn stop(mut self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status();
        assert!(sent.is_ok_and(|s| s.success()), "the signal is sent");
        while self.child.try_wait().expect("a process").is_none() {
            pause(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for this time: another process is measured in the meantime.
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark waits for another process and for the machine's own time"
)]
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
