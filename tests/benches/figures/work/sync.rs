//! A long-polling `/sync` that one message wakes.

use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use serde_json::{Value, json};
use tests::person::segment;

use crate::figure::{Figure, Mark, Spent};
use crate::http::{Connection, request};
use crate::server::pause;
use crate::world::{Plan, World, person_id, person_token};

/// The number of long-polls at a time.
const PAIRS: usize = 32;

const ROUNDS: usize = 40;

/// The time after which the long-polls have queried the database, found nothing, and wait.
const PARKED: Duration = Duration::from_millis(20);

/// A `/sync` of user `i` of the second third. Sender `i` of the first third wakes it.
async fn sync(i: usize, connection: &mut Connection, since: Option<&str>) -> Value {
    let query = since.map_or_else(
        || "timeout=0".to_owned(),
        |since| format!("timeout=30000&since={}", segment(since)),
    );
    let path = format!("/_matrix/client/v3/sync?{query}");
    let request = request("GET", &path, &person_token(PAIRS + i), "");
    serde_json::from_slice(&connection.ask(&request).await).expect("JSON")
}

fn send(i: usize, to: usize, n: usize) -> Vec<u8> {
    let body = json!({"messages": {person_id(to): {"D": {"sender": i, "n": n}}}});
    let path = format!("/_matrix/client/v3/sendToDevice/m.example/{to}.{n}");
    request("PUT", &path, &person_token(i), &body.to_string())
}

async fn send_all(senders: &mut [Connection], first: usize, n: usize) {
    let each = senders.iter_mut().enumerate();
    join_all(each.map(|(i, c)| async move { c.ask(&send(i, first + i, n)).await })).await;
}

/// Measures a woken `/sync`: the cost of messages with the `/sync` requests that they wake, minus the cost of the same messages
/// to users that do not sync.
pub(crate) async fn wake_up() -> Vec<Figure> {
    let world = World::new(Plan {
        people: 3 * PAIRS,
        ..Plan::default()
    })
    .await;
    let (mut senders, mut waiting) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        senders.push(world.connect().await);
        waiting.push(world.connect().await);
    }
    let mut alone = Spent::default();
    for n in 0..ROUNDS {
        let mark = Mark::now(world.server());
        pause(PARKED).await;
        send_all(&mut senders, 2 * PAIRS, n).await;
        alone.cpu += mark.until(world.server(), Instant::now()).cpu;
    }

    let mut since = Vec::new();
    for (i, connection) in waiting.iter_mut().enumerate() {
        since.push(sync(i, connection, None).await["next_batch"].clone());
    }
    let (mut spent, mut times, mut faults) = (Spent::default(), Vec::new(), 0);
    for n in 0..ROUNDS {
        let mark = Mark::now(world.server());
        let woken = waiting.iter_mut().zip(&since).enumerate();
        let woken = join_all(woken.map(|(i, (connection, since))| async move {
            (sync(i, connection, since.as_str()).await, Instant::now())
        }));
        let sent = async {
            pause(PARKED).await;
            let sent = Instant::now();
            send_all(&mut senders, PAIRS, n).await;
            sent
        };
        let (woken, sent) = join(woken, sent).await;
        spent.cpu += mark.until(world.server(), Instant::now()).cpu;
        since.clear();
        for (answer, at) in woken {
            times.push(at - sent);
            let events = answer["to_device"]["events"].as_array();
            let right = events.is_some_and(|e| e.len() == 1 && e[0]["content"]["n"] == json!(n));
            faults += usize::from(!right);
            since.push(answer["next_batch"].clone());
        }
    }
    spent.cpu = spent.cpu.saturating_sub(alone.cpu);
    let name = format!("`/sync` that waits and is woken, {PAIRS} at once, without what woke it");
    let mut figure = Figure::of(name, "≤ 0.15 ms", spent, ROUNDS * PAIRS).latency(times);
    figure.rate = String::new();
    figure.faults = faults;
    vec![figure]
}
