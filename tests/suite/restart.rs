//! The real binary, killed at random moments: nothing that it took is lost, doubled, or out of order.

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
const DEATHS: usize = 8;

/// How many things each person does at the same time.
const LANES: usize = 4;

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

/// Who said it, in which of the conversations that they hold at the same time.
type Lane = String;

/// The numbers of what was said in each lane, in the order in which they came.
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

/// What came under this key of the transactions, in order.
fn told(receiver: &Receiver, key: &str) -> Vec<Value> {
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

/// A person who talks in several lanes at once, in each one thing after the other, to devices and into a room.
struct Talk {
    over: Rc<Cell<bool>>,
    lanes: Vec<(Lane, JoinHandle<u64>)>,
}

impl Talk {
    fn new() -> Talk {
        Talk {
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

    /// No new words; what was begun is said to its end. What was said.
    async fn end(self) -> BTreeMap<Lane, Vec<u64>> {
        self.over.set(true);
        let mut said = BTreeMap::new();
        for (name, task) in self.lanes {
            let n = task.await.expect("whoever talks comes to an end");
            assert!(n > 0, "{name} said nothing");
            said.insert(name, (0..n).collect());
        }
        said
    }
}

/// A server in a process of its own, and its two people in a room.
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

    /// Kill the server after a moment, and start it again after another.
    async fn death(&mut self, moments: &mut Moments) {
        wait(moments.within(20, 400)).await;
        self.server.kill();
        wait(moments.within(0, 50)).await;
        self.server = start(self.folder.path(), self.port, &self.database);
    }
}

#[actix_web::test]
async fn killed_at_random_moments_under_load_nothing_is_lost_doubled_or_reordered() {
    let mut moments = Moments::new();
    let mut world = World::new().await;
    let receiver = Receiver::start("irc", HS_TOKEN, None, Log::default());
    let bot = register(world.folder.path(), &world.server.base, &receiver.url).await;
    let ghosts = [ghost(&bot, "irc_a").await, ghost(&bot, "irc_b").await];
    let join = format!("/rooms/{}/join", world.room);
    bot.post(&join, &json!({})).await.ok();

    let mut talk = Talk::new();
    for person in &world.people {
        talk.begin(person, &ghosts, &world.room);
    }
    for death in 0..DEATHS {
        // The bridge fails now and then, too.
        receiver.at_once(Some(if death % 3 == 2 { 500 } else { 200 }));
        world.death(&mut moments).await;
    }
    receiver.at_once(Some(200));
    let said = talk.end().await;
    // The bridge is well again and says so; on a new connection, for the old ones ended with their server.
    let ping = "/_matrix/client/v1/appservice/irc/ping";
    let bot = bot.moved_to(&world.server.base);
    bot.post(ping, &json!({})).await.ok();

    let device = || numbers(&told(&receiver, "de.sorunome.msc2409.to_device"));
    let events = || numbers(&told(&receiver, "events"));
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

#[actix_web::test]
async fn killed_at_random_moments_a_device_that_syncs_hears_everything_once() {
    let mut moments = Moments::new();
    let mut world = World::new().await;
    let bob = world.people[1].clone();
    let mut talk = Talk::new();
    let to_bob = std::slice::from_ref(&bob.user_id);
    talk.begin(&world.people[0], to_bob, &world.room);

    let heard: Rc<RefCell<[Vec<Value>; 2]>> = Rc::default();
    let (listens, room) = (Rc::clone(&heard), world.room.replace("%21", "!"));
    let room = room.replace("%3A", ":");
    let listening = actix_rt::spawn(async move {
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
            let mut heard = listens.borrow_mut();
            for (all, new) in heard.iter_mut().zip([
                timeline["events"].take(),
                body["to_device"]["events"].take(),
            ]) {
                all.extend(new.as_array().cloned().unwrap_or_default());
            }
            since = format!("&since={}", body["next_batch"].as_str().expect("a token"));
        }
    });
    for _ in 0..DEATHS {
        world.death(&mut moments).await;
    }
    let said = talk.end().await;
    let count = |kind: usize| total(&numbers(&heard.borrow()[kind]));
    until("everything has come", || {
        count(0) >= total(&said) && count(1) >= total(&said)
    })
    .await;
    listening.abort();
    println!("{} messages of each kind", total(&said));
    let heard = heard.borrow();
    assert_eq!(numbers(&heard[0]), said, "in the room");
    assert_eq!(numbers(&heard[1]), said, "to the device");
}

#[expect(
    clippy::disallowed_methods,
    reason = "a random moment of another process's life"
)]
async fn wait(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
