//! What the workbench makes of homeservers that answer otherwise than expected. Each is a few routes in the test's process.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::{Value, json};
use tests::process::binary;
use workbench::remote::Remote;
use workbench::{Outcome, PASSWORD, Scenario, Verdict, run};

/// A homeserver that answers like this.
fn served(answer: impl Fn(&HttpRequest) -> HttpResponse + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = Arc::new(answer);
    let server = HttpServer::new(move || {
        let answer = Arc::clone(&answer);
        App::new().default_service(web::to(move |http: HttpRequest| {
            let answer = answer(&http);
            async move { answer }
        }))
    });
    let server = server.workers(1).disable_signals().listen(listener);
    actix_rt::spawn(server.expect("it listens").run());
    base
}

fn ok(body: &Value) -> HttpResponse {
    HttpResponse::Ok().json(body)
}

async fn played(base: &str, head: &str, steps: &str, password: &str) -> Outcome {
    let text = format!("title: x\npeople: {{alice: {{}}}}\n{head}steps:\n{steps}");
    let scenario = Scenario::parse(Path::new("x.yaml"), &text).expect("a scenario");
    let remote = Remote::find(base, &[], Some("test")).await;
    run(&scenario, &remote.expect("it answers"), password).await
}

/// The token of every login.
const TOKEN: &str = "syt_token";

/// A homeserver with closed registration, whose messages to a device arrive one by one: with the second `/sync`, and with the third.
/// It answers the same `/sync` always alike.
fn slow() -> String {
    let syncs = AtomicUsize::new(0);
    let cache: Mutex<BTreeMap<String, Value>> = Mutex::default();
    served(move |http| match http.path() {
        "/_matrix/client/versions" => {
            ok(&json!({"versions": ["v1.1"], "unstable_features": {"org.x": true, "org.y": false}}))
        }
        "/_matrix/client/v3/login" => {
            ok(&json!({"user_id": "@alice:test", "device_id": "ALICE", "access_token": TOKEN}))
        }
        "/_matrix/client/v3/sync" => {
            let query = http.query_string();
            if let Some(answer) = cache.lock().expect("a cache").get(query) {
                return ok(answer);
            }
            let nth = syncs.fetch_add(1, Ordering::SeqCst);
            // A position acknowledges the messages before it.
            let since = query.split("since=s").nth(1);
            let since = since.map_or(0, |since| since.parse().unwrap_or(0));
            let here: Vec<Value> = (since..nth.min(2))
                .map(|n| json!({"content": {"n": n}}))
                .collect();
            let answer =
                json!({"next_batch": format!("s{}", nth.min(2)), "to_device": {"events": here}});
            cache
                .lock()
                .expect("a cache")
                .insert(query.to_owned(), answer.clone());
            ok(&answer)
        }
        _ => HttpResponse::Forbidden().json(json!({"errcode": "M_FORBIDDEN"})),
    })
}

#[actix_web::test]
async fn a_sync_that_looks_again_finds_what_came_one_by_one() {
    let both = "expect: {to_device: {events: [{content: {n: 0}}, {content: {n: 1}}]}}";
    for begin in ["", "from_start: true, "] {
        let steps = format!("- alice: syncs\n- sync: {{by: alice, {begin}{both}}}\n");
        let outcome = played(&slow(), "", &steps, PASSWORD).await;
        assert_eq!(outcome.verdict, Verdict::Passed);
        // The next step goes on from there.
        let steps =
            format!("{steps}- sync: {{by: alice, expect: {{to_device: {{events: []}}}}}}\n");
        let outcome = played(&slow(), "", &steps, PASSWORD).await;
        assert_eq!(outcome.verdict, Verdict::Passed);
    }
}

#[actix_web::test]
async fn passwords_and_tokens_of_people_elsewhere_are_not_printed() {
    let password = "correct horse";
    let steps = "\
- alice: logs in on TABLET
- request: {by: alice, post: /login, body: {type: m.x}, expect: {body: {access_token: other}}}
";
    let outcome = played(&slow(), "", steps, password).await;
    let Verdict::Failed(why) = &outcome.verdict else {
        panic!("{:?}", outcome.verdict);
    };
    assert!(why.contains("came      \"…\""), "{why}");
    assert!(
        outcome.transcript.contains("\"password\": \"…\""),
        "{}",
        outcome.transcript
    );
    for text in [why, &outcome.transcript] {
        assert!(!text.contains(password) && !text.contains(TOKEN), "{text}");
    }
}

#[actix_web::test]
async fn what_a_homeserver_does_not_announce_is_skipped_with_the_reason() {
    for (needs, lacks) in [
        ("[org.x, v1.1]", None),
        ("[org.x, org.y]", Some("org.y")),
        ("[v1.2]", Some("v1.2")),
    ] {
        let head = format!("needs: {{versions: {needs}}}\n");
        let outcome = played(&slow(), &head, "- alice: syncs\n", PASSWORD).await;
        let expected = match lacks {
            None => Verdict::Passed,
            Some(name) => Verdict::Skipped(format!(
                "  x.yaml: before the first step: the server has no {name} in GET /_matrix/client/versions"
            )),
        };
        assert_eq!(outcome.verdict, expected);
    }
}

/// The exit code, and the last line that was printed.
async fn code(args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.args(args);
    let done = web::block(move || command.output())
        .await
        .expect("a thread");
    let done = done.expect("it runs");
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let last = said.lines().last().unwrap_or_default();
    (done.status.code(), last.to_owned())
}

#[actix_web::test]
async fn a_command_that_could_play_nothing_ends_with_code_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).expect("a file");
        file.to_string_lossy().into_owned()
    };
    let plain = write(
        "plain.yaml",
        "title: x\npeople: {alice: {}}\nsteps:\n- alice: syncs\n",
    );
    let irc =
        "{id: irc, url: 'http://127.0.0.1:9', as_token: a, hs_token: b, sender_localpart: irc}";
    let irc = write("irc.yaml", irc);

    // Registration is closed, and nobody can log in.
    let closed = served(|http| match http.path() {
        "/_matrix/client/versions" => ok(&json!({"versions": ["v1.1"]})),
        "/_matrix/client/v3/account/whoami" => ok(&json!({"user_id": "@irc:test"})),
        _ => HttpResponse::Forbidden().json(json!({"errcode": "M_FORBIDDEN"})),
    });
    let on = ["--server", &closed, "--registration", &irc];
    let only = ["conformance", "--only", "plain", &plain];
    let skipped = code(&[&only[..], &on].concat()).await;
    let nothing = "understudy: nothing was played: all 1 scenarios were skipped";
    assert_eq!(skipped, (Some(2), nothing.to_owned()));

    let with = ["compare", &plain, "--with", &closed];
    let compared = code(&[&with[..], &["--with-name", "test"]].concat()).await;
    let nothing = "understudy: nothing was compared: all 1 scenarios ended before their first step";
    assert_eq!(compared, (Some(2), nothing.to_owned()));
    let nameless = code(&with).await;
    let give =
        "understudy: the name of the server is needed: give --with-name or --with-registration";
    assert_eq!(nameless, (Some(2), give.to_owned()));

    let page = served(|_| {
        HttpResponse::Ok()
            .content_type("text/html")
            .body("<h1>\nIt works</h1>")
    });
    let none = code(&["conformance", "--server", &page, "--registration", &irc]).await;
    let why = format!(
        "understudy: {page} is no homeserver: GET /_matrix/client/versions has no list `versions`: 200 <h1> It works</h1>"
    );
    assert_eq!(none, (Some(2), why));
}
