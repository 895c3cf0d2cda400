//! A bridge: a real HTTP server that answers transactions as the story says, and a token to ask with.

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
use crate::transcript::{Log, SAME};

/// To-device messages in a transaction. (MSC4203)
pub const TO_DEVICE: &str = "de.sorunome.msc2409.to_device";

/// Device lists in a transaction. (MSC3202)
const LISTS: &str = "org.matrix.msc3202.device_lists";

/// A request that a bridge received.
#[derive(Debug, Clone, PartialEq)]
pub struct Received {
    /// `PUT`, `POST`, `GET`
    pub method: String,
    /// The path.
    pub path: String,
    /// The query of a transaction or a ping, as it came.
    pub query: String,
    /// The body, byte for byte.
    pub body: String,
    /// What was answered.
    pub answered: u16,
}

impl Received {
    /// The last segment of the path: a transaction's id.
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

/// Something that the server wants to know, outside transactions, and that the story has not answered yet. While it is held
/// the story can do what a bridge does when it is asked: call back.
pub struct Question {
    /// The path, as it came.
    pub path: String,
    /// The body, byte for byte; empty for a `GET`.
    pub body: String,
    tell: oneshot::Sender<(u16, String)>,
}

impl Question {
    /// Answer it.
    pub fn answers(self, status: u16, body: &Value) {
        self.answers_text(status, &body.to_string());
    }

    /// Answer it with something that need not be JSON.
    pub fn answers_text(self, status: u16, body: &str) {
        // A server that has given up does not hear it.
        let _ = self.tell.send((status, body.to_owned()));
    }
}

#[derive(Default)]
struct State {
    name: String,
    hs_token: String,
    /// What is answered at once; `None` holds each request until the story answers it.
    at_once: Option<u16>,
    held: VecDeque<oneshot::Sender<u16>>,
    /// What questions are answered at once; `None` holds each until the story answers it.
    to_questions: Option<(u16, String)>,
    asked: VecDeque<Question>,
    /// Whether only the paths from before version 1 are known.
    only_legacy: bool,
    received: Vec<Received>,
    seen: BTreeSet<String>,
    trace: Option<Trace>,
    log: Log,
}

impl State {
    /// A transaction or a ping has come; its entry in the record.
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

/// The HTTP side of a bridge, outside of any stage too.
#[derive(Clone)]
pub struct Receiver {
    state: Arc<Mutex<State>>,
    handle: ServerHandle,
    /// Where it listens.
    pub url: String,
}

impl Receiver {
    /// Start to listen on a free port and answer everything 200. `trace` says whose quiet a held request does not disturb.
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
        f(&mut self.state.lock().expect("nobody panicked"))
    }

    /// Answer this at once from now on; `None` holds each request until [`Receiver::answers`].
    pub fn at_once(&self, status: Option<u16>) {
        self.with(|s| s.at_once = status);
    }

    /// Wait for a request that is held, and answer it.
    pub async fn answers(&self, status: u16) {
        for _ in 0..5_000 {
            let held = self.with(|s| s.held.pop_front().map(|held| (held, s.received.len())));
            if let Some((held, before)) = held {
                // Answered is what is written down: whoever waits for rest now finds the server at work on it.
                let mut patience = if held.send(status).is_ok() { 5_000 } else { 0 };
                while patience > 0 && self.count() == before {
                    patience -= 1;
                    pause().await;
                }
                return;
            }
            pause().await;
        }
        panic!("nothing came that could be answered");
    }

    /// Answer this to each question from now on; `None` holds it until [`Receiver::is_asked`]. At first: 404 `M_NOT_FOUND`.
    pub fn to_questions(&self, answer: Option<(u16, Value)>) {
        self.with(|s| s.to_questions = answer.map(|(status, body)| (status, body.to_string())));
    }

    /// Know only the paths from before version 1 from now on, or the present ones again.
    pub fn knows_only_legacy_paths(&self, only: bool) {
        self.with(|s| s.only_legacy = only);
    }

    /// Wait until so many transactions and pings are held.
    pub async fn holds_requests(&self, number: usize) {
        until("requests are held", || {
            self.with(|s| s.held.len()) >= number
        })
        .await;
    }

    /// Wait for a question that is held.
    ///
    /// # Panics
    /// When none comes.
    pub async fn is_asked(&self) -> Question {
        for _ in 0..5_000 {
            if let Some(question) = self.with(|s| s.asked.pop_front()) {
                return question;
            }
            pause().await;
        }
        panic!("nothing was asked");
    }

    /// How many questions are held.
    #[must_use]
    pub fn held_questions(&self) -> usize {
        self.with(|s| s.asked.len())
    }

    /// Wait until so many questions are held.
    pub async fn holds(&self, questions: usize) {
        until("questions are held", || self.held_questions() >= questions).await;
    }

    /// The paths of the questions that were answered, in order.
    #[must_use]
    pub fn questions(&self) -> Vec<String> {
        self.with(|s| {
            let questions = s.received.iter().filter(|r| is_question(&r.path));
            questions.map(|r| r.path.clone()).collect()
        })
    }

    /// Everything received and answered, in order.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.with(|s| s.received.clone())
    }

    /// How many requests were received and answered.
    #[must_use]
    pub fn count(&self) -> usize {
        self.with(|s| s.received.len())
    }

    /// The transactions that were answered with a 2xx, each as JSON, after the first `skip` requests.
    #[must_use]
    pub fn taken(&self, skip: usize) -> Vec<Value> {
        self.with(|s| {
            let taken = s.received[skip..]
                .iter()
                .filter(|r| r.path.contains("/transactions/") && r.answered < 300);
            taken.map(Received::json).collect()
        })
    }

    /// The items under a key of the transactions that were answered with a 2xx, after the first `skip` requests.
    #[must_use]
    pub fn items(&self, skip: usize, key: &str) -> Vec<Value> {
        let taken = self.taken(skip);
        let lists = taken
            .iter()
            .filter_map(|body| body[key].as_array().cloned());
        lists.flatten().collect()
    }

    /// The users in these transactions whose device lists are `changed` or `left`.
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

    /// Stop to listen.
    pub async fn stop(&self) {
        self.handle.stop(false).await;
    }
}

fn is_question(path: &str) -> bool {
    !path.contains("/transactions/") && !path.ends_with("/app/v1/ping")
}

async fn answer(state: Arc<Mutex<State>>, http: HttpRequest, body: web::Bytes) -> HttpResponse {
    let lock = || state.lock().expect("nobody panicked");
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
            let (tell, told) = oneshot::channel();
            s.held.push_back(tell);
            told
        });
        (wait, s.trace.clone())
    };
    let status = match wait {
        _ if !authorised => 403,
        Some(told) => {
            let _parked = trace.map(|t| t.parked());
            told.await.unwrap_or(503)
        }
        None => lock().at_once.unwrap_or(200),
    };
    received.answered = status;
    lock().answers(entry, received);
    HttpResponse::build(actix_web::http::StatusCode::from_u16(status).expect("a status"))
        .json(json!({}))
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
    let lock = || state.lock().expect("nobody panicked");
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
            let (tell, told) = oneshot::channel();
            lock().asked.push_back(Question {
                path: path.to_owned(),
                body: body.clone(),
                tell,
            });
            let _parked = trace.map(|t| t.parked());
            told.await.unwrap_or((503, String::new()))
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

/// Let others run, and the machine breathe.
#[expect(
    clippy::disallowed_methods,
    reason = "the kit waits for other threads; stories wait for events"
)]
pub async fn pause() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

/// Wait until something is so; another process, or real time, must make it so.
///
/// # Panics
/// When it is not so after a minute.
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

/// An application service on a stage.
#[derive(Clone)]
pub struct Bridge {
    /// Its id.
    pub id: String,
    /// What it receives.
    pub receiver: Receiver,
    /// Itself, asking with its own token.
    pub bot: Person,
    pub(crate) server_name: String,
}

impl Bridge {
    /// The full id of one of its users, `@irc_bob:test`, for `bob`.
    #[must_use]
    pub fn ghost_id(&self, name: &str) -> String {
        format!("@{}_{name}:{}", self.id, self.server_name)
    }

    /// Register a user of its own, without a device.
    pub async fn ghost(&self, name: &str) -> Person {
        let body = json!({"type": "m.login.application_service", "username": format!("{}_{name}", self.id), "inhibit_login": true});
        self.bot.post("/register", &body).await.ok();
        self.bot.playing(&self.ghost_id(name), None)
    }

    /// Register a user of its own and make it a device.
    pub async fn ghost_with_device(&self, name: &str, device: &str) -> Person {
        let ghost = self.ghost(name).await;
        ghost
            .put(&format!("/devices/{device}"), &json!({}))
            .await
            .ok();
        self.bot.playing(&ghost.user_id, Some(device))
    }

    /// Wait for a request that is held, and answer it.
    pub async fn answers(&self, status: u16) {
        self.receiver.answers(status).await;
    }

    /// Wait for a question that is held; questions are held from now on.
    pub async fn is_asked(&self) -> Question {
        self.receiver.to_questions(None);
        self.receiver.is_asked().await
    }
}
