//! A website that a developer visits cannot use the development server on the loopback address.

use serde_json::{Value, json};
use tests::Stage;

use super::ask;

const MESSAGES: &str = "/_understudy/messages";
const DOCTOR: &str = "/_understudy/doctor";
const JSON: (&str, &str) = ("content-type", "application/json");

#[actix_web::test]
async fn a_website_neither_reads_nor_changes_anything_at_the_development_routes() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let site = ("origin", "https://evil.example");
    let rebound = ("host", "evil.example:8008");
    let (cross, same_site) = (
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    );
    let text = ("content-type", "text/plain");
    let reload = "/_understudy/appservices/reload";
    let advance = "/_understudy/clock/advance";
    let faults = "/_understudy/faults";
    type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], u16);
    let cases: &[Case<'_>] = &[
        ("GET", MESSAGES, &[], 200),
        ("GET", MESSAGES, &[("sec-fetch-site", "none")], 200),
        ("GET", MESSAGES, &[site], 403),
        ("GET", MESSAGES, &[("origin", "null")], 403),
        ("GET", MESSAGES, &[rebound], 403),
        (
            "GET",
            MESSAGES,
            &[rebound, ("origin", "http://evil.example:8008")],
            403,
        ),
        ("GET", MESSAGES, &[cross], 403),
        ("GET", MESSAGES, &[same_site], 403),
        ("HEAD", MESSAGES, &[cross], 403),
        ("OPTIONS", MESSAGES, &[site], 403),
        ("GET", "/_understudy/transactions", &[site], 403),
        ("GET", "/_understudy/appservices", &[site], 403),
        ("GET", "/_understudy/appservices/irc/dialects", &[site], 403),
        ("GET", "/_understudy/live", &[site], 403),
        ("GET", "/_understudy/live", &[same_site], 403),
        ("GET", "/_understudy/services", &[site], 403),
        (
            "GET",
            "/_understudy/fate?service=irc&event=$e",
            &[rebound],
            403,
        ),
        (
            "GET",
            "/_understudy/autopsy?event=$e&user=@a:test",
            &[site],
            403,
        ),
        ("GET", "/_understudy/inboxes", &[cross], 403),
        ("GET", "/_understudy/tracked", &[site], 403),
        ("GET", "/_understudy/keys", &[site], 403),
        ("GET", "/_understudy/actors", &[site], 403),
        ("POST", "/_understudy/appservices/irc/ping", &[text], 415),
        (
            "POST",
            "/_understudy/appservices/irc/ping",
            &[JSON, site],
            403,
        ),
        (
            "GET",
            "/_understudy/explain?user=@irc_a:test&device=A",
            &[site],
            403,
        ),
        ("POST", reload, &[], 415),
        ("POST", reload, &[text], 415),
        ("POST", reload, &[JSON, site], 403),
        ("POST", reload, &[JSON, rebound], 403),
        ("POST", reload, &[JSON], 200),
        ("POST", advance, &[text, site], 403),
        ("POST", advance, &[text], 415),
        ("GET", "/_understudy/clock", &[site], 403),
        ("GET", faults, &[site], 403),
        ("POST", faults, &[JSON, site], 403),
        ("POST", "/_understudy/reset", &[JSON, site], 403),
        ("POST", "/_understudy/reset", &[text], 415),
        ("POST", "/_understudy/restore", &[JSON, rebound], 403),
        ("POST", "/_understudy/snapshot", &[JSON, cross], 403),
        ("POST", "/_understudy/appservices/irc/resend", &[text], 415),
        ("POST", "/_understudy/appservices/irc/retry", &[text], 415),
        ("POST", DOCTOR, &[text], 415),
        (
            "POST",
            DOCTOR,
            &[("content-type", "application/x-www-form-urlencoded")],
            415,
        ),
        ("POST", DOCTOR, &[cross, JSON], 403),
    ];
    for (method, path, headers, status) in cases {
        let body = (*method == "POST").then(|| json!({"id": "irc"}));
        let (answer, sent) = ask(&stage, method, path, headers, body.as_ref()).await;
        assert_eq!(
            answer.status, *status,
            "{method} {path} {headers:?}: {answer:?}"
        );
        let cors = sent
            .keys()
            .any(|name| name.as_str().starts_with("access-control"));
        assert!(!cors, "{method} {path}: {sent:?}");
        assert_eq!(sent["cross-origin-resource-policy"], "same-origin");
        assert_eq!(sent["x-content-type-options"], "nosniff");
    }
    assert_eq!(
        irc.receiver.received().len(),
        0,
        "the doctor sent no request"
    );
    // The client-server API is open to web clients of any origin, with a token.
    let versions = "/_matrix/client/versions";
    let (answer, sent) = ask(&stage, "GET", versions, &[site], None).await;
    assert_eq!(
        (answer.status, &sent["access-control-allow-origin"]),
        (200, &"*".parse().expect("a value"))
    );
}

#[actix_web::test]
async fn pages_of_the_servers_own_origin_are_served_under_the_names_that_it_has() {
    let stage = Stage::with(&[], |options| {
        options.door.hosts = vec!["dev.internal".to_owned()]
    })
    .await;
    let base = stage.base();
    let own = base.trim_start_matches("http://").to_owned();
    let port = own.split(':').next_back().expect("a port").to_owned();
    for host in [
        own,
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        format!("dev.internal:{port}"),
    ] {
        let origin = format!("http://{host}");
        let headers = [
            ("host", &*host),
            ("origin", &*origin),
            ("sec-fetch-site", "same-origin"),
            JSON,
        ];
        let (answer, _) = ask(&stage, "GET", MESSAGES, &headers, None).await;
        assert_eq!(answer.status, 200, "{host}: {answer:?}");
        let reload = "/_understudy/appservices/reload";
        let (answer, _) = ask(&stage, "POST", reload, &headers, Some(&json!({}))).await;
        assert_eq!(answer.status, 200, "{host}: {answer:?}");
    }
}

#[actix_web::test]
async fn the_doctor_over_http_sends_requests_only_to_services_in_force() {
    let stage = Stage::new().await;
    let irc = stage.bridge("irc").await;
    let elsewhere = stage.bridge("elsewhere").await;
    let examine = async |body: Value| {
        let (answer, _) = ask(&stage, "POST", DOCTOR, &[JSON], Some(&body)).await;
        answer
    };
    let asked = || {
        (
            irc.receiver.received().len(),
            elsewhere.receiver.received().len(),
        )
    };
    let before = asked();

    // The doctor sends no request to the URL of a registration that is not in force, even if its id is.
    for id in ["new", "irc"] {
        let registration = json!({
            "id": id, "url": elsewhere.receiver.url, "as_token": "a".repeat(20), "hs_token": "h".repeat(20),
            "sender_localpart": "newbot", "namespaces": {},
        });
        examine(registration.clone()).await.ok();
        examine(json!({"registration": registration})).await.ok();
        examine(json!({"registration": registration.to_string()}))
            .await
            .ok();
    }
    assert_eq!(asked(), before);

    let report = examine(json!({"id": "irc"})).await.ok();
    assert_eq!(report["dialect"]["service"], "irc", "{report}");
    assert!(asked().0 > before.0 && asked().1 == before.1);
    examine(json!({"id": "gone"}))
        .await
        .is_refused(404, "M_NOT_FOUND");
    let yaml = examine(json!({"registration": "id: ["})).await.ok();
    assert_eq!(yaml["findings"][0]["code"], "unreadable");
}
