//! The real binary, killed at random moments: nothing that it accepted is lost, duplicated, or reordered.

use std::cell::{Cell, RefCell};
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
use tokio::task::JoinHandle;

const AS_TOKEN: &str = "irc-as-token";
const HS_TOKEN: &str = "irc-hs-token";

/// How often the server is killed.
const KILLS: usize = 8;

/// How many sequences of messages each user sends at the same time.
const LANES: usize = 4;

/// A random source for delays. It prints its seed, so that a run can be repeated with `UNDERSTUDY_TEST_SEED`.
struct Random(u64);

impl Random {
    fn new() -> Random {
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
        Random(seed)
    }

    /// A number in this range (xorshift).
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

/// The two users that a development server creates.
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

/// Write a registration to the server's folder, and wait until it is in force. Returns the bot.
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

/// Register a ghost and create a device for it. Returns the user id.
async fn ghost(bot: &Person, name: &str) -> String {
    let body =
        json!({"type": "m.login.application_service", "username": name, "inhibit_login": true});
    let made = bot.post("/register", &body).await.ok();
    let user = made["user_id"].as_str().expect("a user").to_owned();
    let device = "/devices/GHOST";
    bot.playing(&user, None).put(device, &json!({})).await.ok();
    user
}

/// The transactions that the bridge received, by id. One that was received twice is counted once, as bridges do, and must have the
/// same bytes.
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

/// The sender of a message, and the number of the sequence that it belongs to.
type Lane = String;

/// The numbers of the messages in each lane, in the order of arrival.
fn numbers<'a>(events: impl IntoIterator<Item = &'a Value>) -> BTreeMap<Lane, Vec<u64>> {
    let mut numbers: BTreeMap<Lane, Vec<u64>> = BTreeMap::new();
    for event in events {
        let (lane, n) = (&event["content"]["lane"], &event["content"]["n"]);
        if let (Some(lane), Some(n)) = (lane.as_str(), n.as_u64()) {
            let sender = event["sender"].as_str().unwrap_or_default();
            numbers
                .entry(format!("{sender} {lane}"))
                .or_default()
                .push(n);
        }
    }
    numbers
}

/// The items under a key of the transactions, in order.
fn items(receiver: &Receiver, key: &str) -> Vec<Value> {
    let transactions = transactions(receiver).into_values();
    transactions
        .flat_map(|mut t| match t[key].take() {
            Value::Array(items) => items,
            _ => Vec::new(),
        })
        .collect()
}

fn total(numbers: &BTreeMap<Lane, Vec<u64>>) -> usize {
    numbers.values().map(Vec::len).sum()
}

/// Users that send messages to devices and to a room, in several lanes at once. Within a lane, each message waits for the answer to
/// the last one.
struct Conversations {
    over: Rc<Cell<bool>>,
    lanes: Vec<(Lane, JoinHandle<u64>)>,
}

impl Conversations {
    fn new() -> Conversations {
        Conversations {
            over: Rc::default(),
            lanes: Vec::new(),
        }
    }

    fn begin(&mut self, person: &Person, to: &[String], room: &str) {
        for lane in 0..LANES {
            let (person, over) = (person.clone(), Rc::clone(&self.over));
            let (to, room) = (to.to_vec(), room.to_owned());
            let name = format!("{} {lane}", person.user_id);
            let task = actix_rt::spawn(async move {
                let mut n = 0;
                while !over.get() {
                    for user in &to {
                        let content = json!({"lane": lane.to_string(), "n": n});
                        let body = json!({"messages": {user: {"*": content}}});
                        let path = format!("/sendToDevice/m.example/{lane}-{n}");
                        person.put_until_taken(&path, &body).await;
                        let path = format!("/rooms/{room}/send/m.room.message/{lane}-{n}");
                        person.put_until_taken(&path, &content).await;
                        n += 1;
                    }
                }
                n
            });
            self.lanes.push((name, task));
        }
    }

    /// Start no new messages, and wait for those under way. Returns the numbers of the messages that were sent.
    async fn end(self) -> BTreeMap<Lane, Vec<u64>> {
        self.over.set(true);
        let mut said = BTreeMap::new();
        for (name, task) in self.lanes {
            let n = task.await.expect("the task of a lane ends");
            assert!(n > 0, "{name} sent nothing");
            said.insert(name, (0..n).collect());
        }
        said
    }
}

/// A server in a separate process, with its two users in a room.
struct World {
    server: Process,
    folder: tempfile::TempDir,
    port: u16,
    database: String,
    people: Vec<Person>,
    room: String,
}

impl World {
    async fn new() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let (port, database) = (process::free_port(), new_database(folder.path()));
        let server = start(folder.path(), port, &database);
        let people = people(folder.path(), &server.base);
        let body = json!({"preset": "public_chat"});
        let made = people[0].post("/createRoom", &body).await.ok();
        let room = segment(made["room_id"].as_str().expect("a room"));
        let join = format!("/rooms/{room}/join");
        people[1].post(&join, &json!({})).await.ok();
        World {
            server,
            folder,
            port,
            database,
            people,
            room,
        }
    }

    /// Kill the server after a random delay, and start it again after another one.
    async fn kill_and_restart(&mut self, random: &mut Random) {
        wait(random.within(20, 400)).await;
        self.server.kill();
        wait(random.within(0, 50)).await;
        self.server = start(self.folder.path(), self.port, &self.database);
    }
}

/// Clause: as.txn.queue
/// Clause: own.inbox.until-acknowledged
#[actix_web::test]
async fn killed_at_random_moments_under_load_nothing_is_lost_duplicated_or_reordered() {
    let mut random = Random::new();
    let mut world = World::new().await;
    let receiver = Receiver::start("irc", HS_TOKEN, None, Log::default());
    let bot = register(world.folder.path(), &world.server.base, &receiver.url).await;
    let ghosts = [ghost(&bot, "irc_a").await, ghost(&bot, "irc_b").await];
    let join = format!("/rooms/{}/join", world.room);
    bot.post(&join, &json!({})).await.ok();

    let mut conversations = Conversations::new();
    for person in &world.people {
        conversations.begin(person, &ghosts, &world.room);
    }
    for kill in 0..KILLS {
        // The bridge also fails at times.
        receiver.at_once(Some(if kill % 3 == 2 { 500 } else { 200 }));
        world.kill_and_restart(&mut random).await;
    }
    receiver.at_once(Some(200));
    let said = conversations.end().await;
    // The bridge works again and ends the back-off with a ping, on a new connection, because the old ones ended with the server.
    let ping = "/_matrix/client/v1/appservice/irc/ping";
    let bot = bot.moved_to(&world.server.base);
    bot.post(ping, &json!({})).await.ok();

    let device = || numbers(&items(&receiver, "de.sorunome.msc2409.to_device"));
    let events = || numbers(&items(&receiver, "events"));
    until("everything has come", || {
        total(&device()) >= total(&said) && total(&events()) >= total(&said)
    })
    .await;
    println!(
        "{} messages to devices and as many into the room, {} transactions in {} requests",
        total(&said),
        transactions(&receiver).len(),
        receiver.count(),
    );
    assert_eq!(device(), said, "to devices");
    assert_eq!(events(), said, "into the room");
}

/// Clause: cs.to-device.kept
/// Clause: own.inbox.until-acknowledged
#[actix_web::test]
async fn killed_at_random_moments_a_device_that_syncs_receives_everything_once() {
    let mut random = Random::new();
    let mut world = World::new().await;
    let bob = world.people[1].clone();
    let mut conversations = Conversations::new();
    let to_bob = std::slice::from_ref(&bob.user_id);
    conversations.begin(&world.people[0], to_bob, &world.room);

    let received: Rc<RefCell<[Vec<Value>; 2]>> = Rc::default();
    let (receives, room) = (Rc::clone(&received), world.room.replace("%21", "!"));
    let room = room.replace("%3A", ":");
    let syncing = actix_rt::spawn(async move {
        let filter = segment(r#"{"room":{"timeline":{"limit":1000}}}"#);
        let mut since = String::new();
        loop {
            let path = format!("/sync?timeout=1000&filter={filter}{since}");
            let Ok(answer) = bob.try_ask("GET", &path, None).await else {
                pause().await;
                continue;
            };
            let mut body = answer.ok();
            let timeline = &mut body["rooms"]["join"][&room]["timeline"];
            assert_ne!(timeline["limited"], true, "after {since}");
            let mut received = receives.borrow_mut();
            for (all, new) in received.iter_mut().zip([
                timeline["events"].take(),
                body["to_device"]["events"].take(),
            ]) {
                all.extend(new.as_array().cloned().unwrap_or_default());
            }
            since = format!("&since={}", body["next_batch"].as_str().expect("a token"));
        }
    });
    for _ in 0..KILLS {
        world.kill_and_restart(&mut random).await;
    }
    let said = conversations.end().await;
    let count = |kind: usize| total(&numbers(&received.borrow()[kind]));
    until("everything has come", || {
        count(0) >= total(&said) && count(1) >= total(&said)
    })
    .await;
    syncing.abort();
    println!("{} messages of each kind", total(&said));
    let received = received.borrow();
    assert_eq!(numbers(&received[0]), said, "in the room");
    assert_eq!(numbers(&received[1]), said, "to the device");
}

#[expect(
    clippy::disallowed_methods,
    reason = "waits for a random time of another process"
)]
async fn wait(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
