//! The process: its memory, its CPU time when idle, and the time of its start.

use std::time::{Duration, Instant};

use schema::inbox::{self, InboxRow};
use serde_json::json;

use super::load::{ask_all, deliver};
use super::to_device::send_to;
use crate::figure::{Figure, Mark, mebibytes, micros};
use crate::http::request;
use crate::server::{Server, pause};
use crate::world::{GHOST, Plan, World, ghost_id, in_pieces, person_id, person_token};

/// Memory when idle, then with 3,000 messages owed to a bridge that does not respond, then after 20,000 more once it responds.
pub(crate) async fn memory() -> Vec<Figure> {
    let plan = Plan {
        people: 256,
        ghosts: 256,
        ..Plan::default()
    };
    let mut figures = memory_of(World::new(plan).await, "").await;
    figures.extend(memory_of(World::in_development(plan).await, ", `dev`").await);
    figures
}

async fn memory_of(world: World, side: &str) -> Vec<Figure> {
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
    deliver(&world, 32, 20_000 / 32, 1, |s, n| send_to(s, s, n, "busy")).await;
    let busy = world.server().memory("VmHWM");
    let said = |name: &str, goal, measured| Figure::said(format!("{name}{side}"), goal, measured);
    vec![
        said("memory, idle", "≤ 32 MiB (20)", mebibytes(resting)),
        said("CPU a second, idle", "≤ 0.5 ms", micros(idle)),
        said(
            "memory, 3,000 messages owed to a bridge that hangs",
            "≤ 48 MiB (30)",
            mebibytes(owed),
        ),
        said(
            "memory, at most, while they are taken",
            "≤ 48 MiB (30)",
            mebibytes(peak),
        ),
        said(
            "memory, at most, after 20,000 more, 32 in flight",
            "≤ 48 MiB (30)",
            mebibytes(busy),
        ),
    ]
}

/// The time from the start of the process to its first response.
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
                // Messages to a device that never syncs, 10 KiB each.
                in_pieces(store, rows, |tx, i| {
                    let row = InboxRow {
                        position: tx.next_position().0,
                        user_id: person_id(i % 10),
                        device_id: "SLEEPS".to_owned(),
                        sender: person_id(0),
                        kind: "m.example".to_owned(),
                        content: format!("{{\"c\":\"{}\"}}", "c".repeat(10_000)),
                        ..InboxRow::default()
                    };
                    inbox::append(tx, vec![row]);
                    Ok(())
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
            micros(times[5]),
        );
        figures.push(figure.latency(times));
    }
    let _: &Server = world.server();
    figures
}
