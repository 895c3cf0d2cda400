//! The server in a process of its own, and the ruler that is laid on it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tests::process::free_port;

use crate::http::{Connection, request};

/// Holds the arguments with which this program is a server, one on a line.
const SERVE: &str = "UNDERSTUDY_BENCH_SERVE";

/// Whether this process is to be a server, and with which arguments.
pub(crate) fn to_serve() -> Option<Vec<String>> {
    let arguments = std::env::var(SERVE).ok()?;
    Some(arguments.lines().map(str::to_owned).collect())
}

/// Which of the two servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `understudy serve`
    Serve,
    /// `understudy dev`
    Development,
}

/// Write the configuration of a long-lived server, and say how it is started with it.
fn serve(addr: SocketAddr, folder: &Path, database: &str) -> Vec<String> {
    let config = folder.join("server.toml");
    let text = format!(
        "server_name = \"bench\"\nlisten = \"{addr}\"\ndatabase = \"{database}\"\nappservices = \"{}\"\n\
         rate_limit = false\nclaim_limit = false\n[log]\nfilter = \"warn\"\n",
        folder.join("appservices").display()
    );
    std::fs::write(&config, text).expect("the configuration is written");
    let config = config.display().to_string();
    ["serve", "--config", &config].map(str::to_owned).into()
}

/// How a development server is started.
fn develop(addr: SocketAddr, folder: &Path, database: &str) -> Vec<String> {
    let (addr, data) = (addr.to_string(), folder.display().to_string());
    let listen = ["dev", "--listen", &addr, "--server-name", "bench"];
    let keep = ["--data", &data, "--database", database];
    listen.iter().chain(&keep).map(|&s| s.to_owned()).collect()
}

/// A server that runs.
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// From the start of the process to its first answer.
    pub(crate) ready_after: Duration,
}

impl Server {
    /// Start it on this folder and database.
    pub(crate) async fn start(kind: Kind, folder: &Path, database: &str) -> Server {
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let begun = Instant::now();
        let arguments = match kind {
            Kind::Serve => serve(addr, folder, database),
            Kind::Development => develop(addr, folder, database),
        };
        let child = Command::new(std::env::current_exe().expect("this program has a path"))
            .env(SERVE, arguments.join("\n"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
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

    /// Where it is, as a person's client wants it.
    pub(crate) fn base(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What all its threads have spent so far.
    pub(crate) fn cpu(&self) -> Duration {
        let threads =
            std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let spent = |thread: std::io::Result<std::fs::DirEntry>| -> Option<u64> {
            let text = std::fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok()
        };
        Duration::from_nanos(threads.filter_map(spent).sum())
    }

    /// A line of its `status`, in KiB: `VmRSS` now, `VmHWM` at most so far.
    pub(crate) fn memory(&self, what: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find_map(|l| l.strip_prefix(what));
        let number = line.and_then(|l| l.split_whitespace().nth(1));
        number.and_then(|n| n.parse().ok()).expect("a number")
    }

    /// Stop it cleanly.
    pub(crate) async fn stop(mut self) {
        let id = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &id]).status();
        assert!(told.is_ok_and(|s| s.success()), "it hears signals");
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

/// Let time pass: what is measured is another process.
#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark waits for another process and for the machine's own time"
)]
pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
