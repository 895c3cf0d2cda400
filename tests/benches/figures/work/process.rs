//! The process itself: its memory, what it does when nothing happens, how soon it is ready.

use std::time::{Duration, Instant};

use schema::inbox::{self, InboxRow};
use serde_json::json;

use super::load::ask_all;
use crate::figure::{Figure, Mark, mebibytes};
use crate::http::request;
use crate::server::{Server, pause};
use crate::world::{GHOST, Plan, World, ghost_id, in_pieces, person_id, person_token};

/// Idle, and with 3,000 messages for a bridge that does not answer.
pub(crate) async fn memory() -> Vec<Figure> {
    let world = World::new(Plan {
        people: 256,
        ghosts: 256,
        ..Plan::default()
    })
    .await;
    pause(Duration::from_secs(1)).await;
    let mark = Mark::now(world.server());
    pause(Duration::from_secs(5)).await;
    let idle = mark.until(world.server(), Instant::now()).cpu / 5;
    let resting = world.server().memory("VmRSS");

    world.bridge.hold();
    ask_all(&world, 250, 12, |sender, n| {
        let path = format!("/_matrix/client/v3/sendToDevice/m.room.encrypted/{n}");
        let content = json!({"sender": sender, "n": n, "ciphertext": "c".repeat(800)});
        let body = json!({"messages": {ghost_id(sender): {GHOST: content}}});
        request("PUT", &path, &person_token(sender), &body.to_string())
    })
    .await;
    let owed = world.server().memory("VmRSS");
    world.bridge.release();
    pause(Duration::from_secs(2)).await;
    let peak = world.server().memory("VmHWM");
    vec![
        Figure::said("memory, idle", "≤ 32 MiB (20)", mebibytes(resting)),
        Figure::said(
            "CPU a second, idle",
            "≤ 0.5 ms",
            crate::figure::micros(idle),
        ),
        Figure::said(
            "memory, 3,000 messages owed to a bridge that hangs",
            "≤ 48 MiB (30)",
            mebibytes(owed),
        ),
        Figure::said(
            "memory, at most, while they are taken",
            "≤ 48 MiB (30)",
            mebibytes(peak),
        ),
    ]
}

/// From the start of the process to its first answer.
pub(crate) async fn start() -> Vec<Figure> {
    let mut world = World::new(Plan {
        people: 10,
        ghosts: 10,
        ..Plan::default()
    })
    .await;
    let mut figures = Vec::new();
    for (name, rows) in [
        ("an existing database", 0),
        ("a database of 1 GiB", 100_000),
    ] {
        world
            .change(async |store| {
                // To a device that never asks: 10 KiB each.
                in_pieces(store, rows, |tx, i| {
                    let row = InboxRow {
                        position: tx.next_position().0,
                        user_id: person_id(i % 10),
                        device_id: "SLEEPS".to_owned(),
                        sender: person_id(0),
                        kind: "m.example".to_owned(),
                        content: format!("{{\"c\":\"{}\"}}", "c".repeat(10_000)),
                    };
                    inbox::append(tx, &[row], &[])
                })
                .await;
            })
            .await;
        let mut times = Vec::new();
        for _ in 0..10 {
            times.push(world.server().ready_after);
            world.change(async |_| {}).await;
        }
        times.sort();
        let figure = Figure::said(
            format!("ready on {name}, median"),
            "≤ 30 ms",
            crate::figure::micros(times[5]),
        );
        figures.push(figure.latency(times));
    }
    let _: &Server = world.server();
    figures
}
