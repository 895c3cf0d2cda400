//! An encrypted conversation between a user and a bridge's bot that is fed only by transactions. In between, the bridge fails
//! and the server is killed.
//!
//! `cargo run --release -p understudy-tests --example encrypted_bridge`

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::bridge::{Received, Receiver};
use tests::person::segment;
use tests::process::{Process, free_port, people};
use tests::{CryptoBot, CryptoPerson, Person, until};

/// The environment variable that marks the process of the server: this program starts itself a second time to be the server.
const SERVER: &str = "ENCRYPTED_BRIDGE_SERVER";

/// The number of messages in each direction, before the failure and after it.
const MESSAGES: usize = 20;

fn main() -> ExitCode {
    if std::env::var_os(SERVER).is_some() {
        return understudy::run(std::env::args_os());
    }
    let lost = actix_rt::System::new().block_on(play());
    if lost == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn start(data: &Path, port: u16) -> Process {
    let mut program = Command::new(std::env::current_exe().expect("this program has a path"));
    program.env(SERVER, "1");
    Process::start(program, data, port, &["--log", "error"])
}

/// Both sides of the conversation, and the messages that each has received.
struct Story {
    room: String,
    alice: CryptoPerson,
    bot: CryptoBot,
    receiver: Receiver,
    /// The number of transactions that the bot has processed.
    fed: usize,
    received_by_bot: Vec<String>,
    received_by_alice: Vec<String>,
    broken: usize,
}

impl Story {
    async fn alice_says(&mut self, text: &str) {
        let members = [
            "@alice:localhost".to_owned(),
            "@demobot:localhost".to_owned(),
        ];
        self.alice.crypto.say(&self.room, &members, text).await;
        println!("  alice → {text}");
    }

    async fn bot_says(&mut self, text: &str) {
        let members = [
            "@alice:localhost".to_owned(),
            "@demobot:localhost".to_owned(),
        ];
        self.bot.crypto.say(&self.room, &members, text).await;
        println!("            {text} ← bot");
    }

    /// Lets the bot process the bridge's transactions until it has received this number of messages.
    async fn bot_receives(&mut self, until: usize) {
        let begun = Instant::now();
        while self.received_by_bot.len() < until && begun.elapsed() < Duration::from_secs(20) {
            let taken = self.receiver.taken(0);
            for transaction in &taken[self.fed..] {
                for event in self.bot.take(transaction).await {
                    if event["type"] == "m.room.encrypted" && event["sender"] == "@alice:localhost"
                    {
                        let text = self.bot.crypto.read(&self.room, &event).await;
                        self.keep(true, text);
                    }
                }
            }
            self.fed = taken.len();
            tokio::task::yield_now().await;
        }
    }

    async fn alice_receives(&mut self, until: usize) {
        let begun = Instant::now();
        while self.received_by_alice.len() < until && begun.elapsed() < Duration::from_secs(20) {
            let room = self.room.clone();
            for event in self.alice.sync(&room, 1_000).await {
                if event["type"] == "m.room.encrypted" && event["sender"] == "@demobot:localhost" {
                    let text = self.alice.crypto.read(&room, &event).await;
                    self.keep(false, text);
                }
            }
        }
    }

    fn keep(&mut self, by_bot: bool, text: Result<String, String>) {
        match text {
            Ok(text) if by_bot => self.received_by_bot.push(text),
            Ok(text) => self.received_by_alice.push(text),
            Err(why) => {
                println!("  CANNOT BE DECRYPTED: {why}");
                self.broken += 1;
            }
        }
    }
}

async fn play() -> usize {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, port) = (folder.path().join("data"), free_port());
    let mut server = start(&data, port);
    println!(
        "the server is ready after {} ms at {}",
        server.ready_after.as_millis(),
        server.base
    );

    let receiver = Receiver::start(
        "demo",
        "demo-hs-token",
        None,
        tests::transcript::Log::default(),
    );
    let bridge = register(&data, &server.base, &receiver.url).await;
    let alice = &people(&data)[0];
    let text = |key: &str| alice[key].as_str().expect("a text").to_owned();
    let alice = Person::at(
        &server.base,
        &text("user_id"),
        Some(&text("device_id")),
        &text("access_token"),
    );
    println!("the bridge is registered: its file was written into the folder\n");

    let alice = CryptoPerson::new(alice).await;
    let bot = CryptoBot::new(&bridge, "BOTDEVICE").await;
    let encryption = json!({"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}});
    let create = json!({"preset": "private_chat", "invite": ["@demobot:localhost"], "initial_state": [encryption]});
    let made = alice.crypto.person.post("/createRoom", &create).await.ok();
    let room = made["room_id"].as_str().expect("a room").to_owned();
    bridge
        .post(&format!("/rooms/{}/join", segment(&room)), &json!({}))
        .await
        .ok();
    println!("alice made the encrypted room {room}, the bot joined it\n");

    let mut story = Story {
        room,
        alice,
        bot,
        receiver: receiver.clone(),
        fed: 0,
        received_by_bot: Vec::new(),
        received_by_alice: Vec::new(),
        broken: 0,
    };
    story.alice.sync(&story.room.clone(), 0).await;
    for n in 1..=MESSAGES {
        story.alice_says(&format!("question {n}")).await;
        story.bot_receives(n).await;
        story.bot_says(&format!("answer {n}")).await;
        story.alice_receives(n).await;
    }

    println!("\nthe bridge answers 500 from now on; alice goes on writing");
    receiver.at_once(Some(500));
    let failed_before = failures(&receiver.received());
    for n in MESSAGES + 1..=MESSAGES + 10 {
        story.alice_says(&format!("question {n}")).await;
    }
    until("the bridge has failed three times", || {
        failures(&receiver.received()) >= failed_before + 3
    })
    .await;
    println!("the bridge has failed three times; the server is killed (SIGKILL) and started again");
    server.kill();
    let mut server = start(&data, port);
    println!(
        "the server is ready again after {} ms",
        server.ready_after.as_millis()
    );
    let bridge = bridge.moved_to(&server.base);
    story.alice.move_to(&server.base);
    story.bot.move_to(&server.base);
    receiver.at_once(Some(200));
    bridge
        .post(
            "/_matrix/client/v1/appservice/demo/ping",
            &json!({"transaction_id": "back"}),
        )
        .await
        .ok();
    println!("the bridge is back: a ping that succeeds ends the back-off\n");

    story.bot_receives(MESSAGES + 10).await;
    for n in MESSAGES + 1..=2 * MESSAGES {
        if n > MESSAGES + 10 {
            story.alice_says(&format!("question {n}")).await;
            story.bot_receives(n).await;
        }
        story.bot_says(&format!("answer {n}")).await;
        story.alice_receives(n).await;
    }
    server.kill();
    report(&story, &receiver.received())
}

/// Writes the registration file into the watched folder and waits until the server knows the appservice.
async fn register(data: &Path, base: &str, url: &str) -> Person {
    let registration = format!(
        "id: demo\nurl: {url}\nas_token: demo-as-token\nhs_token: demo-hs-token\nsender_localpart: demobot\n\
         rate_limited: false\nreceive_ephemeral: true\norg.matrix.msc3202: true\nio.element.msc4190: true\n\
         namespaces:\n  users: [{{exclusive: true, regex: '@demo_.*'}}]\n"
    );
    std::fs::write(data.join("appservices/demo.yaml"), registration).expect("the file is written");
    let bridge = Person::at(base, "@demobot:localhost", None, "demo-as-token");
    let begun = Instant::now();
    while bridge.get("/account/whoami").await.status != 200 {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "the registration was not noticed"
        );
    }
    bridge
}

fn failures(received: &[Received]) -> usize {
    received.iter().filter(|r| r.answered == 500).count()
}

/// Prints the transactions and the result. Returns the number of faults.
fn report(story: &Story, received: &[Received]) -> usize {
    println!("\nthe transactions behind it:");
    let mut bodies: BTreeMap<&str, &str> = BTreeMap::new();
    let mut differing = 0;
    for request in received
        .iter()
        .filter(|r| r.path.contains("/transactions/"))
    {
        let again = match bodies.insert(request.id(), &request.body) {
            Some(before) if before == request.body => ", the same bytes again",
            Some(_) => {
                differing += 1;
                ", OTHER BYTES UNDER THE SAME ID"
            }
            None => "",
        };
        println!(
            "  {}  {}  answered {}{again}",
            request.id(),
            summary(&request.json()),
            request.answered
        );
    }
    let expected = |what: &str| {
        (1..=2 * MESSAGES)
            .map(|n| format!("{what} {n}"))
            .collect::<Vec<_>>()
    };
    let missing = |received: &[String], what: &str| {
        expected(what)
            .iter()
            .filter(|m| !received.contains(m))
            .count()
    };
    let lost =
        missing(&story.received_by_bot, "question") + missing(&story.received_by_alice, "answer");
    let ordered = story.received_by_bot == expected("question")
        && story.received_by_alice == expected("answer");
    println!(
        "\nreceived by the bot: {} of {}; received by alice: {} of {}; lost: {lost}; not decrypted: {}; in order, once each: {}; \
         retries with other bytes: {differing}",
        story.received_by_bot.len(),
        2 * MESSAGES,
        story.received_by_alice.len(),
        2 * MESSAGES,
        story.broken,
        if ordered { "yes" } else { "NO" },
    );
    lost + story.broken + differing + usize::from(!ordered)
}

fn summary(body: &Value) -> String {
    let count = |value: &Value| value.as_array().map_or(0, Vec::len);
    let mut parts = vec![format!("{} events", count(&body["events"]))];
    let mut add = |n: usize, what: &str| {
        if n > 0 {
            parts.push(format!("{n} {what}"));
        }
    };
    add(count(&body["de.sorunome.msc2409.to_device"]), "to-device");
    add(count(&body["ephemeral"]), "ephemeral");
    let lists = &body["org.matrix.msc3202.device_lists"];
    add(count(&lists["changed"]), "changed");
    add(count(&lists["left"]), "left");
    let counts = body["org.matrix.msc3202.device_one_time_keys_count"].as_object();
    for device in counts
        .into_iter()
        .flatten()
        .filter_map(|(_, devices)| devices.as_object())
        .flatten()
    {
        parts.push(format!(
            "{} has {} keys",
            device.0, device.1["signed_curve25519"]
        ));
    }
    parts.join(", ")
}
