//! The real binary in a process of its own, which a test can kill.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpSocket;

/// A server in a process of its own.
pub struct Process {
    child: Child,
    /// Kept open, because the server fails if its standard output is closed.
    _stdout: BufReader<ChildStdout>,
    /// The URL at which it listens.
    pub base: String,
    /// The time from the start of the process until it was ready.
    pub ready_after: Duration,
}

/// A port that was free when this was called.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
        .port()
}

/// A port at which nothing listens, for as long as the value lives: no other program that asks for a free port gets it.
pub struct Closed(TcpSocket);

impl Closed {
    /// Takes a free port.
    #[must_use]
    pub fn new() -> Closed {
        Closed::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Takes the port of this address, which whoever listened there has left.
    #[must_use]
    pub fn at(address: SocketAddr) -> Closed {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Connections that were accepted here may still be open.
        socket.set_reuseaddr(true).expect("an option");
        socket.bind(address).expect("a port that is free");
        Closed(socket)
    }

    /// Where a connection is refused.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("an address")
    }
}

impl Default for Closed {
    fn default() -> Closed {
        Closed::new()
    }
}

/// The binary that was built in the same profile as this test.
#[must_use]
pub fn binary() -> PathBuf {
    let me = std::env::current_exe().expect("this program has a path");
    let folder = me.parent().expect("a folder");
    let folder = if folder.ends_with("deps") || folder.ends_with("examples") {
        folder.parent().expect("a folder")
    } else {
        folder
    };
    let binary = folder.join("understudy");
    assert!(
        binary.exists(),
        "{} is missing: build it with `cargo build` (in the same profile)",
        binary.display()
    );
    binary
}

impl Process {
    /// Starts `program` with these arguments, which make it a development server with this folder and port, and waits until it
    /// reports that it is ready.
    #[must_use]
    pub fn start(mut program: Command, data: &Path, port: u16, more: &[&str]) -> Process {
        let begun = Instant::now();
        program
            .arg("--data")
            .arg(data)
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .args(more);
        let mut child = program
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let out = child.stdout.take().expect("its standard output");
        let mut line = String::new();
        let mut stdout = BufReader::new(out);
        stdout.read_line(&mut line).expect("its first line");
        assert!(
            line.contains("is ready at"),
            "the server did not start: {line:?}"
        );
        Process {
            child,
            _stdout: stdout,
            base: format!("http://127.0.0.1:{port}"),
            ready_after: begun.elapsed(),
        }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process with SIGKILL, so that it cannot clean up.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is gone");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The users of a development server, as it stores them in its folder.
#[must_use]
pub fn people(data: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(data.join("people.json")).expect("the people of the server");
    serde_json::from_str(&text).expect("JSON")
}
