//! A temporary PostgreSQL server, started from the installed binaries. All test processes of a run share it, and it stops when
//! the last of them has ended. `UNDERSTUDY_TEST_POSTGRES=postgres://…` names a server to use instead.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The URL of the server, and the lock that keeps it running as long as this process runs.
static SERVER: OnceLock<(String, Option<File>)> = OnceLock::new();
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Creates an empty database. Returns its URL.
#[must_use]
pub fn new_database() -> String {
    let (server, _) = SERVER.get_or_init(server);
    let stamp = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_micros());
    let name = format!(
        "understudy_{}_{}_{stamp}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let sql = format!("CREATE DATABASE {name}");
    let psql = binary("psql");
    let made = Command::new(&psql)
        .args([&format!("{server}/postgres"), "-q", "-c", &sql])
        .output()
        .expect("psql runs");
    assert!(
        made.status.success(),
        "{}: {}",
        psql.display(),
        String::from_utf8_lossy(&made.stderr)
    );
    format!("{server}/{name}")
}

/// Executes a statement as the superuser.
///
/// # Panics
/// If the statement fails.
pub fn query(url: &str, sql: &str) {
    let done = Command::new(binary("psql"))
        .args([url, "-q", "-c", sql])
        .output()
        .expect("psql runs");
    assert!(
        done.status.success(),
        "{sql}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// The newest installed binary of this name.
fn binary(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin").join(name)))
        .filter(|path| path.exists())
        .collect();
    versions.sort();
    versions.pop().unwrap_or_else(|| {
        panic!("PostgreSQL is not installed ({name} is missing): apt-get install postgresql")
    })
}

fn server() -> (String, Option<File>) {
    if let Ok(url) = std::env::var("UNDERSTUDY_TEST_POSTGRES") {
        return (url.trim_end_matches('/').to_owned(), None);
    }
    let home = std::env::temp_dir().join("understudy-test-postgres");
    std::fs::create_dir_all(&home).expect("a folder");
    // A process that holds the lock `use` keeps the server running; one that holds `start` may look for a server and start one.
    let lock = |name: &str| {
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(home.join(name))
            .expect("a lock file")
    };
    let (used, starting) = (lock("use"), lock("start"));
    used.lock_shared().expect("a lock");
    starting.lock().expect("a lock");
    let port = running_port(&home).unwrap_or_else(|| start(&home));
    (format!("postgres://postgres@127.0.0.1:{port}"), Some(used))
}

fn running_port(home: &Path) -> Option<u16> {
    let port = std::fs::read_to_string(home.join("port"))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    TcpStream::connect(("127.0.0.1", port)).ok().map(|_| port)
}

/// Creates a cluster and starts the server, under a shell that stops it when no process holds the lock `use`.
fn start(home: &Path) -> u16 {
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|l| l.local_addr())
        .expect("a free port")
        .port();
    let data = home.join(format!("data-{port}"));
    let (initdb, postgres) = (binary("initdb"), binary("postgres"));
    // PostgreSQL refuses to run as root.
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|id| id.stdout.starts_with(b"0"));
    let run_as = if root { "runuser -u postgres --" } else { "" };
    let own = if root {
        format!("chown postgres {}", data.display())
    } else {
        "true".to_owned()
    };
    let script = format!(
        "set -e; mkdir -p {data}; {own}; \
         {run_as} {initdb} -D {data} -U postgres -A trust -E UTF8 --locale=C --no-sync >/dev/null; \
         {run_as} {postgres} -D {data} -p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off \
           -c max_connections=400 -c logging_collector=off -c log_min_messages=fatal & \
         sleep 15; \
         until flock -n -x {home}/use sh -c \
           'pid=$(head -n 1 {data}/postmaster.pid); kill -INT $pid; while kill -0 $pid 2>/dev/null; do sleep 0.2; done; rm -rf {data} {home}/port'; \
         do sleep 2; done",
        data = data.display(),
        initdb = initdb.display(),
        postgres = postgres.display(),
        home = home.display(),
    );
    let mut shell = Command::new("setsid");
    shell
        .args(["sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut shell = shell.spawn().expect("a shell");
    // The shell outlives this process if others use its server. While this process runs, the thread reaps the shell.
    std::thread::spawn(move || shell.wait());
    let begun = Instant::now();
    while !answers(port) {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "PostgreSQL does not start in {}",
            data.display()
        );
        std::thread::park_timeout(Duration::from_millis(50));
    }
    std::fs::write(home.join("port"), port.to_string()).expect("the port is stored");
    port
}

fn answers(port: u16) -> bool {
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    Command::new(binary("psql"))
        .args([&url, "-q", "-c", "SELECT 1"])
        .output()
        .is_ok_and(|o| o.status.success())
}
