//! To-device messages to a bridge.

use serde_json::{Map, json};

use super::load::{Run, deliver};
use crate::figure::{Figure, percentiles};
use crate::http::request;
use crate::world::{GHOST, Plan, World, ghost_id, person_token};

/// As long as an encrypted room key.
fn content(sender: usize, n: usize) -> serde_json::Value {
    json!({
        "algorithm": "m.olm.v1.curve25519-aes-sha2", "sender": sender, "n": n,
        "sender_key": "3C5BFWi2Y8MaVvjM8M22DBmh24PmgR0nPvJOIArzgyI", "ciphertext": "c".repeat(700),
    })
}

/// A message from a person to a user of the bridge.
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

/// With 1, 16, 32 and 256 in flight, each from somebody else to somebody else.
pub(crate) async fn in_flight(postgres: bool) -> Vec<Figure> {
    let world = World::new(Plan {
        people: 256,
        ghosts: 256,
        postgres,
        ..Plan::default()
    })
    .await;
    let engine = if postgres { ", PostgreSQL" } else { "" };
    let mut figures = Vec::new();
    for (senders, total, goal) in [
        (1, 1_500, "≤ 0.9 ms"),
        (16, 8_000, ""),
        (32, 16_000, "≤ 0.12 ms"),
        (256, 25_600, ""),
    ] {
        let run = run(&world, senders, total, &format!("f{senders}.")).await;
        let after = percentiles(run.after.clone());
        let name = format!("to-device to a bridge, {senders} in flight{engine}");
        figures.push(run.figure(name, goal, 1));
        if senders == 1 {
            let name = format!("… from the answer to the bridge{engine}");
            let mut line = Figure::said(name, "p50 ≤ 0.5 ms", String::new());
            line.latency = after;
            figures.push(line);
        }
    }
    figures
}

/// One request to 500 recipients.
pub(crate) async fn many_recipients() -> Vec<Figure> {
    const RECIPIENTS: usize = 500;
    let world = World::new(Plan {
        people: 1,
        ghosts: RECIPIENTS,
        ..Plan::default()
    })
    .await;
    let make = |series: &'static str| {
        move |sender: usize, n: usize| {
            let messages: Map<_, _> = (0..RECIPIENTS)
                .map(|i| (ghost_id(i), json!({GHOST: content(sender, n)})))
                .collect();
            let path = format!("/_matrix/client/v3/sendToDevice/m.room.encrypted/{series}{n}");
            let body = json!({"messages": messages}).to_string();
            request("PUT", &path, &person_token(sender), &body)
        }
    };
    deliver(&world, 1, 2, RECIPIENTS, make("warm")).await;
    let run = deliver(&world, 1, 20, RECIPIENTS, make("r")).await;
    vec![run.figure(
        "one request to 500 recipients, a recipient",
        "≤ 0.04 ms (0.02)",
        RECIPIENTS,
    )]
}

/// The same load beside 10, ten thousand and a million registered users.
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
