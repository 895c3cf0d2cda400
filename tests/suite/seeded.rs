//! A development server with a seed does the same again: the same requests, in order, get the same answers and cause the same
//! transactions, byte for byte.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tests::bridge::{Receiver, pause};
use tests::transcript::Log;
use tests::{Person, process};

/// A server with a seed, and everything that it answered and sent.
struct Seeded {
    child: Child,
    ready: Value,
    bridge: Receiver,
    said: Vec<String>,
}

impl Drop for Seeded {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Seeded {
    fn start(seed: &[&str]) -> Seeded {
        let mut child = Command::new(process::binary())
            .args(["dev", "--port", "0", "--print-json", "--exit-with-parent"])
            .args(["--database", ":memory:", "--log", "error"])
            .args(seed)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let out = child.stdout.take().expect("its output");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let ready: Value = serde_json::from_str(&line).expect("JSON");
        let said = vec![ready["users"].to_string()];
        Seeded {
            child,
            ready,
            bridge: Receiver::start("irc", "hs", None, Log::default()),
            said,
        }
    }

    fn text(&self, pointer: &str) -> &str {
        self.ready
            .pointer(pointer)
            .and_then(Value::as_str)
            .expect("text")
    }

    fn client(&self, token: &str) -> Person {
        Person::at(self.text("/base_url"), "@alice:localhost", None, token)
    }

    /// Make a request, and wait until the server has done everything that follows from it.
    async fn ask(&mut self, token: &str, method: &str, path: &str, body: Value) -> Value {
        let client = self.client(token);
        let body = (method != "GET").then_some(body);
        let answer = client.ask(method, path, body.as_ref()).await;
        let (mut last, mut still) = (Value::Null, 0);
        while still < 5 {
            pause().await;
            let messages = client.get("/_understudy/messages").await.ok();
            let now = messages.as_array().and_then(|all| all.last().cloned());
            let now = now.map_or(Value::Null, |message| message["number"].clone());
            still = if now == last { still + 1 } else { 0 };
            last = now;
        }
        self.said.push(format!(
            "{method} {path}: {} {}",
            answer.status, answer.body
        ));
        answer.body
    }

    /// The answers, and the requests that the bridge received.
    fn all(&self) -> String {
        let of = |r: tests::Received| format!("{} {} {}", r.method, r.path, r.body);
        let sent = self.bridge.received().into_iter().map(of);
        let all: Vec<String> = self.said.iter().cloned().chain(sent).collect();
        all.join("\n")
    }
}

/// A conversation that uses whatever draws a random number or reads a clock.
async fn conversation(seed: &[&str]) -> String {
    let mut server = Seeded::start(seed);
    let alice = server.text("/users/0/access_token").to_owned();
    let registration = json!({
        "id": "irc", "url": server.bridge.url, "as_token": "as", "hs_token": "hs", "sender_localpart": "ircbot",
        "namespaces": {"users": [{"exclusive": true, "regex": "@irc_.*"}]},
        "receive_ephemeral": true, "org.matrix.msc3202": true, "rate_limited": false,
    });
    let folder = std::path::Path::new(server.text("/appservices")).to_owned();
    std::fs::write(folder.join("irc.yaml"), registration.to_string()).expect("written");
    server
        .ask("", "POST", "/_understudy/appservices/reload", json!({}))
        .await;

    let register = json!({"username": "carol", "password": "carol-password"});
    let challenge = server.ask("", "POST", "/register", register.clone()).await;
    let mut register = register;
    register["auth"] = json!({"type": "m.login.dummy", "session": challenge["session"]});
    let carol = server.ask("", "POST", "/register", register).await;
    let carol = carol["access_token"].as_str().expect("a token").to_owned();
    let login = json!({
        "type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": "alice-password",
    });
    server.ask("", "POST", "/login", login).await;
    let ghost = json!({"type": "m.login.application_service", "username": "irc_bob"});
    server.ask("as", "POST", "/register", ghost).await;

    let create =
        json!({"preset": "private_chat", "invite": ["@ircbot:localhost", "@carol:localhost"]});
    let room = server.ask(&alice, "POST", "/createRoom", create).await;
    let room = room["room_id"].as_str().expect("a room").to_owned();
    for token in ["as", &carol] {
        server
            .ask(token, "POST", &format!("/join/{room}"), json!({}))
            .await;
    }
    server.bridge.at_once(Some(500));
    let message = json!({"msgtype": "m.text", "body": "hello"});
    let send = format!("/rooms/{room}/send/m.room.message/1");
    server.ask(&alice, "PUT", &send, message).await;
    server.bridge.at_once(Some(200));
    for _ in 0..3 {
        server
            .ask(
                "",
                "POST",
                "/_understudy/clock/advance",
                json!({"ms": 1_000}),
            )
            .await;
    }
    server
        .ask(
            &carol,
            "PUT",
            &format!("/rooms/{room}/typing/@carol:localhost"),
            json!({"typing": true, "timeout": 9_000}),
        )
        .await;
    let keys = json!({"one_time_keys": {"signed_curve25519:A": {"key": "k", "signatures": {}}}});
    server.ask(&alice, "POST", "/keys/upload", keys).await;
    let claim =
        json!({"one_time_keys": {"@alice:localhost": {"ALICEDEVICE": "signed_curve25519"}}});
    server.ask(&carol, "POST", "/keys/claim", claim).await;
    let to_device = json!({"messages": {"@irc_bob:localhost": {"*": {"a": 1}}, "@alice:localhost": {"*": {"a": 2}}}});
    server
        .ask(&carol, "PUT", "/sendToDevice/m.example/1", to_device)
        .await;
    let backup = json!({"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "p", "signatures": {}}});
    server
        .ask(&alice, "POST", "/room_keys/version", backup)
        .await;
    server
        .ask(
            &alice,
            "POST",
            "/user/@alice:localhost/filter",
            json!({"room": {"timeline": {"limit": 5}}}),
        )
        .await;
    server
        .ask("", "POST", "/_understudy/snapshot", json!({}))
        .await;
    server
        .ask(&carol, "POST", &format!("/rooms/{room}/leave"), json!({}))
        .await;
    server
        .ask("", "POST", "/_understudy/restore", json!({"id": "1"}))
        .await;
    server
        .ask(&carol, "POST", &format!("/rooms/{room}/leave"), json!({}))
        .await;
    server.ask(&alice, "GET", "/sync", json!({})).await;
    server
        .ask(
            &alice,
            "GET",
            &format!("/rooms/{room}/messages?dir=b"),
            json!({}),
        )
        .await;
    server
        .ask(&alice, "DELETE", "/devices/ALICEDEVICE", json!({}))
        .await;
    server
        .ask("", "GET", "/_understudy/appservices", json!({}))
        .await;
    server.all()
}

#[actix_web::test]
async fn the_same_requests_to_a_seeded_server_have_the_same_answers_and_transactions() {
    let first = conversation(&["--seed", "7"]).await;
    let again = conversation(&["--seed", "7"]).await;
    for (a, b) in first.lines().zip(again.lines()) {
        assert_eq!(a, b);
    }
    assert_eq!(first.lines().count(), again.lines().count());
    assert!(first.lines().count() > 30 && first.contains("/transactions/"));
    let refused = first
        .lines()
        .filter(|line| line.contains(": 4") || line.contains(": 5"));
    let refused: Vec<&str> = refused.collect();
    assert!(
        refused.len() <= 2,
        "the conversation takes place: {refused:#?}"
    );
    let other = conversation(&[]).await;
    assert_ne!(first, other, "without a seed they differ");
}
