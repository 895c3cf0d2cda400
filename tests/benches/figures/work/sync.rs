//! `/sync` that waits, and is woken by one message.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::person::segment;

use crate::figure::{Figure, Mark, Spent};
use crate::http::{Connection, request};
use crate::server::pause;
use crate::world::{Plan, World, person_id, person_token};

const ROUNDS: usize = 500;

async fn sync(connection: &mut Connection, since: Option<&str>, timeout: u32) -> Value {
    let since = since.map(|s| format!("&since={}", segment(s)));
    let path = format!(
        "/_matrix/client/v3/sync?timeout={timeout}{}",
        since.unwrap_or_default()
    );
    let answer = connection
        .ask(&request("GET", &path, &person_token(1), ""))
        .await;
    serde_json::from_slice(&answer).expect("JSON")
}

fn send(to: usize, n: usize) -> Vec<u8> {
    let body = json!({"messages": {person_id(to): {"D": {"sender": 0, "n": n}}}});
    let path = format!("/_matrix/client/v3/sendToDevice/m.example/{to}.{n}");
    request("PUT", &path, &person_token(0), &body.to_string())
}

/// What a woken `/sync` costs: rounds of a message and the `/sync` it wakes, less the same messages to somebody who sleeps.
pub(crate) async fn wake_up() -> Vec<Figure> {
    let world = World::new(Plan {
        people: 3,
        ..Plan::default()
    })
    .await;
    let mut sender = world.connect().await;
    for n in 0..100 {
        sender.ask(&send(2, n)).await;
    }
    let mark = Mark::now(world.server());
    for n in 100..100 + ROUNDS {
        sender.ask(&send(2, n)).await;
    }
    let alone = mark.until(world.server(), Instant::now());

    let mut waiting = world.connect().await;
    let mut since = sync(&mut waiting, None, 0).await["next_batch"].clone();
    let (mut spent, mut times, mut faults) = (Spent::default(), Vec::new(), 0);
    for n in 0..ROUNDS {
        let mark = Mark::now(world.server());
        let text = since.as_str().expect("a token").to_owned();
        let round = async {
            let answer = sync(&mut waiting, Some(&text), 30_000).await;
            (answer, Instant::now())
        };
        let begun = async {
            // The long-poll has looked, found nothing, and waits.
            pause(Duration::from_millis(3)).await;
            let sent = Instant::now();
            sender.ask(&send(1, n)).await;
            sent
        };
        let ((answer, at), sent) = futures_util::future::join(round, begun).await;
        let one = mark.until(world.server(), at);
        spent.cpu += one.cpu;
        spent.wall += at - sent;
        times.push(at - sent);
        let events = answer["to_device"]["events"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let right = events.len() == 1 && events[0]["content"]["n"] == json!(n);
        faults += usize::from(!right);
        since = answer["next_batch"].clone();
    }
    spent.cpu = spent.cpu.saturating_sub(alone.cpu);
    let name = "`/sync` that waits and is woken by one message, without the message";
    let mut figure = Figure::of(name, "≤ 0.15 ms", spent, ROUNDS).latency(times);
    figure.rate = String::new();
    figure.faults = faults;
    vec![figure]
}
