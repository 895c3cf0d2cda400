//! The trace as server-sent events.

use reqwest::Response;
use serde_json::{Value, json};
use tests::person::client;
use tests::{Stage, until};

/// A reader of the stream.
struct Reader {
    response: Response,
    text: String,
}

/// An event: its name, id and data.
type Event = (String, String, Value);

impl Reader {
    async fn new(stage: &Stage, query: &str, last: Option<u64>) -> Reader {
        let mut request = client().get(format!("{}/_understudy/live{query}", stage.base()));
        if let Some(last) = last {
            request = request.header("last-event-id", last.to_string());
        }
        let response = request.send().await.expect("the server answers");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Reader {
            response,
            text: String::new(),
        }
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = event.lines();
                    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    value.unwrap_or_default().to_owned()
                };
                let data = serde_json::from_str(&field("data")).expect("JSON");
                let event = (field("event"), field("id"), data);
                self.text = rest.to_owned();
                return Some(event);
            }
            let chunk = self.response.chunk().await.expect("a stream")?;
            self.text
                .push_str(std::str::from_utf8(&chunk).expect("whole events"));
        }
    }

    /// The events up to the first that fits.
    async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await.expect("the stream goes on");
            let is_last = fits(&event.2);
            events.push(event);
            if is_last {
                return events;
            }
        }
    }
}

#[actix_web::test]
async fn a_request_is_seen_live_with_what_it_causes_and_without_its_secrets() {
    let stage = Stage::new().await;
    let alice = stage.person("alice", "LAPTOP").await;
    let irc = stage.bridge("irc").await;
    irc.ghost_with_device("bob", "GHOST").await;
    stage.quiet().await;
    let newest = stage.app().actors.env.trace.kept().1;
    let mut reader = Reader::new(&stage, &format!("?after={newest}"), None).await;
    let (name, _, hello) = reader.next().await.expect("a first event");
    assert_eq!((name.as_str(), &hello["newest"]), ("hello", &json!(newest)));
    assert_eq!(
        hello["clock"],
        json!({"now": tests::stage::START, "frozen": true})
    );

    let log_in = json!({"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": "alice-password"});
    let token = alice.anonymous().post("/login", &log_in).await.ok()["access_token"].clone();
    alice
        .get("/nothing?access_token=hunter2")
        .await
        .is_refused(404, "M_UNRECOGNIZED");
    alice
        .put(
            "/sendToDevice/m.x/t1",
            &json!({"messages": {"@irc_bob:test": {"GHOST": {"n": 1}}}}),
        )
        .await
        .ok();
    let events = reader.until(|data| data["what"] == "Attempt").await;

    let whole = format!("{events:?}");
    assert!(
        !whole.contains("alice-password") && !whole.contains("hunter2"),
        "{whole}"
    );
    assert!(!whole.contains(token.as_str().expect("a token")), "{whole}");
    let of = |what: &str, path: &str| {
        let data = |(_, _, data): &Event| data.clone();
        let fits = |data: &Value| {
            data["what"] == what && data["cause"].as_str().is_some_and(|c| c.contains(path))
        };
        events
            .iter()
            .map(data)
            .find(fits)
            .unwrap_or_else(|| panic!("{what} {path}: {whole}"))
    };
    assert_eq!(of("Request", "/login")["body"]["body"]["password"], "…");
    assert_eq!(of("Answer", "/login")["body"]["body"]["access_token"], "…");
    assert_eq!(of("Answer", "/login")["body"]["status"], 200);
    assert_eq!(of("Answer", "(no endpoint)")["body"]["status"], 404);
    assert_eq!(
        of("Request", "(no endpoint)")["body"]["query"],
        "access_token=…"
    );
    let sent = of("Request", "/sendToDevice");
    assert_eq!(
        (&sent["from"], &sent["to"], &sent["at"]),
        (
            &json!("client"),
            &json!("http"),
            &json!(tests::stage::START)
        )
    );
    assert_eq!(
        (&sent["body"]["user"], &sent["body"]["device"]),
        (&json!("@alice:test"), &json!("LAPTOP"))
    );
    assert_eq!(of("Deposit", "/sendToDevice")["cause"], sent["cause"]);
    let ids: Vec<u64> = events
        .iter()
        .filter_map(|(_, id, _)| id.parse().ok())
        .collect();
    assert_eq!(
        ids,
        (newest + 1..=newest + events.len() as u64).collect::<Vec<_>>()
    );

    // The requests of clients are not among the messages between actors, which have had their form for longer.
    let messages = alice.aside().get("/_understudy/messages").await.ok();
    let messages = messages.as_array().expect("a list");
    assert!(
        messages
            .iter()
            .all(|m| m["what"] != "Request" && m["what"] != "Answer")
    );

    let mut again = Reader::new(&stage, "?after=1", Some(ids[0])).await;
    again.next().await.expect("hello");
    let (_, id, _) = again.next().await.expect("the next event");
    assert_eq!(id, ids[1].to_string(), "the header counts");
}

#[actix_web::test]
async fn a_reader_that_missed_messages_is_told_so_and_the_stream_ends_with_the_server() {
    let mut stage = Stage::with(&understudy::mscs::by_default(), |options| {
        options.trace = 8 << 10
    })
    .await;
    let alice = stage.person("alice", "LAPTOP").await;
    for n in 0..40 {
        let body = json!({"messages": {"@alice:test": {"LAPTOP": {"n": n}}}});
        alice
            .put(&format!("/sendToDevice/m.x/{n}"), &body)
            .await
            .ok();
    }
    stage.quiet().await;
    let oldest = stage.app().actors.env.trace.kept().0;
    assert!(oldest > 10, "{oldest}");
    let mut reader = Reader::new(&stage, "?after=3", None).await;
    reader.next().await.expect("hello");
    let gap = reader.next().await.expect("a gap");
    assert_eq!(
        (gap.0.as_str(), gap.2),
        ("gap", json!({"up_to": oldest - 1}))
    );
    let (_, id, _) = reader.next().await.expect("what is kept");
    assert_eq!(id, oldest.to_string());
    // A number from before a restart counts as none.
    let mut reader = Reader::new(&stage, "?after=999999", None).await;
    let (_, _, before) = reader.next().await.expect("hello");
    assert_eq!(reader.next().await.expect("a gap").0, "gap");

    let ended = actix_web::rt::spawn(async move { while reader.next().await.is_some() {} });
    stage.restart().await;
    until("the stream ends", || ended.is_finished()).await;
    // The numbers begin again, and a reader is told so also where the clock has not moved.
    let mut reader = Reader::new(&stage, "", None).await;
    let (_, _, now) = reader.next().await.expect("hello");
    assert_eq!(before["clock"]["now"], now["clock"]["now"]);
    assert_ne!(before["run"], now["run"]);
}
