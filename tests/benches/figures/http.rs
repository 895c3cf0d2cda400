//! The client and the bridge of the benchmark. They use as little CPU as possible: on a small machine it is taken from the
//! server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::server::pause;

/// A persistent connection, with the bytes that were read of the next message.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A request or a response: its first line and its body.
pub(crate) struct Message {
    pub(crate) line: String,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    /// Connects to a server.
    pub(crate) async fn open(to: SocketAddr) -> Connection {
        Connection::over(TcpStream::connect(to).await.expect("the server listens"))
    }

    fn over(stream: TcpStream) -> Connection {
        stream.set_nodelay(true).expect("a socket");
        Connection {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Sends a request. Returns the body of the response, which must be a success.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.stream.write_all(request).await.expect("sent");
        let answer = self.read().await.expect("answered");
        assert!(
            answer.line.starts_with("HTTP/1.1 200"),
            "{}: {}",
            answer.line,
            String::from_utf8_lossy(&answer.body)
        );
        answer.body
    }

    /// Reads the next message; `None` at the end of the connection.
    async fn read(&mut self) -> Option<Message> {
        loop {
            if let Some((message, length)) = complete(&self.buffer) {
                self.buffer.drain(..length);
                return Some(message);
            }
            if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}

/// The message at the start of these bytes and its length, if it is complete. Both sides send `content-length`.
fn complete(bytes: &[u8]) -> Option<(Message, usize)> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).expect("a head is ASCII");
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let length: usize = lines
        .filter_map(|l| l.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.trim().parse().expect("a length"));
    let body = bytes.get(end + 4..end + 4 + length)?.to_vec();
    Some((Message { line, body }, end + 4 + length))
}

/// A request as bytes. An empty token adds no header.
pub(crate) fn request(method: &str, path: &str, token: &str, body: &str) -> Vec<u8> {
    let authorization = if token.is_empty() {
        String::new()
    } else {
        format!("authorization: Bearer {token}\r\n")
    };
    format!(
        "{method} {path} HTTP/1.1\r\nhost: bench\r\n{authorization}\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A transaction that the bridge received.
#[derive(Clone)]
pub(crate) struct Taken {
    pub(crate) at: Instant,
    pub(crate) body: Arc<Vec<u8>>,
}

/// A bridge that accepts every transaction and records when it was received.
#[derive(Clone)]
pub(crate) struct StubBridge {
    pub(crate) url: String,
    taken: Arc<Mutex<Vec<Taken>>>,
    held: Arc<AtomicBool>,
    released: Arc<Notify>,
    /// The duration of each response, in milliseconds.
    takes: Arc<AtomicU64>,
}

impl StubBridge {
    /// Listens on a free port.
    pub(crate) async fn start() -> StubBridge {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let bridge = StubBridge {
            url: format!("http://{}", listener.local_addr().expect("an address")),
            taken: Arc::default(),
            held: Arc::default(),
            released: Arc::default(),
            takes: Arc::default(),
        };
        let shared = bridge.clone();
        actix_rt::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                actix_rt::spawn(shared.clone().answer(Connection::over(stream)));
            }
        });
        bridge
    }

    async fn answer(self, mut connection: Connection) {
        while let Some(Message { line, body }) = connection.read().await {
            assert!(
                line.starts_with("PUT /_matrix/app/v1/transactions/"),
                "{line}"
            );
            let (at, body) = (Instant::now(), Arc::new(body));
            self.taken
                .lock()
                .expect("no panic")
                .push(Taken { at, body });
            if self.held.load(Ordering::Acquire) {
                self.released.notified().await;
            }
            if let takes @ 1.. = self.takes.load(Ordering::Relaxed) {
                pause(Duration::from_millis(takes)).await;
            }
            let answer =
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
            if connection.stream.write_all(answer).await.is_err() {
                return;
            }
        }
    }

    /// Holds all responses until [`StubBridge::release`].
    pub(crate) fn hold(&self) {
        self.held.store(true, Ordering::Release);
    }

    /// Sets the duration of each response.
    pub(crate) fn answer_after(&self, milliseconds: u64) {
        self.takes.store(milliseconds, Ordering::Relaxed);
    }

    /// Sends the held responses, and further ones at once.
    pub(crate) fn release(&self) {
        self.held.store(false, Ordering::Release);
        self.released.notify_waiters();
    }

    /// The received transactions without the first `skip`.
    pub(crate) fn taken(&self, skip: usize) -> Vec<Taken> {
        self.taken.lock().expect("no panic")[skip..].to_vec()
    }

    /// The number of received transactions.
    pub(crate) fn count(&self) -> usize {
        self.taken.lock().expect("no panic").len()
    }
}
