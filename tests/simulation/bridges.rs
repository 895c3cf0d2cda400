//! The bridges of a simulation: one listener for all of them. HTTP is implemented by hand, because a bridge must also be able to
//! misbehave in ways that HTTP libraries do not allow: send garbage, end a connection before or after it has taken a request,
//! never answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use actors::runtime::trace::Trace;
use serde_json::Value;
use tests::person::Person;
use tests::transcript::{Log, SAME};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// How a bridge behaves from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Good,
    /// Answers with this status.
    Status(u16),
    /// Answers with bytes that are not HTTP.
    Garbage,
    /// Takes the request and does not answer until its mode changes.
    Hangs,
    /// Ends the connection before it reads.
    DiesBefore,
    /// Takes the transaction, and ends the connection without an answer.
    DiesAfter,
}

/// One attempt at a transaction, as the bridge received it.
#[derive(Debug, Clone)]
pub(crate) struct Attempt {
    pub(crate) service: String,
    pub(crate) id: String,
    pub(crate) bytes: Arc<str>,
    /// Whether the bridge has processed the transaction and remembers its id.
    pub(crate) taken: bool,
    /// Whether the bridge has answered this attempt with a 2xx.
    pub(crate) acknowledged: bool,
    /// How many other attempts at this bridge were open when this one arrived.
    pub(crate) open: usize,
    pub(crate) token_is_right: bool,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) modes: BTreeMap<String, Mode>,
    pub(crate) tokens: BTreeMap<String, String>,
    pub(crate) attempts: Vec<Attempt>,
    /// Bridges that have failed and have acknowledged nothing since. The server may back off before it tries them again.
    pub(crate) troubled: BTreeSet<String>,
    /// Requests other than transactions, in order of arrival: the bridge's id, and method and path.
    pub(crate) queries: Vec<(String, String)>,
    /// The bots of the bridges that create the user or room that they are queried about.
    pub(crate) makers: BTreeMap<String, Person>,
    open: BTreeMap<String, usize>,
    /// The number of the running server, counted from the first start. Connections of an earlier, killed server are not counted as
    /// open.
    server: u32,
    seen: BTreeSet<(String, String)>,
    /// The trace of the running server. While a bridge hangs, the trace does not count the request to it as work under way, so
    /// that the server counts as idle meanwhile.
    pub(crate) trace: Option<Trace>,
}

impl State {
    /// Start counting open connections anew, for the next server.
    pub(crate) fn forget_connections(&mut self) {
        self.open.clear();
        self.server += 1;
    }
}

#[derive(Clone)]
pub(crate) struct Bridges {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    pub(crate) base: String,
    log: Log,
}

impl Bridges {
    pub(crate) async fn start(log: Log) -> Bridges {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let bridges = Bridges {
            state: Arc::default(),
            changed: Arc::default(),
            base,
            log,
        };
        let all = bridges.clone();
        actix_rt::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let all = all.clone();
                actix_rt::spawn(async move {
                    // A broken connection is an error of the client side.
                    let _ = all.serve(stream).await;
                });
            }
        });
        bridges
    }

    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().expect("no task panicked here"))
    }

    pub(crate) fn set_mode(&self, service: &str, mode: Mode) {
        self.with(|s| {
            s.modes.insert(service.to_owned(), mode);
            if mode != Mode::Good {
                s.troubled.insert(service.to_owned());
            }
        });
        self.changed.notify_waiters();
    }

    fn mode(&self, service: &str) -> Mode {
        self.with(|s| s.modes.get(service).copied().unwrap_or(Mode::Good))
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            let Some(request) = read_request(&mut stream, &mut buffer).await? else {
                return Ok(());
            };
            if !self.answer(&mut stream, request).await? {
                return Ok(());
            }
        }
    }

    /// Answer one request. Returns whether the connection stays open.
    async fn answer(&self, stream: &mut TcpStream, request: Request) -> std::io::Result<bool> {
        let mut parts = request.path.trim_start_matches('/').splitn(2, '/');
        let service = parts.next().unwrap_or_default().to_owned();
        let path = format!("/{}", parts.next().unwrap_or_default());
        let Some(id) = path.strip_prefix("/_matrix/app/v1/transactions/") else {
            return self.answer_query(stream, &service, &path, &request).await;
        };
        let mode = self.mode(&service);
        if mode == Mode::DiesBefore {
            return Ok(false);
        }
        let number = self.receive(&service, id, &request, mode);
        let _open = Open(self.clone(), service.clone(), self.with(|s| s.server));
        let mode = self.wait_while_it_hangs(&service, mode, stream).await;
        let status = match mode {
            Mode::Good => 200,
            Mode::Status(status) => status,
            Mode::Garbage => {
                stream.write_all(b"220 this is not the web\r\n").await?;
                return Ok(false);
            }
            Mode::Hangs | Mode::DiesBefore | Mode::DiesAfter => return Ok(false),
        };
        self.with(|s| {
            s.attempts[number].taken |= status < 300;
            s.attempts[number].acknowledged = status < 300;
            if mode == Mode::Good {
                s.troubled.remove(&service);
            }
        });
        self.log_attempt(&service, id, &request, status);
        write_answer(stream, status, "{}").await?;
        Ok(true)
    }

    fn receive(&self, service: &str, id: &str, request: &Request, mode: Mode) -> usize {
        self.with(|s| {
            let open = s.open.entry(service.to_owned()).or_default();
            let others = *open;
            *open += 1;
            let expected = s.tokens.get(service).cloned().unwrap_or_default();
            s.attempts.push(Attempt {
                service: service.to_owned(),
                id: id.to_owned(),
                bytes: request.body.as_str().into(),
                taken: mode == Mode::DiesAfter,
                acknowledged: false,
                open: others,
                token_is_right: request.token == expected,
            });
            s.attempts.len() - 1
        })
    }

    fn log_attempt(&self, service: &str, id: &str, request: &Request, status: u16) {
        let again = self.with(|s| !s.seen.insert((service.to_owned(), id.to_owned())));
        let line = format!("PUT /_matrix/app/v1/transactions/{id}");
        let body = if again { SAME } else { &request.body };
        let entry = self.log.transaction(service, line, body);
        self.log.answered(entry, status, "");
    }

    /// Wait until the bridge's mode changes or the server closes the connection. Returns the mode to answer in.
    async fn wait_while_it_hangs(&self, service: &str, first: Mode, stream: &TcpStream) -> Mode {
        if first != Mode::Hangs {
            return first;
        }
        let _parked = self.with(|s| s.trace.as_ref().map(Trace::parked));
        loop {
            let changed = self.changed.notified();
            let now = self.mode(service);
            if now != Mode::Hangs {
                return now;
            }
            let mut byte = [0];
            tokio::select! {
                () = changed => {}
                read = stream.peek(&mut byte) => if !matches!(read, Ok(1..)) { return Mode::DiesBefore },
            }
        }
    }

    /// Create the user or room that the bridge is queried about. Returns whether it exists now.
    async fn makes(&self, service: &str, path: &str) -> bool {
        let maker = self.with(|s| s.makers.get(service).cloned());
        let Some((bot, (at, body))) = maker.zip(crate::names::to_make(path)) else {
            return false;
        };
        let made = bot.try_ask("POST", at, Some(&body)).await;
        made.is_ok_and(|made| made.status == 200 || made.body["errcode"] == "M_USER_IN_USE")
    }

    async fn answer_query(
        &self,
        stream: &mut TcpStream,
        service: &str,
        path: &str,
        request: &Request,
    ) -> std::io::Result<bool> {
        let line = format!("{} {path}", request.method);
        self.with(|s| s.queries.push((service.to_owned(), line)));
        match self.mode(service) {
            Mode::DiesBefore | Mode::DiesAfter => return Ok(false),
            Mode::Garbage => {
                stream.write_all(b"220 this is not the web\r\n").await?;
                return Ok(false);
            }
            Mode::Hangs => {
                self.wait_while_it_hangs(service, Mode::Hangs, stream).await;
                return Ok(false);
            }
            Mode::Good if path == "/_matrix/app/v1/ping" => write_answer(stream, 200, "{}").await?,
            Mode::Good if self.makes(service, path).await => {
                write_answer(stream, 200, "{}").await?;
            }
            Mode::Good => write_answer(stream, 404, r#"{"errcode":"M_NOT_FOUND"}"#).await?,
            Mode::Status(status) => write_answer(stream, status, "{}").await?,
        }
        Ok(true)
    }
}

/// Counts an attempt at a bridge as open until it is dropped: the bridges, the appservice's id, the number of the server.
struct Open(Bridges, String, u32);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.with(|s| {
            let same = s.server == self.2;
            if let Some(open) = s.open.get_mut(&self.1).filter(|_| same) {
                *open = open.saturating_sub(1);
            }
        });
    }
}

struct Request {
    method: String,
    path: String,
    token: String,
    body: String,
}

async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> std::io::Result<Option<Request>> {
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
    let mut lines = text.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (
        first.next().unwrap_or_default(),
        first.next().unwrap_or_default(),
    );
    let headers: BTreeMap<String, &str> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .collect();
    let length = headers.get("content-length").and_then(|l| l.parse().ok());
    let end = head + 4 + length.unwrap_or(0);
    while buffer.len() < end {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let body = String::from_utf8_lossy(&buffer[head + 4..end]).into_owned();
    let token = headers.get("authorization").copied().unwrap_or_default();
    let token = token.trim_start_matches("Bearer ").to_owned();
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        token,
        body,
    };
    buffer.drain(..end);
    Ok(Some(request))
}

async fn write_answer(stream: &mut TcpStream, status: u16, body: &str) -> std::io::Result<()> {
    let text = format!(
        "HTTP/1.1 {status} Status\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await
}

impl Attempt {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.bytes).unwrap_or(Value::Null)
    }
}
