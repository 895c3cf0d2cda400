//! To-device messages to a bridge.

use std::time::Duration;

use serde_json::{Map, json};

use super::load::{Run, deliver, deliver_at_a_pace};
use crate::figure::{Figure, percentiles};
use crate::http::request;
use crate::world::{GHOST, Plan, World, ghost_id, person_token};

/// The content of an encrypted room key: 600 bytes.
fn content(sender: usize, n: usize) -> serde_json::Value {
    json!({
        "algorithm": "m.olm.v1.curve25519-aes-sha2", "sender": sender, "n": n,
        "sender_key": "3C5BFWi2Y8MaVvjM8M22DBmh24PmgR0nPvJOIArzgyI", "ciphertext": "c".repeat(450),
    })
}

/// A to-device message from a user to a ghost.
pub(crate) fn send_to(ghost: usize, sender: usize, n: usize, series: &str) -> Vec<u8> {
    let path = format!("/_matrix/client/v3/sendToDevice/m.room.encrypted/{series}{n}");
    let body = json!({"messages": {ghost_id(ghost): {GHOST: content(sender, n)}}});
    request("PUT", &path, &person_token(sender), &body.to_string())
}

fn send(sender: usize, n: usize, series: &str) -> Vec<u8> {
    send_to(sender, sender, n, series)
}

async fn run(world: &World, senders: usize, total: usize, series: &str) -> Run {
    let warm = format!("{series}warm");
    deliver(world, senders, 200 / senders + 1, 1, |s, n| {
        send(s, n, &warm)
    })
    .await;
    deliver(world, senders, total / senders, 1, |s, n| {
        send(s, n, series)
    })
    .await
}

/// How often each server is measured. The servers take turns, so that a disturbance affects all of them, and the median counts.
const ROUNDS: usize = 3;

/// The measured servers, the yardstick first, each with what its rows add to the name.
async fn sides(plan: Plan) -> Vec<(&'static str, World)> {
    let lean = Plan {
        postgres: false,
        ..plan
    };
    let mut sides = vec![("the yardstick", World::yardstick(lean).await)];
    if plan.postgres {
        sides.push(("PostgreSQL", World::new(plan).await));
    } else {
        sides.push(("", World::new(plan).await));
        sides.push(("`dev`", World::in_development(plan).await));
    }
    sides
}

/// Applies a load to each server in turn, several times. Returns the median run of each server, with the sum of the lost,
/// duplicated and reordered messages of all its runs.
async fn in_turns(
    sides: &[(&'static str, World)],
    load: impl AsyncFn(&World, usize) -> Run,
) -> Vec<Run> {
    let mut runs: Vec<Vec<Run>> = sides.iter().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        for ((_, world), runs) in sides.iter().zip(&mut runs) {
            runs.push(load(world, round).await);
        }
    }
    let median = |mut runs: Vec<Run>| {
        runs.sort_by_key(Run::each);
        let faults = runs.iter().map(|run| run.faults).sum();
        let mut median = runs.swap_remove(ROUNDS / 2);
        median.faults = faults;
        median
    };
    runs.into_iter().map(median).collect()
}

/// The rows of the table, one for each server.
fn lines(
    name: &str,
    goal: &'static str,
    sides: &[(&'static str, World)],
    runs: Vec<Run>,
) -> Vec<Figure> {
    let yardstick = runs[0].each();
    let line = |((side, _), run): (&(&str, World), Run)| {
        let name = [name, *side].into_iter().filter(|part| !part.is_empty());
        let name = name.collect::<Vec<_>>().join(", ");
        // The goals are for the server, on SQLite or PostgreSQL.
        let goal = if matches!(*side, "" | "PostgreSQL") {
            goal
        } else {
            ""
        };
        let each = run.each();
        run.figure(name, goal, 1).beside(each, yardstick)
    };
    sides.iter().zip(runs).map(line).collect()
}

/// Measures 1, 16, 32 and 256 requests in flight, each with a sender and a recipient of its own.
pub(crate) async fn in_flight(postgres: bool) -> Vec<Figure> {
    let sides = sides(Plan {
        people: 256,
        ghosts: 256,
        postgres,
        ..Plan::default()
    })
    .await;
    let mut figures = Vec::new();
    for (senders, total, goal) in [
        (1, 600, "≤ 0.9 ms"),
        (16, 4_800, ""),
        (32, 9_600, "≤ 0.12 ms"),
        (256, 12_800, ""),
    ] {
        let load = async |world: &World, round| {
            run(world, senders, total, &format!("f{senders}.{round}.")).await
        };
        let runs = in_turns(&sides, load).await;
        let after: Vec<_> = runs
            .iter()
            .map(|run| percentiles(run.after.clone()))
            .collect();
        let bytes: Vec<_> = runs.iter().map(Run::written_each).collect();
        let name = format!("to-device to a bridge, {senders} in flight");
        figures.extend(lines(&name, goal, &sides, runs));
        for ((side, _), after) in sides.iter().zip(after).filter(|_| senders == 1) {
            let side = if side.is_empty() {
                String::new()
            } else {
                format!(", {side}")
            };
            let name = format!("… from the answer to the bridge{side}");
            let mut line = Figure::said(name, "p50 ≤ 0.5 ms", String::new());
            line.latency = after;
            figures.push(line);
        }
        for ((side, _), each) in sides.iter().zip(&bytes).filter(|_| senders == 32) {
            let side = if side.is_empty() {
                ""
            } else {
                &format!(", {side}")
            };
            let name = format!("… bytes written for each{side}");
            let mut line = Figure::said(name, "", format!("{each:.0} bytes"));
            line.ratio = format!("{:.1}", each / bytes[0]);
            figures.push(line);
        }
    }
    figures
}

/// Measures the same at paces at which the server has time to sleep. Commits and transactions then carry few messages, and each
/// message costs more.
pub(crate) async fn at_a_pace() -> Vec<Figure> {
    const SENDERS: usize = 32;
    let sides = sides(Plan {
        people: SENDERS,
        ghosts: SENDERS,
        ..Plan::default()
    })
    .await;
    let mut figures = Vec::new();
    for per_second in [500, 2_000, 4_000] {
        let every = Duration::from_secs(1) * u32::try_from(SENDERS).expect("few") / per_second;
        let load = async |world: &World, round| {
            let series = format!("p{per_second}.{round}.");
            let lasting = Duration::from_secs(3);
            let make = |s, n| send(s, n, &series);
            deliver_at_a_pace(world, SENDERS, every, lasting, make).await
        };
        let runs = in_turns(&sides, load).await;
        let name = format!("to-device to a bridge, {per_second} a second");
        figures.extend(lines(&name, "", &sides, runs));
    }
    figures
}

/// One request to 500 recipients.
pub(crate) async fn many_recipients() -> Vec<Figure> {
    const RECIPIENTS: usize = 500;
    let sides = sides(Plan {
        people: 1,
        ghosts: RECIPIENTS,
        ..Plan::default()
    })
    .await;
    let make = |series: String| {
        move |sender: usize, n: usize| {
            let messages: Map<_, _> = (0..RECIPIENTS)
                .map(|i| (ghost_id(i), json!({GHOST: content(sender, n)})))
                .collect();
            let path = format!("/_matrix/client/v3/sendToDevice/m.room.encrypted/{series}{n}");
            let body = json!({"messages": messages}).to_string();
            request("PUT", &path, &person_token(sender), &body)
        }
    };
    let load = async |world: &World, round| {
        deliver(world, 1, 2, RECIPIENTS, make(format!("warm{round}."))).await;
        let mut run = deliver(world, 1, 20, RECIPIENTS, make(format!("r{round}."))).await;
        // Counts recipients, not requests.
        run.count *= RECIPIENTS;
        run
    };
    let runs = in_turns(&sides, load).await;
    let name = "one request to 500 recipients, a recipient";
    lines(name, "≤ 0.04 ms (0.02)", &sides, runs)
}

/// The same load with 10, ten thousand and a million registered ghosts.
pub(crate) async fn namespaces() -> Vec<Figure> {
    let mut figures = Vec::new();
    for silent in [10, 10_000, 1_000_000] {
        let world = World::new(Plan {
            people: 32,
            ghosts: 32,
            silent,
            ..Plan::default()
        })
        .await;
        let run = run(&world, 32, 9_600, "n").await;
        let name = format!("to-device, 32 in flight, {silent} users in the namespace");
        figures.push(run.figure(name, "flat", 1));
    }
    figures
}
