//! The commands that talk to a running development server: each is one request to a route under `/_understudy/`.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::options::text;
use crate::say::say;

/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(90);

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Control {
    /// Put the database in memory of a running development server back as it was when the server became ready
    Reset(Target),
    /// Keep a copy of the database in memory of a running development server, and print its id
    Snapshot(Target),
    /// Put a copy of the database in memory back
    Restore {
        /// The id that `snapshot` printed
        id: String,
        /// The server.
        #[command(flatten)]
        target: Target,
    },
    /// Show, freeze, run or advance the clock of a running development server
    Clock {
        /// What to do [default: show it]
        #[command(subcommand)]
        action: Option<ClockAction>,
        /// The server.
        #[command(flatten)]
        target: Target,
    },
    /// List, add or clear faults of the requests of a running development server to its application services
    Faults {
        /// What to do [default: list them]
        #[command(subcommand)]
        action: Option<FaultsAction>,
        /// The server.
        #[command(flatten)]
        target: Target,
    },
    /// End the back-off of an application service
    Retry(Service),
    /// Send the last acknowledged transaction of an application service again, with the same id
    Resend(Service),
}

/// The server to talk to.
#[derive(Debug, Args)]
pub struct Target {
    /// The URL of the running development server
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:8008",
        env = "UNDERSTUDY_URL"
    )]
    pub server: String,
}

/// An application service of the server.
#[derive(Debug, Args)]
pub struct Service {
    /// The id of the application service
    pub id: String,
    #[command(flatten)]
    target: Target,
}

/// What to do with the clock.
#[derive(Debug, Subcommand)]
pub enum ClockAction {
    /// Let it stand still
    Freeze,
    /// Let it run on from where it stands
    Run,
    /// Advance it; what was due in between is due now
    Advance {
        /// By how many milliseconds
        ms: u64,
    },
}

/// What to do with faults.
#[derive(Debug, Subcommand)]
pub enum FaultsAction {
    /// Add a fault, after the others
    Add(AddFault),
    /// Remove all faults, or one
    Clear {
        /// The number that `add` printed
        id: Option<u64>,
    },
}

/// A fault to add.
#[derive(Debug, Args)]
pub struct AddFault {
    /// `refuse`, `delay_ms=N`, `status=N`, `cut_before` or `cut_after` (the service has processed the request)
    #[arg(value_parser = fault)]
    pub fault: Value,
    /// Only requests to this application service
    #[arg(long, value_name = "ID")]
    pub service: Option<String>,
    /// Only these requests: `transactions`, `ping`, `users`, `rooms`, `thirdparty` or `keys`
    #[arg(long, value_name = "NAME")]
    pub endpoint: Option<String>,
    /// Only the first N requests
    #[arg(long, value_name = "N")]
    pub times: Option<u64>,
    /// Only some requests, with this probability
    #[arg(long, value_name = "P")]
    pub probability: Option<f64>,
    /// Chooses the requests, with --probability
    #[arg(long, value_name = "N", requires = "probability")]
    pub seed: Option<u64>,
}

fn fault(text: &str) -> Result<Value, String> {
    match text.split_once('=') {
        None => Ok(text.into()),
        Some((name, number)) => {
            let number: u64 = number.parse().map_err(|e| format!("{number:?}: {e}"))?;
            Ok(json!({name: number}))
        }
    }
}

impl AddFault {
    fn rule(self) -> Value {
        let parts = [
            ("fault", Some(self.fault)),
            ("service", self.service.map(Value::from)),
            ("endpoint", self.endpoint.map(Value::from)),
            ("times", self.times.map(Value::from)),
            ("probability", self.probability.map(Value::from)),
            ("seed", self.seed.map(Value::from)),
        ];
        let given = parts
            .into_iter()
            .filter_map(|(name, value)| value.map(|v| (name.to_owned(), v)));
        given.collect::<Map<_, _>>().into()
    }
}

/// Send the request of a command, and print the answer.
pub(crate) fn control(command: Control) -> Result<(), String> {
    let post = |path: &str| ("POST", path.to_owned(), json!({}));
    let (target, (method, path, body)) = match command {
        Control::Reset(target) => (target, post("reset")),
        Control::Snapshot(target) => (target, post("snapshot")),
        Control::Restore { id, target } => {
            let body = json!({"id": id});
            (target, ("POST", "restore".to_owned(), body))
        }
        Control::Clock { action, target } => {
            let request = match action {
                None => ("GET", "clock".to_owned(), json!({})),
                Some(ClockAction::Freeze) => post("clock/freeze"),
                Some(ClockAction::Run) => post("clock/run"),
                Some(ClockAction::Advance { ms }) => {
                    ("POST", "clock/advance".to_owned(), json!({"ms": ms}))
                }
            };
            (target, request)
        }
        Control::Faults { action, target } => {
            let request = match action {
                None => ("GET", "faults".to_owned(), json!({})),
                Some(FaultsAction::Add(add)) => ("POST", "faults".to_owned(), add.rule()),
                Some(FaultsAction::Clear { id }) => {
                    let body = id.map_or_else(|| json!({}), |id| json!({"id": id}));
                    ("POST", "faults/clear".to_owned(), body)
                }
            };
            (target, request)
        }
        Control::Retry(Service { id, target }) => (target, post(&in_path(&id, "retry"))),
        Control::Resend(Service { id, target }) => (target, post(&in_path(&id, "resend"))),
    };
    let path = format!("/_understudy/{path}");
    let (status, answer) = request(&target.server, method, &path, &body.to_string())?;
    let Ok(value) = serde_json::from_str::<Value>(&answer) else {
        return Err(format!(
            "{}: {status}, without JSON: this is no understudy server",
            target.server
        ));
    };
    if status == 200 {
        say!("{answer}");
        return Ok(());
    }
    let why = value["error"].as_str().unwrap_or("no explanation");
    Err(format!("{}: {status}: {why}", target.server))
}

fn in_path(service: &str, rest: &str) -> String {
    let id = percent_encoding::utf8_percent_encode(service, percent_encoding::NON_ALPHANUMERIC);
    format!("appservices/{id}/{rest}")
}

/// Send one request, and read the status and the body of its answer. The server listens on loopback, without TLS.
fn request(server: &str, method: &str, path: &str, body: &str) -> Result<(u16, String), String> {
    let host = server.strip_prefix("http://").unwrap_or(server);
    let host = host.trim_end_matches('/');
    let failed = |e: std::io::Error| format!("{server}: {e}");
    let mut stream = TcpStream::connect(host).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    read.map_err(|e| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("{server}: no answer after {} s", PATIENCE.as_secs())
        }
        ErrorKind::InvalidData => format!("{server}: the answer is no text"),
        _ => failed(e),
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).unwrap_or_default();
    let status = status
        .parse()
        .map_err(|_| format!("{server}: this is no HTTP server"));
    status.map_err(text).map(|status| (status, body.to_owned()))
}
