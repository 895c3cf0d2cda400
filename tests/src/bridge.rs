//! A bridge: a real HTTP server that answers transactions as the test says, and a client with the appservice's token.

use std::collections::{BTreeSet, VecDeque};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use actors::runtime::trace::Trace;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::person::Person;
use crate::process::Closed;
use crate::transcript::{Log, SAME};

/// To-device messages in a transaction. (MSC4203)
pub const TO_DEVICE: &str = "de.sorunome.msc2409.to_device";

/// Device lists in a transaction. (MSC3202)
const LISTS: &str = "org.matrix.msc3202.device_lists";

/// A request that a bridge received.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// The HTTP method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The query string of a transaction or a ping, as it was received.
    pub query: String,
    /// The body, byte for byte.
    pub body: String,
    /// The HTTP status of the answer.
    pub answered: u16,
}

impl Received {
    /// The last segment of the path: the id of a transaction.
    #[must_use]
    pub fn id(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a body is JSON")
    }
}

/// A request of the server other than a transaction or a ping, which the test has not answered yet. Before it answers, the test
/// can do what a bridge may do in the meantime: make requests to the server.
pub struct Question {
    /// The path and query, as they were received.
    pub path: String,
    /// The body, byte for byte; empty for `GET`.
    pub body: String,
    reply: oneshot::Sender<(u16, String)>,
}

impl Question {
    /// Answers the request.
    pub fn answers(self, status: u16, body: &Value) {
        self.answers_text(status, &body.to_string());
    }

    /// Answers the request with a body that need not be JSON.
    pub fn answers_text(self, status: u16, body: &str) {
        // If the server has stopped waiting, nothing receives this.
        let _ = self.reply.send((status, body.to_owned()));
    }
}

#[derive(Default)]
struct State {
    name: String,
    hs_token: String,
    /// The status with which transactions and pings are answered at once. If it is `None`, each one is held without an answer until
    /// the test answers it.
    at_once: Option<u16>,
    held: VecDeque<oneshot::Sender<u16>>,
    /// The body of the answers to transactions and pings, if it is not `{}`.
    says: Option<Value>,
    /// The answer to questions (requests other than transactions and pings); `None` holds each one until the test answers it.
    to_questions: Option<(u16, String)>,
    asked: VecDeque<Question>,
    /// Whether only the paths from before version 1 of the application-service API exist.
    only_legacy: bool,
    received: Vec<Received>,
    seen: BTreeSet<String>,
    trace: Option<Trace>,
    log: Log,
}

impl State {
    /// Records that a transaction or a ping was received. Returns the number of its entry in the record.
    fn arrives(&mut self, request: &Received) -> usize {
        let line = format!("{} {}", request.method, request.path);
        let is_new = self.seen.insert(format!("{line} {}", request.body));
        let body = if is_new { &request.body } else { SAME };
        self.log.transaction(&self.name, line, body)
    }

    fn answers(&mut self, entry: usize, request: Received) {
        self.log.answered(entry, request.answered, "");
        self.received.push(request);
    }
}

/// The HTTP server of a bridge. Also usable without a [`Stage`](crate::Stage).
#[derive(Clone)]
pub struct Receiver {
    state: Arc<Mutex<State>>,
    handle: ServerHandle,
    /// The URL at which it listens.
    pub url: String,
}

impl Receiver {
    /// Listens on a free port and answers everything with 200. While a request is held, `trace` does not count it as work in
    /// progress.
    #[must_use]
    pub fn start(name: &str, hs_token: &str, trace: Option<Trace>, log: Log) -> Receiver {
        Receiver::start_on(
            TcpListener::bind("127.0.0.1:0").expect("a free port"),
            name,
            hs_token,
            trace,
            log,
        )
    }

    fn start_on(
        listener: TcpListener,
        name: &str,
        hs_token: &str,
        trace: Option<Trace>,
        log: Log,
    ) -> Receiver {
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = State {
            name: name.to_owned(),
            hs_token: hs_token.to_owned(),
            at_once: Some(200),
            to_questions: Some((404, json!({"errcode": "M_NOT_FOUND"}).to_string())),
            trace,
            log,
            ..State::default()
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let server = HttpServer::new(move || {
            let state = Arc::clone(&shared);
            App::new()
                .app_data(web::PayloadConfig::new(16 << 20))
                .default_service(web::to(move |http: HttpRequest, body: web::Bytes| {
                    answer(Arc::clone(&state), http, body)
                }))
        })
        .workers(1)
        .disable_signals()
        .shutdown_timeout(1)
        .listen(listener)
        .expect("the bridge listens")
        .run();
        let handle = server.handle();
        actix_rt::spawn(server);
        Receiver { state, handle, url }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().expect("no panic"))
    }

    /// Sets the status with which transactions and pings are answered at once; `None` holds each one until [`Receiver::answers`].
    pub fn at_once(&self, status: Option<u16>) {
        self.with(|s| s.at_once = status);
    }

    /// Sets the body of the answers to transactions and pings.
    pub fn says(&self, body: Value) {
        self.with(|s| s.says = Some(body));
    }

    /// Waits until the bridge has received a transaction or ping that it holds without an answer, and answers it with this status.
    pub async fn answers(&self, status: u16) {
        for _ in 0..5_000 {
            let held = self.with(|s| s.held.pop_front().map(|held| (held, s.received.len())));
            if let Some((held, before)) = held {
                // The request counts as answered once it is recorded. A caller that then waits until the server is idle finds the
                // server at work on the answer.
                let mut patience = if held.send(status).is_ok() { 5_000 } else { 0 };
                while patience > 0 && self.count() == before {
                    patience -= 1;
                    pause().await;
                }
                return;
            }
            pause().await;
        }
        panic!("no request was held");
    }

    /// Sets the answer to questions: requests other than transactions and pings. `None` holds each one until
    /// [`Receiver::is_asked`]. Initially it is 404 `M_NOT_FOUND`.
    pub fn to_questions(&self, answer: Option<(u16, Value)>) {
        self.with(|s| s.to_questions = answer.map(|(status, body)| (status, body.to_string())));
    }

    /// Sets whether only the paths from before version 1 of the application-service API exist.
    pub fn knows_only_legacy_paths(&self, only: bool) {
        self.with(|s| s.only_legacy = only);
    }

    /// Waits until this number of transactions and pings are held.
    pub async fn holds_requests(&self, number: usize) {
        until("requests are held", || {
            self.with(|s| s.held.len()) >= number
        })
        .await;
    }

    /// Waits for a held question.
    ///
    /// # Panics
    /// If none comes.
    pub async fn is_asked(&self) -> Question {
        for _ in 0..5_000 {
            if let Some(question) = self.with(|s| s.asked.pop_front()) {
                return question;
            }
            pause().await;
        }
        panic!("no question was held");
    }

    /// The number of held questions.
    #[must_use]
    pub fn held_questions(&self) -> usize {
        self.with(|s| s.asked.len())
    }

    /// Waits until this number of questions are held.
    pub async fn holds(&self, questions: usize) {
        until("questions are held", || self.held_questions() >= questions).await;
    }

    /// The paths of the answered questions, in order.
    #[must_use]
    pub fn questions(&self) -> Vec<String> {
        self.with(|s| {
            let questions = s.received.iter().filter(|r| is_question(&r.path));
            questions.map(|r| r.path.clone()).collect()
        })
    }

    /// All answered requests, in order.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.with(|s| s.received.clone())
    }

    /// The number of answered requests.
    #[must_use]
    pub fn count(&self) -> usize {
        self.with(|s| s.received.len())
    }

    /// The transactions answered with a 2xx, as JSON, without the first `skip` requests.
    #[must_use]
    pub fn taken(&self, skip: usize) -> Vec<Value> {
        self.with(|s| {
            let taken = s.received[skip..]
                .iter()
                .filter(|r| r.path.contains("/transactions/") && r.answered < 300);
            taken.map(Received::json).collect()
        })
    }

    /// The items under `key` in the transactions answered with a 2xx, without the first `skip` requests.
    #[must_use]
    pub fn items(&self, skip: usize, key: &str) -> Vec<Value> {
        let taken = self.taken(skip);
        let lists = taken
            .iter()
            .filter_map(|body| body[key].as_array().cloned());
        lists.flatten().collect()
    }

    /// The users in the `changed` or `left` of the device lists in these transactions.
    #[must_use]
    pub fn device_lists(&self, skip: usize, list: &str) -> Vec<String> {
        let taken = self.taken(skip);
        let lists = taken
            .iter()
            .filter_map(|body| body[LISTS][list].as_array().cloned());
        let users = lists.flatten();
        users
            .filter_map(|user| user.as_str().map(str::to_owned))
            .collect()
    }

    /// Stops listening. While the result lives, connections are refused.
    pub async fn stop(&self) -> Closed {
        self.handle.stop(false).await;
        let address = self.url.trim_start_matches("http://").parse();
        Closed::at(address.expect("an address"))
    }
}

fn is_question(path: &str) -> bool {
    !path.contains("/transactions/") && !path.ends_with("/app/v1/ping")
}

async fn answer(state: Arc<Mutex<State>>, http: HttpRequest, body: web::Bytes) -> HttpResponse {
    let lock = || state.lock().expect("no panic");
    let expected = format!("Bearer {}", lock().hs_token);
    let authorised = http
        .headers()
        .get("authorization")
        .is_some_and(|v| v == expected.as_str());
    if authorised && lock().only_legacy && http.path().starts_with("/_matrix/app/v1/") {
        let received = received(&http, &body, 404);
        let entry = lock().arrives(&received);
        lock().answers(entry, received);
        return HttpResponse::NotFound().body("Cannot find this");
    }
    if authorised && is_question(http.path()) {
        return answer_question(state, http, body).await;
    }
    let mut received = received(&http, &body, 0);
    let entry = lock().arrives(&received);
    let (wait, trace) = {
        let mut s = lock();
        let wait = s.at_once.is_none().then(|| {
            let (reply, answered) = oneshot::channel();
            s.held.push_back(reply);
            answered
        });
        (wait, s.trace.clone())
    };
    let status = match wait {
        _ if !authorised => 403,
        Some(answered) => {
            let _parked = trace.map(|t| t.parked());
            answered.await.unwrap_or(503)
        }
        None => lock().at_once.unwrap_or(200),
    };
    received.answered = status;
    lock().answers(entry, received);
    let says = lock().says.clone();
    HttpResponse::build(actix_web::http::StatusCode::from_u16(status).expect("a status"))
        .json(says.unwrap_or_else(|| json!({})))
}

fn received(http: &HttpRequest, body: &[u8], answered: u16) -> Received {
    Received {
        method: http.method().to_string(),
        path: http.path().to_owned(),
        query: http.query_string().to_owned(),
        body: String::from_utf8_lossy(body).into_owned(),
        answered,
    }
}

async fn answer_question(
    state: Arc<Mutex<State>>,
    http: HttpRequest,
    body: web::Bytes,
) -> HttpResponse {
    let lock = || state.lock().expect("no panic");
    let path = http.uri().path_and_query().map_or("", |p| p.as_str());
    let body = String::from_utf8_lossy(&body).into_owned();
    let (log, name, at_once, trace) = {
        let s = lock();
        let at_once = s.to_questions.clone();
        (s.log.clone(), s.name.clone(), at_once, s.trace.clone())
    };
    let entry = log.question(&name, format!("{} {path}", http.method()), &body);
    let (status, text) = match at_once {
        Some(answer) => answer,
        None => {
            let (reply, answered) = oneshot::channel();
            lock().asked.push_back(Question {
                path: path.to_owned(),
                body: body.clone(),
                reply,
            });
            let _parked = trace.map(|t| t.parked());
            answered.await.unwrap_or((503, String::new()))
        }
    };
    log.answered(entry, status, &text);
    lock().received.push(Received {
        method: http.method().to_string(),
        path: path.to_owned(),
        query: String::new(),
        body,
        answered: status,
    });
    HttpResponse::build(actix_web::http::StatusCode::from_u16(status).expect("a status"))
        .content_type("application/json")
        .body(text)
}

/// Waits two milliseconds, so that other tasks and threads run.
#[expect(
    clippy::disallowed_methods,
    reason = "the kit waits for other threads; stories wait for events"
)]
pub async fn pause() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// Waits until a condition holds that another process, or real time, makes true.
///
/// # Panics
/// If it does not hold after a minute.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "waited a minute: {what}"
        );
        pause().await;
    }
}

/// An appservice that a test plays.
#[derive(Clone)]
pub struct Bridge {
    /// The id of the appservice.
    pub id: String,
    /// Its HTTP server.
    pub receiver: Receiver,
    /// Its sender user, with the appservice's token.
    pub bot: Person,
    pub(crate) server_name: String,
}

impl Bridge {
    /// The user id of a ghost: `@irc_bob:test` for `bob`.
    #[must_use]
    pub fn ghost_id(&self, name: &str) -> String {
        format!("@{}_{name}:{}", self.id, self.server_name)
    }

    /// Registers a ghost without a device.
    pub async fn ghost(&self, name: &str) -> Person {
        let body = json!({"type": "m.login.application_service", "username": format!("{}_{name}", self.id), "inhibit_login": true});
        self.bot.post("/register", &body).await.ok();
        self.bot.playing(&self.ghost_id(name), None)
    }

    /// Registers a ghost and creates a device for it.
    pub async fn ghost_with_device(&self, name: &str, device: &str) -> Person {
        let ghost = self.ghost(name).await;
        ghost
            .put(&format!("/devices/{device}"), &json!({}))
            .await
            .ok();
        self.bot.playing(&ghost.user_id, Some(device))
    }

    /// Waits until the bridge has received a transaction or ping that it holds without an answer, and answers it with this status.
    pub async fn answers(&self, status: u16) {
        self.receiver.answers(status).await;
    }

    /// Waits for a held question. Holds questions from now on.
    pub async fn is_asked(&self) -> Question {
        self.receiver.to_questions(None);
        self.receiver.is_asked().await
    }
}
