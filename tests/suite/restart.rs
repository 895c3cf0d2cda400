//! The real binary, killed at random moments: nothing that it took is lost, doubled, or out of order.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tests::bridge::{Receiver, pause};
use tests::person::segment;
use tests::process::{self, Process};
use tests::stage::new_database;
use tests::transcript::Log;
use tests::{Person, until};

const AS_TOKEN: &str = "irc-as-token";
const HS_TOKEN: &str = "irc-hs-token";

/// How often the server is killed.
const DEATHS: usize = 8;

/// Random moments; the seed is printed, so that a schedule can be tried again with `UNDERSTUDY_TEST_SEED`.
struct Moments(u64);

impl Moments {
    fn new() -> Moments {
        let seed = std::env::var("UNDERSTUDY_TEST_SEED")
            .ok()
            .and_then(|s| s.parse().ok());
        let now = || {
            std::time::UNIX_EPOCH
                .elapsed()
                .map_or(1, |d| u64::from(d.subsec_nanos()))
        };
        let seed = seed.unwrap_or_else(now) | 1;
        println!("UNDERSTUDY_TEST_SEED={seed}");
        Moments(seed)
    }

    /// Somewhere in this range (xorshift).
    fn within(&mut self, from: u64, to: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        from + self.0 % (to - from)
    }
}

fn start(data: &Path, port: u16, database: &str) -> Process {
    let more = ["--database", database, "--log", "error"];
    Process::start(Command::new(process::binary()), data, port, &more)
}

/// The two people that a development server has ready.
fn people(data: &Path, base: &str) -> Vec<Person> {
    let people = process::people(data);
    let text = |p: &Value, key: &str| p[key].as_str().expect("a text").to_owned();
    people
        .iter()
        .map(|p| {
            let (user, device) = (text(p, "user_id"), text(p, "device_id"));
            Person::at(base, &user, Some(&device), &text(p, "access_token"))
        })
        .collect()
}

/// A registration in the server's folder, in force.
async fn register(data: &Path, base: &str, url: &str) -> Person {
    let registration = json!({
        "id": "irc", "url": url, "as_token": AS_TOKEN, "hs_token": HS_TOKEN, "sender_localpart": "ircbot",
        "rate_limited": false, "receive_ephemeral": true, "org.matrix.msc3202": true,
        "namespaces": {"users": [{"exclusive": true, "regex": "@irc_.*"}]},
    });
    let file = data.join("appservices").join("irc.yaml");
    std::fs::write(file, registration.to_string()).expect("the registration is written");
    let bot = Person::at(base, "@ircbot:localhost", None, AS_TOKEN);
    while bot.get("/account/whoami").await.status != 200 {
        pause().await;
    }
    bot
}

/// A ghost with a device.
async fn ghost(bot: &Person, name: &str) -> String {
    let body =
        json!({"type": "m.login.application_service", "username": name, "inhibit_login": true});
    let made = bot.post("/register", &body).await.ok();
    let user = made["user_id"].as_str().expect("a user").to_owned();
    let device = "/devices/GHOST";
    bot.playing(&user, None).put(device, &json!({})).await.ok();
    user
}

/// What the bridge was told, a transaction that came twice counted once, as bridges do: and then it must be the same.
fn transactions(receiver: &Receiver) -> BTreeMap<u64, Value> {
    let mut bodies: BTreeMap<u64, String> = BTreeMap::new();
    let mut last = 0;
    let received = receiver.received();
    for request in received
        .iter()
        .filter(|r| r.path.contains("/transactions/"))
    {
        let id = request.id().parse().expect("digits only");
        assert!(id >= last, "ids grow: {id} after {last}");
        last = id;
        let before = bodies.entry(id).or_insert_with(|| request.body.clone());
        assert_eq!(*before, request.body, "transaction {id} changed");
    }
    let parse = |body: String| serde_json::from_str(&body).expect("a body is JSON");
    bodies
        .into_iter()
        .map(|(id, body)| (id, parse(body)))
        .collect()
}

/// The numbers of what each sender sent, in the order in which they came.
fn numbers(receiver: &Receiver, key: &str) -> BTreeMap<String, Vec<u64>> {
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for transaction in transactions(receiver).values() {
        for event in transaction[key].as_array().into_iter().flatten() {
            if let Some(n) = event["content"]["n"].as_u64() {
                let sender = event["sender"].as_str().unwrap_or_default().to_owned();
                numbers.entry(sender).or_default().push(n);
            }
        }
    }
    numbers
}

#[actix_web::test]
async fn killed_at_random_moments_under_load_nothing_is_lost_doubled_or_reordered() {
    let mut moments = Moments::new();
    let folder = tempfile::tempdir().expect("a folder");
    let (data, port) = (folder.path(), process::free_port());
    let database = new_database(data);
    let mut server = start(data, port, &database);
    let receiver = Receiver::start("irc", HS_TOKEN, None, Log::default());
    let bot = register(data, &server.base, &receiver.url).await;
    let ghosts = [ghost(&bot, "irc_a").await, ghost(&bot, "irc_b").await];
    let people = people(data, &server.base);
    let body = json!({"preset": "public_chat", "invite": [bot.user_id]});
    let made = people[0].post("/createRoom", &body).await.ok();
    let room = segment(made["room_id"].as_str().expect("a room"));
    for member in [&people[1], &bot] {
        let join = format!("/rooms/{room}/join");
        member.post(&join, &json!({})).await.ok();
    }

    // Two people send messages to devices and into the room, one after the other, until the server has died often enough.
    let over = Rc::new(Cell::new(false));
    let senders: Vec<_> = people
        .iter()
        .map(|person| {
            let (person, over) = (person.clone(), Rc::clone(&over));
            let (ghosts, room) = (ghosts.clone(), room.clone());
            actix_rt::spawn(async move {
                let mut n = 0;
                while !over.get() {
                    let ghost = &ghosts[n % 2];
                    let body = json!({"messages": {ghost: {"*": {"n": n}}}});
                    let path = format!("/sendToDevice/m.example/{n}");
                    person.put_until_taken(&path, &body).await;
                    let body = json!({"msgtype": "m.text", "body": "hello", "n": n});
                    let path = format!("/rooms/{room}/send/m.room.message/{n}");
                    person.put_until_taken(&path, &body).await;
                    n += 1;
                }
                n
            })
        })
        .collect();

    for death in 0..DEATHS {
        // The bridge fails now and then, too.
        receiver.at_once(Some(if death % 3 == 2 { 500 } else { 200 }));
        wait(moments.within(20, 400)).await;
        server.kill();
        wait(moments.within(0, 50)).await;
        server = start(data, port, &database);
    }
    receiver.at_once(Some(200));
    over.set(true);
    let mut sent = BTreeMap::new();
    for (person, sender) in people.iter().zip(senders) {
        let n = sender.await.expect("the sender ends") as u64;
        assert!(n > 0, "{} sent nothing", person.name);
        sent.insert(person.user_id.clone(), (0..n).collect::<Vec<_>>());
    }
    // The bridge is well again and says so; on a new connection, for the old ones ended with their server.
    let ping = "/_matrix/client/v1/appservice/irc/ping";
    bot.moved_to(&server.base).post(ping, &json!({})).await.ok();

    let (device, events) = ("de.sorunome.msc2409.to_device", "events");
    let all = |key: &str| {
        numbers(&receiver, key)
            .values()
            .map(Vec::len)
            .sum::<usize>()
    };
    let expected = sent.values().map(Vec::len).sum::<usize>();
    until("everything has come", || {
        all(device) >= expected && all(events) >= expected
    })
    .await;
    println!(
        "{expected} messages to devices and {expected} into the room, {} requests to the bridge, {} transactions",
        receiver.count(),
        transactions(&receiver).len()
    );
    assert_eq!(numbers(&receiver, device), sent, "to devices");
    assert_eq!(numbers(&receiver, events), sent, "into the room");
    server.kill();
}

#[expect(
    clippy::disallowed_methods,
    reason = "a random moment of another process's life"
)]
async fn wait(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
