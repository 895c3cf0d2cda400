//! The load: senders that each send one message after the other, and the messages that the bridge receives.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde::Deserialize;

use crate::figure::{Figure, Mark, Spent};
use crate::http::Taken;
use crate::server::pause;
use crate::world::World;

/// The longest time to wait for the last message.
const PATIENCE: Duration = Duration::from_secs(30);

/// The time until the bridge's last response is recorded by the server.
const ACKNOWLEDGED: Duration = Duration::from_millis(30);

/// The content of each message: its sender and its number.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Numbered {
    pub(crate) sender: usize,
    pub(crate) n: usize,
}

/// An event or a message, of which only the content is read.
#[derive(Deserialize)]
pub(crate) struct Carried {
    content: serde_json::Value,
}

#[derive(Deserialize)]
struct Transaction {
    #[serde(default)]
    events: Vec<Carried>,
    #[serde(default, rename = "de.sorunome.msc2409.to_device")]
    to_device: Vec<Carried>,
}

/// The messages of the load that a transaction contains.
pub(crate) fn numbered(taken: &Taken) -> Vec<Numbered> {
    let body: Transaction = serde_json::from_slice(&taken.body).expect("a transaction is JSON");
    numbers(body.events.into_iter().chain(body.to_device)).collect()
}

/// The messages of the load among these events and messages; others are skipped.
pub(crate) fn numbers(
    carried: impl IntoIterator<Item = Carried>,
) -> impl Iterator<Item = Numbered> {
    carried
        .into_iter()
        .filter_map(|c| serde_json::from_value(c.content).ok())
}

/// The times at which a request was sent and answered.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) sent: Instant,
    pub(crate) answered: Instant,
}

/// The result of a load.
pub(crate) struct Run {
    pub(crate) spent: Spent,
    pub(crate) asked: Vec<Vec<Asked>>,
    /// The number of requests.
    pub(crate) count: usize,
    /// The times from the request to the receipt at the bridge.
    pub(crate) whole: Vec<Duration>,
    /// The times from the response to the receipt at the bridge.
    pub(crate) after: Vec<Duration>,
    pub(crate) faults: usize,
}

/// Sends `per` requests from each of `senders`, one after the other, each sender on a connection of its own.
pub(crate) async fn ask_all(
    world: &World,
    senders: usize,
    per: usize,
    make: impl Fn(usize, usize) -> Vec<u8>,
) -> Vec<Vec<Asked>> {
    let mut connections = Vec::new();
    for _ in 0..senders {
        connections.push(world.connect().await);
    }
    let make = &make;
    let each = connections
        .into_iter()
        .enumerate()
        .map(|(sender, mut connection)| async move {
            let mut asked = Vec::with_capacity(per);
            for n in 0..per {
                let request = make(sender, n);
                let sent = Instant::now();
                connection.ask(&request).await;
                asked.push(Asked {
                    sent,
                    answered: Instant::now(),
                });
            }
            asked
        });
    join_all(each).await
}

/// Sends a request from each of `senders` every `every`, for the time `lasting`, each sender on a connection of its own. A late
/// request is sent at once.
pub(crate) async fn ask_at_a_pace(
    world: &World,
    senders: usize,
    every: Duration,
    lasting: Duration,
    make: impl Fn(usize, usize) -> Vec<u8>,
) -> Vec<Vec<Asked>> {
    let mut connections = Vec::new();
    for _ in 0..senders {
        connections.push(world.connect().await);
    }
    let (make, begun) = (&make, Instant::now());
    let each = connections
        .into_iter()
        .enumerate()
        .map(|(sender, mut connection)| async move {
            // The senders do not start at the same time.
            let number = u32::try_from(sender).expect("not so many");
            let mut due = begun + every * number / u32::try_from(senders).expect("not so many");
            let mut asked = Vec::new();
            while due - begun < lasting {
                pause(due.saturating_duration_since(Instant::now())).await;
                let request = make(sender, asked.len());
                let sent = Instant::now();
                connection.ask(&request).await;
                asked.push(Asked {
                    sent,
                    answered: Instant::now(),
                });
                due += every;
            }
            asked
        });
    join_all(each).await
}

/// Sends requests as [`ask_all`] does, and waits for the messages at the bridge. Each message is expected
/// `copies` times.
pub(crate) async fn deliver(
    world: &World,
    senders: usize,
    per: usize,
    copies: usize,
    make: impl Fn(usize, usize) -> Vec<u8>,
) -> Run {
    let before = (world.bridge.count(), Mark::now(world.server()));
    let asked = ask_all(world, senders, per, make).await;
    arrived(world, before, asked, copies).await
}

/// Sends requests as [`ask_at_a_pace`] does, and waits for the messages at the bridge.
pub(crate) async fn deliver_at_a_pace(
    world: &World,
    senders: usize,
    every: Duration,
    lasting: Duration,
    make: impl Fn(usize, usize) -> Vec<u8>,
) -> Run {
    let before = (world.bridge.count(), Mark::now(world.server()));
    let asked = ask_at_a_pace(world, senders, every, lasting, make).await;
    arrived(world, before, asked, 1).await
}

/// Waits until the bridge has received every message that was sent, and counts the lost, doubled and reordered ones.
async fn arrived(
    world: &World,
    (skip, mark): (usize, Mark),
    asked: Vec<Vec<Asked>>,
    copies: usize,
) -> Run {
    let (senders, count) = (asked.len(), asked.iter().map(Vec::len).sum::<usize>());
    let expected = count * copies;
    let begun = Instant::now();
    let (mut seen, mut arrived) = (skip, Vec::new());
    while arrived.len() < expected && begun.elapsed() < PATIENCE {
        for taken in world.bridge.taken(seen) {
            seen += 1;
            arrived.extend(numbered(&taken).into_iter().map(|m| (m, taken.at)));
        }
        if arrived.len() < expected {
            pause(Duration::from_millis(2)).await;
        }
    }
    pause(ACKNOWLEDGED).await;
    let end = arrived.last().map_or_else(Instant::now, |(_, at)| *at);
    let spent = mark.until(world.server(), end);

    let mut next = vec![0; senders];
    let mut run = Run {
        spent,
        count,
        whole: Vec::new(),
        after: Vec::new(),
        faults: expected.abs_diff(arrived.len()),
        asked,
    };
    for (i, (message, at)) in arrived.iter().enumerate() {
        let Numbered { sender, n } = *message;
        // The copies of a message follow each other.
        if next[sender] != n {
            run.faults += 1;
        }
        if (i + 1) % copies == 0 {
            next[sender] = n + 1;
        }
        let asked = run.asked[sender][n];
        run.whole.push(*at - asked.sent);
        run.after.push(at.saturating_duration_since(asked.answered));
    }
    run
}

impl Run {
    /// The CPU time for each request.
    pub(crate) fn each(&self) -> Duration {
        self.spent.each(self.count)
    }

    /// The bytes that the server wrote for each request, to files and sockets.
    pub(crate) fn written_each(&self) -> f64 {
        let [written, count] = [
            self.spent.written,
            u64::try_from(self.count).expect("not so many"),
        ]
        .map(|n| f64::from(u32::try_from(n).expect("not so many")));
        written / count
    }

    /// A row of the table, for each of the `each` operations of a request.
    pub(crate) fn figure(self, name: impl Into<String>, goal: &'static str, each: usize) -> Figure {
        let mut figure = Figure::of(name, goal, self.spent, self.count * each).latency(self.whole);
        figure.faults = self.faults;
        figure
    }
}
