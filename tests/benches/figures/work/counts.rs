//! The key counts in transactions: the three policies, with growing numbers of ghosts.

use std::time::{Duration, Instant};

use super::to_device::send_to;
use crate::figure::{Figure, Mark, mebibytes, percentiles, seconds};
use crate::server::pause;
use crate::world::{Plan, World};

/// The numbers of ghosts, each with a device that has keys.
const USERS: [usize; 4] = [10, 1_000, 100_000, 1_000_000];

/// The policies, by their names in a registration.
const POLICIES: [&str; 3] = ["recipients", "changed", "always"];

/// The most transactions to measure. Stops earlier after [`seconds`], but not before two transactions.
const TRANSACTIONS: usize = 50;

/// The longest time for a transaction: the counts of a million users are some hundred MiB.
const PATIENCE: Duration = Duration::from_secs(180);

/// Sends one message after the other, each in a transaction of its own, with the counts that the policy adds.
pub(crate) async fn policies() -> Vec<Figure> {
    let mut figures = Vec::new();
    for users in USERS {
        let plan = Plan {
            people: 1,
            ghosts: users,
            keys: 1,
            ..Plan::default()
        };
        let mut world = World::in_development(plan).await;
        // The first start registers two users, and hashing their passwords takes memory.
        world.settled().await;
        for policy in POLICIES {
            world.register("org.understudy.counts", policy).await;
            figures.push(measured(&world, policy, users).await);
        }
    }
    figures
}

async fn measured(world: &World, policy: &str, users: usize) -> Figure {
    let mut connection = world.connect().await;
    let series = format!("{policy}{users}.");
    // The first transaction also contains what the changed registration made the server owe.
    connection.ask(&send_to(0, 0, 0, &series)).await;
    world.settled().await;
    let (skip, mark, begun) = (
        world.bridge.count(),
        Mark::now(world.server()),
        Instant::now(),
    );
    let mut times = Vec::new();
    let enough = |done: usize| done >= TRANSACTIONS || (done >= 2 && begun.elapsed() > seconds(10));
    while !enough(times.len()) {
        let n = times.len() + 1;
        let sent = Instant::now();
        connection.ask(&send_to(n % users, 0, n, &series)).await;
        while world.bridge.count() < skip + n && sent.elapsed() < PATIENCE {
            pause(Duration::from_micros(500)).await;
        }
        times.push(sent.elapsed());
    }
    world.settled().await;
    let spent = mark.until(world.server(), Instant::now());
    let taken = world.bridge.taken(skip);
    let bytes: usize = taken.iter().map(|t| t.body.len()).sum();
    let count = times.len();
    let memory = mebibytes(world.server().memory("VmHWM"));
    let mut figure = Figure::of(
        format!(
            "`{policy}`, {users} users, a transaction ({count} measured; memory at most {memory})"
        ),
        "",
        spent,
        count,
    );
    let each = u32::try_from(bytes / taken.len().max(1)).expect("below 4 GiB");
    figure.rate = format!("{:.1} KiB", f64::from(each) / 1024.0);
    figure.latency = percentiles(times);
    figure.faults = taken.len().abs_diff(count);
    figure
}
