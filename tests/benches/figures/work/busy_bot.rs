//! A busy bot: a thousand to-device messages and a thousand room events a second, and 50 ms for each response.

use std::time::{Duration, Instant};

use futures_util::future::join;
use serde_json::json;

use super::load::{Asked, ask_at_a_pace, numbered};
use super::rooms::room_with_ghost;
use super::to_device::send_to;
use crate::figure::{Figure, Mark, mebibytes, seconds};
use crate::http::{Taken, request};
use crate::server::pause;
use crate::world::{Plan, World, person_token};

/// The number of senders of each kind. Each sends 20 messages a second.
const SENDERS: usize = 50;

/// The time between two messages of a sender.
const EVERY: Duration = Duration::from_millis(50);

/// The duration of each response of the bot, in milliseconds.
const ANSWER: u64 = 50;

/// The longest time to wait for the last message.
const PATIENCE: Duration = Duration::from_secs(60);

/// The workload, for `UNDERSTUDY_BENCH_SECONDS` or a minute.
pub(crate) async fn busy_bot() -> Vec<Figure> {
    let lasting = seconds(60);
    let world = World::new(Plan {
        people: 2 * SENDERS,
        ghosts: SENDERS,
        ..Plan::default()
    })
    .await;
    let mut rooms = Vec::new();
    for owner in SENDERS..2 * SENDERS {
        rooms.push(room_with_ghost(&world, owner).await);
    }
    pause(Duration::from_millis(500)).await;
    // The first half sends messages to the bot's devices, the second half sends events to the bot's rooms.
    let make = |sender: usize, n: usize| match sender.checked_sub(SENDERS) {
        None => send_to(sender, sender, n, "busy"),
        Some(room) => {
            let path = format!(
                "/_matrix/client/v3/rooms/{}/send/m.room.encrypted/busy{n}",
                rooms[room]
            );
            let body = json!({
                "algorithm": "m.megolm.v1.aes-sha2", "sender": sender, "n": n, "ciphertext": "c".repeat(300),
                "session_id": "session", "device_id": "D", "sender_key": "key",
            });
            request("PUT", &path, &person_token(sender), &body.to_string())
        }
    };
    world.bridge.answer_after(ANSWER);
    let (skip, mark) = (world.bridge.count(), Mark::now(world.server()));
    let sampling = async {
        let mut resting = Vec::new();
        while resting.len() < usize::try_from(lasting.as_secs()).expect("a minute or so") {
            pause(Duration::from_secs(1)).await;
            resting.push(world.server().memory("VmRSS"));
        }
        resting
    };
    let sending = ask_at_a_pace(&world, 2 * SENDERS, EVERY, lasting, make);
    let (resting, asked) = join(sampling, sending).await;
    let sent = asked.iter().map(Vec::len).sum();
    let taken = all_of_it(&world, skip, sent).await;
    let spent = mark.until(world.server(), Instant::now());

    let (faults, times) = judged(&asked, &taken);
    let per_second = spent.cpu.as_secs_f64() / spent.wall.as_secs_f64() * 100.0;
    let title = format!(
        "a busy bot, {} s: to-device messages and room events together",
        lasting.as_secs()
    );
    let mut load = Figure::of(title, "2000/s", spent, sent).latency(times);
    load.faults = faults;
    let third = resting.len().div_ceil(3);
    let mean = |part: &[u64]| part.iter().sum::<u64>() / part.len().max(1) as u64;
    let (first, last) = (
        mean(&resting[..third]),
        mean(&resting[resting.len() - third..]),
    );
    let memory = format!("{} / {}", mebibytes(first), mebibytes(last));
    vec![
        load,
        Figure::said("… of one processor", "", format!("{per_second:.0} %")),
        Figure::said(
            "… transactions, items in each",
            "",
            format!("{} / {}", taken.len(), sent / taken.len().max(1)),
        ),
        Figure::said("… memory, first and last third", "flat", memory),
        Figure::said(
            "… memory, at most",
            "≤ 48 MiB",
            mebibytes(world.server().memory("VmHWM")),
        ),
    ]
}

/// The transactions without the first `skip`, once they contain `sent` messages. Waits a moment longer for messages that should
/// not come.
async fn all_of_it(world: &World, skip: usize, sent: usize) -> Vec<Taken> {
    let begun = Instant::now();
    let (mut seen, mut arrived) = (skip, 0);
    while arrived < sent && begun.elapsed() < PATIENCE {
        pause(Duration::from_millis(ANSWER)).await;
        for taken in world.bridge.taken(seen) {
            seen += 1;
            arrived += numbered(&taken).len();
        }
    }
    pause(Duration::from_millis(4 * ANSWER)).await;
    world.bridge.taken(skip)
}

/// The number of messages that were lost, duplicated or out of order, and the time of each from the request to the receipt.
fn judged(asked: &[Vec<Asked>], taken: &[Taken]) -> (usize, Vec<Duration>) {
    let (mut next, mut times, mut faults) = (vec![0; asked.len()], Vec::new(), 0);
    for transaction in taken {
        for message in numbered(transaction) {
            faults += usize::from(next[message.sender] != message.n);
            next[message.sender] = message.n + 1;
            times.push(transaction.at - asked[message.sender][message.n].sent);
        }
    }
    let sent: usize = asked.iter().map(Vec::len).sum();
    (faults + sent.abs_diff(times.len()), times)
}
