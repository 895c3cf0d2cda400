//! The HTTP server of a bridge. It answers, fails and stays silent as the scenario says.

use std::collections::VecDeque;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use regex::Regex;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::client::Client;
use crate::homeserver::Work;
use crate::log::Log;

/// How the bridge treats a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// Answer with a status.
    Answer(u16),
    /// Answer 200 after a time.
    Delay(Duration),
    /// Close the connection.
    Cut,
    /// Keep it until it is released.
    Hold,
}

/// A transaction, each time it was sent.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The path.
    pub path: String,
    /// The body, byte for byte.
    pub body: String,
    /// The status of the answer; 0 while there is none.
    pub answered: u16,
}

impl Attempt {
    /// Whether the server may forget it.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        (200..300).contains(&self.answered)
    }

    /// The body. A section with the name of a proposal, such as `org.matrix.msc3202.device_lists`, is there under the last part of
    /// its name too.
    #[must_use]
    pub fn sections(&self) -> Value {
        let mut body: Value = serde_json::from_str(&self.body).unwrap_or(Value::Null);
        if let Some(members) = body.as_object_mut() {
            let is_of_proposal = |key: &str| {
                let mut parts = key.rsplit('.').skip(1);
                parts.any(|part| part.starts_with("msc") && part[3..].parse::<u32>().is_ok())
            };
            let also: Vec<(String, Value)> = members
                .iter()
                .filter(|(key, _)| is_of_proposal(key))
                .map(|(key, value)| {
                    (
                        key.rsplit('.').next().unwrap_or(key).to_owned(),
                        value.clone(),
                    )
                })
                .collect();
            for (key, value) in also {
                members.entry(key).or_insert(value);
            }
        }
        body
    }
}

/// A request that a client is to make.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The client.
    pub client: Client,
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The body.
    pub body: Option<Value>,
}

/// How the bridge answers requests other than transactions.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Method and path; `*` stands for one or more characters.
    pub to: String,
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Value,
    /// Requests that the bridge makes before it answers.
    pub first: Vec<Prepared>,
}

/// Whether a method and path are those of a pattern in which `*` stands for one or more characters.
#[must_use]
pub fn fits(pattern: &str, line: &str) -> bool {
    let expression = format!("^{}$", regex::escape(pattern).replace(r"\*", ".+"));
    Regex::new(&expression).is_ok_and(|e| e.is_match(line))
}

struct State {
    name: String,
    /// Whether it refuses what still comes over connections that were made before.
    is_closed: bool,
    hs_token: String,
    next: VecDeque<Treatment>,
    then: Treatment,
    held: VecDeque<oneshot::Sender<u16>>,
    rules: Vec<Rule>,
    attempts: Vec<Attempt>,
    /// Method with path, and body, of the other requests.
    asked: Vec<(String, String)>,
    work: Option<Arc<dyn Work>>,
    log: Log,
}

/// The HTTP server of a bridge.
#[derive(Clone)]
pub struct Listener {
    state: Arc<Mutex<State>>,
    handle: Option<ServerHandle>,
    /// The URL at which it listens.
    pub url: String,
}

impl Listener {
    /// Listens at an address (`127.0.0.1:0` for a free port), and answers transactions with 200.
    ///
    /// # Errors
    /// If the address cannot be used.
    pub fn start(
        name: &str,
        address: &str,
        work: Option<Arc<dyn Work>>,
        log: Log,
    ) -> Result<Listener, String> {
        let state = State {
            name: name.to_owned(),
            is_closed: false,
            hs_token: String::new(),
            next: VecDeque::new(),
            then: Treatment::Answer(200),
            held: VecDeque::new(),
            rules: Vec::new(),
            attempts: Vec::new(),
            asked: Vec::new(),
            work,
            log,
        };
        let mut listener = Listener {
            state: Arc::new(Mutex::new(state)),
            handle: None,
            url: format!("http://{address}"),
        };
        listener.listen()?;
        Ok(listener)
    }

    /// Listens again at the same address.
    ///
    /// # Errors
    /// If the address cannot be used.
    pub fn listen(&mut self) -> Result<(), String> {
        let address = self.url.trim_start_matches("http://").to_owned();
        let failed = |e: std::io::Error| format!("the bridge cannot listen at {address}: {e}");
        let socket = TcpListener::bind(&address).map_err(failed)?;
        self.url = format!("http://{}", socket.local_addr().map_err(failed)?);
        let shared = Arc::clone(&self.state);
        let server = HttpServer::new(move || {
            let state = Arc::clone(&shared);
            App::new()
                .app_data(web::PayloadConfig::new(64 << 20))
                .default_service(web::to(move |http: HttpRequest, body: web::Bytes| {
                    serve(Arc::clone(&state), http, body)
                }))
        })
        .on_connect(|connection, data| {
            let socket = connection.downcast_ref::<actix_web::rt::net::TcpStream>();
            let copy = socket.and_then(|socket| socket.as_fd().try_clone_to_owned().ok());
            if let Some(copy) = copy {
                data.insert(Arc::new(TcpStream::from(copy)));
            }
        })
        .workers(1)
        .disable_signals()
        .shutdown_timeout(1)
        .listen(socket)
        .map_err(failed)?
        .run();
        self.handle = Some(server.handle());
        self.with(|s| s.is_closed = false);
        actix_rt::spawn(server);
        Ok(())
    }

    /// Listens again if it does not listen.
    ///
    /// # Errors
    /// If the address cannot be used.
    pub fn listen_again(&mut self) -> Result<(), String> {
        match self.handle {
            Some(_) => Ok(()),
            None => self.listen(),
        }
    }

    /// Stops listening.
    pub async fn close(&mut self) {
        if let Some(handle) = self.handle.take() {
            self.with(|s| s.is_closed = true);
            handle.stop(false).await;
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut lock(&self.state))
    }

    /// Takes only requests with this token from now on.
    pub fn trust(&self, hs_token: &str) {
        self.with(|s| s.hs_token = hs_token.to_owned());
    }

    /// Treats so many transactions like this, or all from now on.
    pub fn treat(&self, how: Treatment, times: Option<usize>) {
        self.with(|s| match times {
            Some(times) => s.next.extend(std::iter::repeat_n(how, times)),
            None => {
                s.next.clear();
                s.then = how;
            }
        });
    }

    /// Answers the oldest transaction that is held. Returns whether there was one.
    pub fn release(&self, status: u16) -> bool {
        let held = self.with(|s| s.held.pop_front());
        held.is_some_and(|held| held.send(status).is_ok())
    }

    /// Adds a rule for requests other than transactions. The last that fits counts.
    pub fn answer(&self, rule: Rule) {
        self.with(|s| s.rules.push(rule));
    }

    /// The attempts to send a transaction so far.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        self.with(|s| s.attempts.clone())
    }

    /// The other requests so far: method with path, and body.
    #[must_use]
    pub fn asked(&self) -> Vec<(String, String)> {
        self.with(|s| s.asked.clone())
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(state: Arc<Mutex<State>>, http: HttpRequest, body: web::Bytes) -> HttpResponse {
    if lock(&state).is_closed {
        return cut(&http);
    }
    let trusted = format!("Bearer {}", lock(&state).hs_token);
    let given = http.headers().get("authorization");
    if given.is_none_or(|given| given != trusted.as_str()) {
        return HttpResponse::Forbidden().json(json!({"errcode": "M_FORBIDDEN"}));
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    if http.path().contains("/transactions/") {
        transaction(&state, &http, body).await
    } else {
        question(&state, &http, body).await
    }
}

/// Closes the connection of a request, whose answer then goes nowhere.
fn cut(http: &HttpRequest) -> HttpResponse {
    if let Some(socket) = http.conn_data::<Arc<TcpStream>>() {
        // The server may have closed it already.
        let _ = socket.shutdown(Shutdown::Both);
    }
    HttpResponse::ServiceUnavailable().finish()
}

async fn transaction(state: &Mutex<State>, http: &HttpRequest, body: String) -> HttpResponse {
    let (index, entry, log, treatment, held) = {
        let mut s = lock(state);
        let entry = s
            .log
            .sends(&s.name, format!("{} {}", http.method(), http.path()), &body);
        let treatment = s.next.pop_front().unwrap_or(s.then);
        s.attempts.push(Attempt {
            path: http.path().to_owned(),
            body,
            answered: 0,
        });
        let held = (treatment == Treatment::Hold).then(|| {
            let (release, released) = oneshot::channel();
            s.held.push_back(release);
            (released, s.work.as_ref().map(|work| work.parked()))
        });
        (s.attempts.len() - 1, entry, s.log.clone(), treatment, held)
    };
    let status = match (treatment, held) {
        (Treatment::Hold, Some((released, parked))) => {
            let status = released.await.unwrap_or(503);
            drop(parked);
            status
        }
        (Treatment::Answer(status), _) => status,
        (Treatment::Delay(time), _) => {
            pause(time).await;
            200
        }
        (Treatment::Cut | Treatment::Hold, _) => {
            log.answered(entry, "(the connection is closed)");
            return cut(http);
        }
    };
    lock(state).attempts[index].answered = status;
    log.answered(entry, &status.to_string());
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).json(json!({}))
}

/// A path and query without the parameter `access_token`.
fn without_token(path: &str) -> String {
    let Some((path, query)) = path.split_once('?') else {
        return path.to_owned();
    };
    let pairs = query
        .split('&')
        .filter(|pair| !pair.starts_with("access_token="));
    let query = pairs.collect::<Vec<_>>().join("&");
    match query.as_str() {
        "" => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

async fn question(state: &Mutex<State>, http: &HttpRequest, body: String) -> HttpResponse {
    let path = http.uri().path_and_query().map_or("", |p| p.as_str());
    // Older homeservers send the token in the query too.
    let path = without_token(path);
    let path = path
        .replace("%40", "@")
        .replace("%3A", ":")
        .replace("%23", "#")
        .replace("%21", "!");
    let line = format!("{} {path}", http.method());
    let (log, entry, rule, work) = {
        let s = lock(state);
        let entry = s.log.sends(&s.name, line.clone(), &body);
        let rule = s
            .rules
            .iter()
            .rev()
            .find(|rule| fits(&rule.to, &line))
            .cloned();
        (s.log.clone(), entry, rule, s.work.clone())
    };
    let (status, answer) = match rule {
        Some(rule) => {
            for request in rule.first {
                let body = request.body.as_ref();
                // The record shows an answer that is no success.
                let _ = request
                    .client
                    .ask(&request.method, &request.path, body)
                    .await;
                // Whether what it causes is sent together with what follows must not depend on the machine.
                if let Some(work) = &work {
                    let _held = work.parked();
                    work.settled().await;
                }
            }
            (rule.status, rule.body)
        }
        None if path.ends_with("/ping") => (200, json!({})),
        None => (404, json!({"errcode": "M_NOT_FOUND"})),
    };
    log.answered(entry, &format!("{status} {answer}"));
    lock(state).asked.push((line, body));
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    HttpResponse::build(status).json(answer)
}

/// Waits in real time.
#[expect(
    clippy::disallowed_methods,
    reason = "a scenario waits for a server whose clock it does not know"
)]
pub async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_of_proposals_have_their_later_names_too() {
        let attempt = Attempt {
            path: String::new(),
            body: json!({"events": [], "org.example.msc1234.things": [1]}).to_string(),
            answered: 0,
        };
        assert_eq!(attempt.sections()["things"], json!([1]));
        assert_eq!(without_token("/users/@a:b?access_token=x"), "/users/@a:b");
        assert_eq!(without_token("/p?a=1&access_token=x&b"), "/p?a=1&b");
        assert!(fits("GET /users/*", "GET /users/@a:b") && !fits("GET /users/*", "GET /users/"));
    }
}
