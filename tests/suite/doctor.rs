//! The doctor examines registrations, and appservices that do not answer as the specification requires.

use std::net::TcpListener;
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::{Value, json};
use tests::Stage;
use tests::process::Closed;
use understudy::doctor::{
    DoctorReport, ExaminationContext, Finding, RegistrationFile, examine, frameworks,
};

const HS_TOKEN: &str = "irc-hs-token-0123456789";

/// Start an appservice that answers with the status that this function returns. Its arguments are method, path, whether the token
/// is right, and the body.
fn service(answer: fn(&str, &str, bool, &[u8]) -> u16) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = HttpServer::new(move || {
        App::new().default_service(web::to(
            move |http: HttpRequest, body: web::Bytes| async move {
                let token = http.headers().get("authorization");
                let right = token.is_some_and(|t| t == format!("Bearer {HS_TOKEN}").as_str());
                let status = answer(http.method().as_str(), http.path(), right, &body);
                let status = actix_web::http::StatusCode::from_u16(status).expect("a status");
                HttpResponse::build(status).json(json!({}))
            },
        ))
    })
    .workers(1)
    .disable_signals()
    .listen(listener)
    .expect("it listens")
    .run();
    actix_rt::spawn(server);
    url
}

/// The statuses of an appservice that follows the specification.
fn healthy(method: &str, path: &str, right: bool, body: &[u8]) -> u16 {
    match (method, path.strip_prefix("/_matrix/app/v1/")) {
        _ if !right => 403,
        ("POST", Some("ping")) => 200,
        ("PUT", Some(path)) if path.starts_with("transactions/") => {
            let events =
                serde_json::from_slice::<Value>(body).map(|body| body["events"].is_array());
            if events.unwrap_or(false) { 200 } else { 400 }
        }
        _ => 404,
    }
}

fn registration(url: &str) -> RegistrationFile {
    let keys = json!({
        "id": "irc", "url": url, "as_token": "irc-as-token-0123456789", "hs_token": HS_TOKEN,
        "sender_localpart": "ircbot", "namespaces": {"users": [{"exclusive": true, "regex": "@irc_.*"}]},
        "receive_ephemeral": true, "de.sorunome.msc2409.push_ephemeral": true, "org.matrix.msc3202": true,
    });
    RegistrationFile {
        name: "irc.yaml".to_owned(),
        text: Ok(keys.to_string()),
    }
}

async fn visited(url: &str, timeout: Duration) -> Vec<Finding> {
    examine(
        vec![registration(url)],
        ExaminationContext::default(),
        Some(timeout),
    )
    .await
}

fn codes(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|f| f.code).collect()
}

#[actix_web::test]
async fn the_doctor_finds_services_that_answer_wrongly() {
    type Answer = fn(&str, &str, bool, &[u8]) -> u16;
    let cases: &[(Answer, &[&str])] = &[
        (healthy, &[]),
        (
            |_, _, _, _| 200,
            &["token-unchecked", "not-read", "answers-anything"],
        ),
        (|_, _, _, _| 500, &["ping-failed", "token-unclear"]),
        (|_, _, _, _| 404, &["no-ping", "token-unclear"]),
        (|_, _, _, _| 401, &["token-refused"]),
        (|_, _, _, _| 302, &["ping-failed", "token-unclear"]),
        // Accepts transactions without a valid token.
        (
            |method, path, _, body| healthy(method, path, true, body),
            &["token-unchecked"],
        ),
        // Checks the token, and not the body.
        (
            |method, path, right, body| {
                if method == "PUT" && right {
                    200
                } else {
                    healthy(method, path, right, body)
                }
            },
            &["not-read"],
        ),
        // Checks the token of pings only.
        (
            |method, path, right, body| healthy(method, path, right || method == "PUT", body),
            &["token-unchecked"],
        ),
    ];
    for (at, (answer, expected)) in cases.iter().enumerate() {
        let found = visited(&service(*answer), Duration::from_secs(20)).await;
        let mut found = codes(&found);
        let mut expected = expected.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "case {at}");
    }
}

#[actix_web::test]
async fn the_doctor_finds_services_that_do_not_answer() {
    let closed = Closed::new();
    let found = visited(
        &format!("http://{}", closed.address()),
        Duration::from_secs(20),
    )
    .await;
    assert_eq!(codes(&found), ["no-connection"]);
    assert!(found[0].what.contains("Connection refused"), "{found:?}");
    // The operating system accepts the connection, and no program reads from it.
    let deaf = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", deaf.local_addr().expect("an address"));
    let found = visited(&url, Duration::from_millis(200)).await;
    assert_eq!(codes(&found), ["no-answer"]);
    let found = visited("http://[", Duration::from_secs(20)).await;
    assert_eq!(codes(&found), ["no-connection"]);
}

#[actix_web::test]
async fn the_doctor_changes_nothing_in_a_healthy_service() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let text = std::fs::read_to_string(stage.registration_file("irc")).expect("the file");
    let file = RegistrationFile {
        name: "irc.yaml".to_owned(),
        text: Ok(text),
    };
    examine(
        vec![file],
        ExaminationContext::default(),
        Some(Duration::from_secs(20)),
    )
    .await;
    let asked: Vec<_> = irc.receiver.received();
    for request in &asked {
        let nothing = request.path.ends_with("/ping")
            || request
                .path
                .starts_with("/_matrix/app/v1/transactions/understudy-doctor-")
            || request.path == "/_matrix/app/v1/understudy-doctor";
        assert!(nothing, "{request:?}");
        if request.path.contains("wrong-token") {
            assert_eq!(
                (request.body.as_str(), request.answered),
                (r#"{"events":[]}"#, 403)
            );
        }
    }
    assert_eq!(asked.len(), 4);
}

/// Compare a printed report with its snapshot.
fn printed(name: &str, report: &str) {
    let mut settings = insta::Settings::new();
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"));
    settings.bind(|| insta::assert_snapshot!(name, report));
}

const BAD: &str = r#"
id: hook
url: http://127.0.0.1:1
as_token: secret
hs_token: secret
sender_localpart: irc_hook
push_ephemeral: true
org.matrix.msc3202: true
namespaces:
  users:
    - exclusive: true
      regex: '@.*_bot:example.org'
    - exclusive: true
      regex: '@hook_.*:example.com'
    - exclusive: false
      regex: '@.*'
"#;

const GOOD: &str = r"
id: irc
url: http://127.0.0.1:29300
as_token: irc-as-token-0123456789
hs_token: irc-hs-token-0123456789
sender_localpart: ircbot
receive_ephemeral: true
de.sorunome.msc2409.push_ephemeral: true
org.matrix.msc3202: true
namespaces:
  users:
    - exclusive: true
      regex: '@irc_.*:example\.org'
";

fn file(name: &str, text: &str) -> RegistrationFile {
    RegistrationFile {
        name: name.to_owned(),
        text: Ok(text.to_owned()),
    }
}

#[actix_web::test]
async fn what_the_doctor_prints() {
    let context = ExaminationContext {
        server_name: Some("example.org".to_owned()),
        framework: frameworks::named("matrix-bot-sdk"),
        known_keys: understudy::mscs::registration_keys(),
        ..ExaminationContext::default()
    };
    let good = GOOD.replace("http://127.0.0.1:29300", &service(healthy));
    let registrations = vec![file("irc.yaml", &good), file("hook.yaml", BAD)];
    let names = ["irc.yaml".to_owned(), "hook.yaml".to_owned()];
    let found = examine(registrations, context, Some(Duration::from_secs(20))).await;
    printed(
        "what_the_doctor_prints",
        &DoctorReport::new(found).text(&names),
    );
}

#[actix_web::test]
async fn a_registration_is_examined_over_http() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let anybody = irc.bot.anonymous();
    stage
        .step("beside the services in force, and its service is not asked")
        .await;
    let text = json!({
        "id": "hook", "url": "http://127.0.0.1:1", "as_token": "hook-as-token-0123456789", "hs_token": "hook-hs-token-0123456789",
        "sender_localpart": "hookbot", "receive_ephemeral": true, "org.matrix.msc3202": true,
        "namespaces": {"users": [{"exclusive": true, "regex": "@irc_.*"}]},
    });
    let path = "/_understudy/doctor?offline=true&framework=mautrix-go";
    let report = anybody.post(path, &text).await.ok();
    assert_eq!(report["findings"][0]["code"], "overlap");
    stage
        .step("the registration that is in force already: its service is asked")
        .await;
    let mine: Value = serde_json::from_str(
        &std::fs::read_to_string(stage.registration_file("irc")).expect("the file"),
    )
    .expect("JSON");
    // The URL differs in each run, so this request is left out of the transcript.
    let report = anybody
        .aside()
        .post("/_understudy/doctor?framework=mautrix-go", &mine)
        .await
        .ok();
    assert_eq!(report["findings"][0]["code"], "not-read", "{report}");
    assert_eq!(report["dialect"]["service"], "irc", "{report}");
    stage
        .transcript("a_registration_is_examined_over_http")
        .await;

    let refused = |path: &'static str, body: Value| {
        let anybody = anybody.aside();
        async move { anybody.post(path, &body).await }
    };
    let itself = json!({"id": "irc"});
    refused("/_understudy/doctor?framework=none", itself.clone())
        .await
        .is_refused(400, "M_INVALID_PARAM");
    refused("/_understudy/doctor?offline=maybe", itself)
        .await
        .is_refused(400, "M_INVALID_PARAM");
    let large = json!({"registration": "x".repeat(2 << 20)});
    refused("/_understudy/doctor", large)
        .await
        .is_refused(413, "M_TOO_LARGE");
    for broken in ["", "id: [", "[1]", "id: irc"] {
        let broken = json!({"registration": broken});
        let report = refused("/_understudy/doctor", broken).await.ok();
        assert_eq!(report["findings"][0]["code"], "unreadable", "{report}");
    }
}

#[actix_web::test]
async fn only_a_development_server_has_a_doctor() {
    let stage = Stage::with(&[], |options| options.dev = false).await;
    let alice = stage.person("alice", "LAPTOP").await;
    for path in [
        "/_understudy/doctor",
        "/_understudy/appservices/irc/dialects",
    ] {
        alice
            .post(path, &json!({}))
            .await
            .is_refused(404, "M_UNRECOGNIZED");
    }
}

#[actix_web::test]
async fn the_example_registration_is_clean() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docker/registration.example.yaml"
    );
    let context = ExaminationContext {
        server_name: Some("example.org".to_owned()),
        known_keys: understudy::mscs::registration_keys(),
        ..ExaminationContext::default()
    };
    let report = DoctorReport::new(
        examine(vec![RegistrationFile::read(path.as_ref())], context, None).await,
    );
    assert_eq!(
        (report.errors, report.warnings),
        (0, 0),
        "{}",
        report.text(&[path.to_owned()])
    );
}
