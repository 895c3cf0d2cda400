//! Compares `/sync` with transactions: the same traffic to the ghosts of one bridge, with a long-polling `/sync` for each ghost
//! and with one stream of transactions.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use tests::chart::{self, Point, Traffic, Way};
use tests::person::segment;

use super::load::{Asked, Carried, Numbered, ask_all, ask_at_a_pace, numbered, numbers};
use super::rooms::room;
use super::to_device::send_to;
use crate::figure::{Figure, Mark, percentile, seconds, to_be_kept};
use crate::http::{Connection, request};
use crate::server::pause;
use crate::world::{AS_TOKEN, GHOST, Plan, World, ghost_id, person_token};

/// The numbers of ghosts.
const USERS: [usize; 4] = [1, 10, 100, 1_000];

/// The number of users that send.
const SENDERS: usize = 10;

/// The time between two messages of a sender: together they send a hundred a second.
const EVERY: Duration = Duration::from_millis(100);

/// The number of events that are sent to the room. The next one is sent when every ghost has received the one before.
const EVENTS: usize = 25;

/// The longest time to wait for the last message.
const PATIENCE: Duration = Duration::from_secs(30);

/// The received messages, with the time of receipt.
type Received = Rc<RefCell<Vec<(Numbered, Instant)>>>;

/// Measures each way with each kind of traffic and each number of ghosts, for half of `UNDERSTUDY_BENCH_SECONDS` or five
/// seconds each.
pub(crate) async fn compare() -> Vec<Figure> {
    let (mut points, mut figures) = (Vec::new(), Vec::new());
    for way in [Way::Sync, Way::Transactions] {
        for users in USERS {
            let service = Service::new(way, users).await;
            for traffic in [Traffic::ToDevice, Traffic::Room] {
                let (point, faults) = service.measured(traffic).await;
                let name = format!("{traffic:?} to {users} users by {way:?}");
                let mut figure = Figure::said(name, "", format!("{:.3} ms", point.cpu_ms));
                figure.latency = format!("{:.2} / {:.2} ms", point.p50_ms, point.p99_ms);
                figure.faults = faults;
                figures.push(figure);
                points.push(point);
            }
        }
    }
    points.sort_by_key(|p| (p.traffic != Traffic::ToDevice, p.way != Way::Sync, p.users));
    if to_be_kept() {
        std::fs::write(chart::figures(), chart::written(&points)).expect("the figures are kept");
        for (file, text) in chart::made_of(&points) {
            std::fs::write(file, text).expect("the book is written");
        }
    }
    figures
}

/// A bridge with a number of ghosts, all in one room, that receives their messages in one way.
struct Service {
    world: World,
    way: Way,
    users: usize,
    room: String,
    received: Received,
    streams: Vec<actix_rt::task::JoinHandle<()>>,
}

impl Drop for Service {
    fn drop(&mut self) {
        for stream in &self.streams {
            stream.abort();
        }
    }
}

impl Service {
    async fn new(way: Way, users: usize) -> Service {
        let world = World::new(Plan {
            people: SENDERS,
            ghosts: users,
            pulls: way == Way::Sync,
            ..Plan::default()
        })
        .await;
        let room = segment(&room(&world, 0).await);
        let join = |_: usize, user: usize| {
            let path = format!(
                "/_matrix/client/v3/join/{room}?user_id={}",
                segment(&ghost_id(user))
            );
            request("POST", &path, AS_TOKEN, "{}")
        };
        ask_all(&world, 1, users, join).await;
        let received = Received::default();
        let mut streams = Vec::new();
        if way == Way::Sync {
            // A sync token is valid for every user, so the streams can start without an initial `/sync` each.
            let since = Stream {
                user: 0,
                connection: world.connect().await,
            }
            .ask(None)
            .await
            .next_batch;
            for user in 0..users {
                let stream = Stream {
                    user,
                    connection: world.connect().await,
                };
                streams.push(actix_rt::spawn(
                    stream.listen(since.clone(), Rc::clone(&received)),
                ));
            }
        }
        let service = Service {
            world,
            way,
            users,
            room,
            received,
            streams,
        };
        // By then everything that the joins caused has been sent, and every stream waits.
        service.world.settled().await;
        service
    }

    async fn measured(&self, traffic: Traffic) -> (Point, usize) {
        self.received.borrow_mut().clear();
        let mut skip = self.world.bridge.count();
        let mark = Mark::now(self.world.server());
        let (asked, copies) = match traffic {
            Traffic::ToDevice => (self.messages().await, 1),
            Traffic::Room => (
                self.events(&mut skip).await,
                if self.way == Way::Sync { self.users } else { 1 },
            ),
        };
        let sent: usize = asked.iter().map(Vec::len).sum();
        self.until_received(&mut skip, sent * copies).await;
        let spent = mark.until(self.world.server(), Instant::now());

        let received = self.received.borrow();
        let times = received
            .iter()
            .map(|(m, at)| at.saturating_duration_since(asked[m.sender][m.n].sent));
        let mut times: Vec<Duration> = times.collect();
        times.sort();
        let (memory, kib) = (self.world.server().memory("VmRSS"), 1024.0);
        let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        let point = Point {
            traffic,
            way: self.way,
            users: self.users,
            cpu_ms: millis(spent.each(sent)),
            memory_mib: (f64::from(u32::try_from(memory).expect("not so much")) / kib * 10.0)
                .round()
                / 10.0,
            p50_ms: millis(percentile(&times, 50)),
            p99_ms: millis(percentile(&times, 99)),
        };
        (point, received.len().abs_diff(sent * copies))
    }

    /// Sends to-device messages at a steady pace, to one ghost after the other.
    async fn messages(&self) -> Vec<Vec<Asked>> {
        let make =
            |sender: usize, n: usize| send_to((n * SENDERS + sender) % self.users, sender, n, "m");
        ask_at_a_pace(&self.world, SENDERS, EVERY, seconds(10) / 2, make).await
    }

    /// Sends events to the room, each when all have received the one before.
    async fn events(&self, skip: &mut usize) -> Vec<Vec<Asked>> {
        let mut connection = self.world.connect().await;
        let mut asked = vec![Vec::new()];
        let copies = if self.way == Way::Sync { self.users } else { 1 };
        for n in 0..EVENTS {
            let path = format!(
                "/_matrix/client/v3/rooms/{}/send/m.room.encrypted/e{n}",
                self.room
            );
            let body = json!({
                "algorithm": "m.megolm.v1.aes-sha2", "sender": 0, "n": n, "ciphertext": "c".repeat(300),
                "session_id": "session", "device_id": "D", "sender_key": "key",
            });
            let request = request("PUT", &path, &person_token(0), &body.to_string());
            let sent = Instant::now();
            connection.ask(&request).await;
            asked[0].push(Asked {
                sent,
                answered: Instant::now(),
            });
            self.until_received(skip, (n + 1) * copies).await;
        }
        asked
    }

    /// Waits until this number of messages was received.
    async fn until_received(&self, skip: &mut usize, count: usize) {
        let begun = Instant::now();
        loop {
            for taken in self.world.bridge.taken(*skip) {
                *skip += 1;
                let numbers = numbered(&taken).into_iter().map(|m| (m, taken.at));
                self.received.borrow_mut().extend(numbers);
            }
            if self.received.borrow().len() >= count || begun.elapsed() > PATIENCE {
                return;
            }
            pause(Duration::from_millis(1)).await;
        }
    }
}

/// The device of a ghost that uses `/sync`.
struct Stream {
    user: usize,
    connection: Connection,
}

#[derive(Deserialize)]
struct Synced {
    next_batch: String,
    #[serde(default)]
    to_device: Events,
    #[serde(default)]
    rooms: Rooms,
}

#[derive(Default, Deserialize)]
struct Events {
    #[serde(default)]
    events: Vec<Carried>,
}

#[derive(Default, Deserialize)]
struct Rooms {
    #[serde(default)]
    join: BTreeMap<String, Joined>,
}

#[derive(Deserialize)]
struct Joined {
    timeline: Events,
}

impl Stream {
    async fn ask(&mut self, since: Option<&str>) -> Synced {
        let since = since.map_or_else(String::new, |since| {
            format!("&timeout=30000&since={}", segment(since))
        });
        let path = format!(
            "/_matrix/client/v3/sync?user_id={}&device_id={GHOST}{since}",
            segment(&ghost_id(self.user))
        );
        let answer = self
            .connection
            .ask(&request("GET", &path, AS_TOKEN, ""))
            .await;
        serde_json::from_slice(&answer).expect("an answer to /sync is JSON")
    }

    async fn listen(mut self, mut since: String, received: Received) {
        loop {
            let answer = self.ask(Some(&since)).await;
            let at = Instant::now();
            let timelines = answer.rooms.join.into_values().map(|room| room.timeline);
            for events in timelines.chain([answer.to_device]) {
                received
                    .borrow_mut()
                    .extend(numbers(events.events).map(|m| (m, at)));
            }
            since = answer.next_batch;
        }
    }
}
