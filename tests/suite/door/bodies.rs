//! Request bodies: they are read after the headers and the token were checked, up to a size and at a minimum speed.

use std::time::Duration;

use actix_rt::net::TcpStream;
use serde_json::{Value, json};
use tests::{Answer, Person, Stage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TO_DEVICE: &str = "/_matrix/client/v3/sendToDevice/m.x/1";

/// A connection on which the test writes a request byte by byte.
struct Sender(TcpStream);

impl Sender {
    async fn connect(stage: &Stage) -> Sender {
        let address = stage.base().trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(address).await;
        Sender(stream.expect("the server accepts"))
    }

    /// Send the head of a request. `rest` holds more header lines.
    async fn begins(&mut self, method: &str, path: &str, token: &str, rest: &str) {
        let token = match token {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{token}{rest}\r\n\r\n");
        self.sends(head.as_bytes()).await;
    }

    async fn sends(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("the server reads");
    }

    /// Read the answer: status and body, and the head as text.
    async fn answer(&mut self) -> (Answer, String) {
        let mut all = Vec::new();
        let mut part = [0; 4096];
        loop {
            let read = self.0.read(&mut part).await.expect("the server answers");
            all.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&all).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let body: Option<Value> = serde_json::from_str(body).ok();
                if body.is_some() || read == 0 {
                    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
                    let answer = Answer {
                        status: status.expect("a status"),
                        body: body.unwrap_or(Value::Null),
                    };
                    return (answer, head.to_lowercase());
                }
            }
            assert!(read > 0, "the connection ended: {text}");
        }
    }
}

#[actix_web::test]
async fn the_body_of_a_request_that_is_refused_is_not_waited_for() {
    let stage = Stage::new().await;
    let large = format!("Content-Length: {}", 8 << 20);
    let cases = [
        ("PUT", TO_DEVICE, "", &*large, 401, "M_MISSING_TOKEN"),
        ("PUT", TO_DEVICE, "guess", &large, 401, "M_UNKNOWN_TOKEN"),
        (
            "PUT",
            TO_DEVICE,
            "",
            "Transfer-Encoding: chunked",
            401,
            "M_MISSING_TOKEN",
        ),
        (
            "PUT",
            "/_matrix/client/v3/nothing",
            "",
            &large,
            404,
            "M_UNRECOGNIZED",
        ),
        (
            "PUT",
            "/_matrix/client/v3/login",
            "",
            &large,
            405,
            "M_UNRECOGNIZED",
        ),
        // Without a token, only small bodies are accepted.
        (
            "POST",
            "/_matrix/client/v3/login",
            "",
            "Content-Length: 65537",
            413,
            "M_TOO_LARGE",
        ),
        (
            "POST",
            "/_matrix/client/v3/register",
            "",
            &large,
            413,
            "M_TOO_LARGE",
        ),
    ];
    for (method, path, token, rest, status, code) in cases {
        // Only the head is sent. The connection stays open.
        let mut sender = Sender::connect(&stage).await;
        sender.begins(method, path, token, rest).await;
        let (answer, head) = sender.answer().await;
        answer.is_refused(status, code);
        // Otherwise the server would have to read and discard the rest of the body.
        assert!(head.contains("connection: close"), "{rest}: {head}");
    }
}

#[actix_web::test]
async fn many_large_bodies_without_a_token_are_refused_one_by_one() {
    let stage = Stage::new().await;
    let mut senders = Vec::new();
    for _ in 0..50 {
        let mut sender = Sender::connect(&stage).await;
        let rest = format!("Content-Length: {}", 8 << 20);
        sender.begins("PUT", TO_DEVICE, "", &rest).await;
        sender.sends(&[b' '; 4096]).await;
        senders.push(sender);
    }
    for mut sender in senders {
        sender.answer().await.0.is_refused(401, "M_MISSING_TOKEN");
    }
    assert_eq!(stage.app().inside(), 0);
}

/// Clause: cs.api.too-large
#[actix_web::test]
async fn each_endpoint_has_a_limit_for_its_body_however_it_is_sent() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let device = "/_matrix/client/v3/devices/LAPTOP";
    let rest = format!("Content-Length: {}", (256 << 10) + 1);
    let mut sender = Sender::connect(&stage).await;
    sender.begins("PUT", device, alice.token(), &rest).await;
    sender.answer().await.0.is_refused(413, "M_TOO_LARGE");
    // With chunked encoding, the length is not known in advance.
    let mut sender = Sender::connect(&stage).await;
    let chunked = "Transfer-Encoding: chunked";
    sender.begins("PUT", device, alice.token(), chunked).await;
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..5 {
        sender.sends(chunk.as_bytes()).await;
    }
    sender.answer().await.0.is_refused(413, "M_TOO_LARGE");
    // Within the limit, a chunked body is accepted.
    let mut sender = Sender::connect(&stage).await;
    sender.begins("PUT", device, alice.token(), chunked).await;
    let body = json!({"display_name": "new"}).to_string();
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    sender.sends(chunk.as_bytes()).await;
    assert_eq!(sender.answer().await.0.status, 200);
    let keys = json!({"one_time_keys": {}, "padding": "x".repeat(1 << 20)});
    alice.post("/keys/upload", &keys).await.ok();
    let huge = alice.raw("PUT", TO_DEVICE, vec![b' '; 9 << 20]).await;
    huge.is_refused(413, "M_TOO_LARGE");
    // Where an endpoint takes no body, none is read.
    let mut sender = Sender::connect(&stage).await;
    let whoami = "/_matrix/client/v3/account/whoami";
    sender.begins("GET", whoami, alice.token(), &rest).await;
    assert_eq!(sender.answer().await.0.status, 200);
}

#[actix_web::test]
async fn a_slow_body_times_out_and_does_not_count_against_the_request_limit() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let mut sender = Sender::connect(&stage).await;
    sender
        .begins("PUT", TO_DEVICE, alice.token(), "Content-Length: 100000")
        .await;
    sender.sends(br#"{"messages""#).await;
    tests::until("the request has come in", || is_waiting(&stage)).await;
    assert_eq!(
        stage.app().inside(),
        0,
        "a request that waits for its body does not count against the request limit"
    );
    stage.advance(Duration::from_secs(9)).await;
    alice.get("/account/whoami").await.ok();
    stage.advance(Duration::from_secs(2)).await;
    let (answer, head) = sender.answer().await;
    assert_eq!(answer.status, 408, "{answer:?}");
    assert!(head.contains("connection: close"), "{head}");
}

/// Whether the server waits for the body of a request.
fn is_waiting(stage: &Stage) -> bool {
    stage.limits().bodies_under_way() > 0
}

#[actix_web::test]
async fn a_body_that_ends_before_its_length_changes_nothing() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let path = "/_matrix/client/v3/devices/LAPTOP";
    let mut sender = Sender::connect(&stage).await;
    sender
        .begins("PUT", path, alice.token(), "Content-Length: 1000")
        .await;
    sender.sends(br#"{"display_name": "half"}"#).await;
    tests::until("the request has come in", || is_waiting(&stage)).await;
    drop(sender);
    tests::until("it is let go of", || !is_waiting(&stage)).await;
    stage.quiet().await;
    let device = alice.get("/devices/LAPTOP").await.ok();
    assert!(device["display_name"].is_null(), "{device}");
}

#[actix_web::test]
async fn the_bodies_of_one_caller_have_a_budget_and_others_are_served() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let bob = stage.person("bob", "PHONE").await;
    let mut senders = Vec::new();
    for _ in 0..2 {
        let mut sender = Sender::connect(&stage).await;
        let rest = format!("Content-Length: {}", 8 << 20);
        sender.begins("PUT", TO_DEVICE, alice.token(), &rest).await;
        sender.sends(&vec![b' '; (8 << 20) - 1]).await;
        senders.push(sender);
    }
    tests::until("all has come in", || {
        stage.limits().bodies_under_way() == (16 << 20) - 2
    })
    .await;
    let put = async |somebody: &Person| {
        let body = json!({"display_name": "new"});
        somebody.put("/devices/PHONE", &body).await
    };
    let refused = put(&alice).await;
    refused.is_refused(503, "M_LIMIT_EXCEEDED");
    assert_eq!(refused.body["retry_after_ms"], 1000);
    put(&bob).await.ok();
    drop(senders);
    tests::until("they are let go of", || !is_waiting(&stage)).await;
    put(&alice).await.is_refused(404, "M_NOT_FOUND");
}
