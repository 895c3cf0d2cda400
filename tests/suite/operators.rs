//! What operators look at: metrics, health, and log lines that follow a request.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use schema::faults::{Fault, Faults, Point};
use serde_json::{Value, json};
use tests::bridge::Receiver;
use tests::person::client;
use tests::{Stage, process};
use understudy::http::limits::RateLimit;
use understudy::mscs;

use crate::tidy::root;

/// A server with an address for operators.
async fn stage_with(change: impl FnOnce(&mut understudy::serve::Options)) -> Stage {
    Stage::with(&mscs::by_default(), |options| {
        options.metrics = Some(([127, 0, 0, 1], 0).into());
        change(options);
    })
    .await
}

async fn get(url: &str) -> (u16, String) {
    let answer = client().get(url).send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.text().await.expect("text"))
}

/// The metrics as an operator scrapes them.
async fn metrics(stage: &Stage) -> String {
    let address = stage.metrics().expect("an address for operators");
    let (status, text) = get(&format!("http://{address}/metrics")).await;
    assert_eq!(status, 200);
    assert!(text.ends_with("# EOF\n"), "{text}");
    text
}

fn value<'a>(metrics: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = metrics.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

/// The metrics that the book lists: name and type.
fn listed() -> BTreeMap<String, String> {
    let page = std::fs::read_to_string(root().join("spec-notes/src/operators.md"));
    let page = page.expect("the chapter");
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| `understudy_"));
    let row = |line: &str| {
        let mut cells = line.split('|').skip(1).map(str::trim);
        let name = cells.next().unwrap_or_default().trim_matches('`');
        let name = name.strip_suffix("_total").unwrap_or(name);
        (name.to_owned(), cells.next().unwrap_or_default().to_owned())
    };
    rows.map(row).collect()
}

#[actix_web::test]
async fn the_book_lists_every_metric() {
    let stage = stage_with(|options| {
        options.door.claim_limit = Some(RateLimit {
            per_second: 0.1,
            burst: 1.0,
        });
    })
    .await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    let claim = json!({"one_time_keys": {"@irc_bob:test": {"GHOST": "signed_curve25519"}}});
    for _ in 0..3 {
        alice.post("/keys/claim", &claim).await;
    }
    stage.quiet().await;
    irc.receiver.at_once(Some(500));
    let body = json!({"messages": {"@irc_bob:test": {"GHOST": {}}}});
    alice.put("/sendToDevice/m.example/1", &body).await.ok();
    stage.quiet().await;

    let text = metrics(&stage).await;
    let types = text.lines().filter_map(|line| {
        let (name, kind) = line.strip_prefix("# TYPE ")?.split_once(' ')?;
        Some((name.to_owned(), kind.to_owned()))
    });
    assert_eq!(types.collect::<BTreeMap<_, _>>(), listed());

    let sent = "understudy_owed{service=\"irc\",kind=\"to_device\",state=\"sent\"}";
    let attempts =
        |outcome| format!("understudy_attempts_total{{service=\"irc\",outcome=\"{outcome}\"}}");
    assert_eq!(value(&text, sent), Some("1"), "{text}");
    assert_eq!(value(&text, &attempts("refused")), Some("1"));
    assert_eq!(
        value(&text, "understudy_limited_total{limit=\"claims\"}"),
        Some("2")
    );
    assert_eq!(value(&text, "understudy_request_places"), Some("1024"));
    assert_eq!(
        value(&text, "understudy_mailbox{actor=\"rooms\"}"),
        Some("0")
    );
    let put = "understudy_request_seconds_count{method=\"PUT\",route=\"/_matrix/client/v3/sendToDevice/{event_type}/{txn_id}\",status=\"200\"}";
    assert_eq!(value(&text, put), Some("1"), "{text}");
    let before = value(&text, "understudy_commit_seconds_count").map(str::to_owned);
    assert!(before.as_ref().is_some_and(|count| count != "0"));

    let acknowledged = value(&text, &attempts("acknowledged")).map(str::to_owned);

    stage.advance(Duration::from_millis(500)).await;
    let text = metrics(&stage).await;
    let age = "understudy_transaction_age_seconds{service=\"irc\"}";
    assert_eq!(value(&text, age), Some("0.5"), "{text}");
    irc.receiver.at_once(Some(200));
    stage.advance(Duration::from_secs(1)).await;
    let text = metrics(&stage).await;
    assert_eq!([value(&text, sent), value(&text, age)], [None, None]);
    let more = value(&text, &attempts("acknowledged"));
    assert_ne!(more, acknowledged.as_deref(), "{text}");
    assert_ne!(
        value(&text, "understudy_commit_seconds_count"),
        before.as_deref()
    );

    // A development server has them beside its other routes too.
    let (status, text) = get(&format!("{}/_understudy/metrics", stage.base())).await;
    assert_eq!(
        (status, value(&text, "understudy_request_places")),
        (200, Some("1024"))
    );
}

#[actix_web::test]
async fn a_server_that_cannot_write_is_not_ready() {
    let full = Arc::new(AtomicBool::new(false));
    let is_full = Arc::clone(&full);
    let faults = Faults::chosen_by(move |at| {
        match at == Point::BeforeCommit && is_full.load(Ordering::Acquire) {
            true => Fault::Full,
            false => Fault::None,
        }
    });
    let stage = stage_with(|options| options.faults = faults).await;
    let alice = stage.person("alice", "LAPTOP").await;
    let own = format!("http://{}", stage.metrics().expect("an address"));
    for base in [stage.base(), own] {
        let health = format!("{base}/_understudy/health");
        let ready = (200, json!({"live": true, "ready": true}).to_string());
        assert_eq!(get(&health).await, ready);

        full.store(true, Ordering::Release);
        let name = json!({"displayname": "Alice"});
        let path = format!("/profile/{}/displayname", alice.user_id);
        alice
            .put(&path, &name)
            .await
            .is_refused(503, "M_LIMIT_EXCEEDED");
        let (status, reason) = get(&health).await;
        assert_eq!(
            (status, reason.contains("the database cannot be written")),
            (503, true),
            "{reason}"
        );
        let live = (200, json!({"live": true}).to_string());
        assert_eq!(get(&format!("{health}/live")).await, live);

        full.store(false, Ordering::Release);
        assert_eq!(get(&health).await, ready, "no other write is needed");
        alice.put(&path, &name).await.ok();
    }
}

/// A long-lived server in a process of its own, and the lines of its log.
struct Logged {
    child: std::process::Child,
    lines: std::sync::mpsc::Receiver<Value>,
    base: String,
}

impl Logged {
    fn start(folder: &std::path::Path) -> Logged {
        let config = "server_name = \"test\"\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\nfilter = \"info,requests=debug\"\n";
        std::fs::write(folder.join("server.toml"), config).expect("written");
        let mut child = Command::new(process::binary())
            .args(["serve", "--config", "server.toml"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let (sent, lines) = std::sync::mpsc::channel();
        let log = BufReader::new(child.stderr.take().expect("its log"));
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sent.send(line).is_err() {
                    return;
                }
            }
        });
        let mut logged = Logged {
            child,
            lines,
            base: String::new(),
        };
        let ready = logged.next(|line| line["message"] == "ready");
        logged.base = format!("http://{}", ready["address"].as_str().expect("an address"));
        logged
    }

    /// The next line of this kind.
    fn next(&self, mut is_it: impl FnMut(&Value) -> bool) -> Value {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(30));
            let line = line.expect("such a line is logged");
            assert!(line.is_object(), "{line}");
            if is_it(&line) {
                return line;
            }
        }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        id: Option<&str>,
        body: &Value,
    ) -> (Value, Option<String>) {
        let method = method.parse().expect("a method");
        let url = format!("{}/_matrix/client/v3{path}", self.base);
        let request = client().request(method, url).body(body.to_string());
        let request = request.header("authorization", "Bearer as");
        let request = id
            .into_iter()
            .fold(request, |request, id| request.header("x-request-id", id));
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200);
        let id = answer.headers().get("x-request-id");
        let id = id.map(|id| id.to_str().expect("text").to_owned());
        let body = answer.text().await.expect("a body");
        (serde_json::from_str(&body).expect("JSON"), id)
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[actix_web::test]
async fn a_request_is_followed_into_its_transaction() {
    let folder = tempfile::tempdir().expect("a folder");
    let irc = Receiver::start("irc", "hs", None, tests::transcript::Log::default());
    irc.at_once(Some(200));
    let registration = json!({
        "id": "irc", "url": irc.url, "as_token": "as", "hs_token": "hs", "sender_localpart": "irc_bot",
        "rate_limited": false, "receive_ephemeral": true,
        "namespaces": {"users": [{"exclusive": true, "regex": "@irc_.*"}], "aliases": [], "rooms": []},
    });
    std::fs::create_dir(folder.path().join("appservices")).expect("a folder");
    let file = folder.path().join("appservices/irc.yaml");
    std::fs::write(file, registration.to_string()).expect("written");
    let server = Logged::start(folder.path());

    let ghost = json!({"type": "m.login.application_service", "username": "irc_bob"});
    let (ghost, none) = server.send("POST", "/register", None, &ghost).await;
    assert_eq!(none, None, "no id is answered that the client did not send");
    let device = ghost["device_id"].as_str().expect("a device");
    let body = json!({"messages": {"@irc_bob:test": {device: {"body": "ping"}}}});
    let sent = server
        .send("PUT", "/sendToDevice/m.example/1", Some("mine-1"), &body)
        .await;
    assert_eq!(sent.1.as_deref(), Some("mine-1"));

    // From the request to what it owes, to the transaction that goes up to there, to the attempt.
    let owed = server.next(|line| line["message"] == "owed" && line["request"] == "mine-1");
    assert_eq!(owed["service"], "irc");
    let (mut transaction, mut request) = (Value::Null, Value::Null);
    let attempt = server.next(|line| {
        if line["message"] == "frozen"
            && transaction.is_null()
            && line["up_to"].as_i64() >= owed["up_to"].as_i64()
        {
            transaction = line["transaction"].clone();
        }
        if line["message"] == "request" && line["request"] == "mine-1" {
            request = line.clone();
        }
        line["message"] == "attempt" && line["transaction"] == transaction
    });
    assert_eq!(
        (&attempt["outcome"], &attempt["attempt"]),
        (&json!("200"), &json!(1))
    );
    assert!(attempt["micros"].is_u64() && attempt["service"] == "irc");
    if request.is_null() {
        request = server.next(|line| line["message"] == "request" && line["request"] == "mine-1");
    }
    assert_eq!(
        (&request["status"], &request["method"]),
        (&json!(200), &json!("PUT"))
    );
    let received = irc.received();
    let id = transaction.to_string();
    let received = received.iter().find(|received| received.id() == id);
    assert!(
        received.is_some_and(|received| received.body.contains("ping")),
        "{id}"
    );

    // A request without an id of its own gets one.
    server
        .send("PUT", "/sendToDevice/m.example/2", None, &body)
        .await;
    let owed = server.next(|line| line["message"] == "owed" && line["request"] != "mine-1");
    let id = owed["request"].as_str().expect("an id").to_owned();
    let request = server.next(|line| line["message"] == "request" && line["request"] == id);
    assert!(
        request["route"]
            .as_str()
            .is_some_and(|route| route.contains("sendToDevice"))
    );
    // Of a request to no endpoint, the path is shown and not the query.
    let unknown = format!("{}/_matrix/client/v3/nothing?access_token=as", server.base);
    let answer = client().get(unknown).send().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 404);
    let request = server.next(|line| line["message"] == "request" && line["status"] == 404);
    assert_eq!(request["route"], "/_matrix/client/v3/nothing");

    // The check of the container image, against this server.
    let dockerfile = std::fs::read_to_string(root().join("docker/Dockerfile")).expect("a file");
    let (_, check) = dockerfile.split_once("HEALTHCHECK ").expect("a check");
    let (_, check) = check.split_once("CMD ").expect("a command");
    let check: Vec<String> =
        serde_json::from_str(check.lines().next().expect("a line")).expect("JSON");
    let checks = |port: &str| {
        let script = check[2].replace("8008", port);
        let ran = Command::new(&check[0])
            .args([&check[1], &script])
            .stderr(Stdio::null())
            .status();
        ran.expect("it runs").success()
    };
    let port = server.base.rsplit(':').next().expect("a port");
    assert!(checks(port) && !checks("1"));
}
