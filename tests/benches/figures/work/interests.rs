//! Looking up the appservices that claim a user: its cost, and what it adds to the cost of a message.

use std::hint::black_box;
use std::time::{Duration, Instant};

use actors::services::{Interests, Proposals, Registration};

use super::load::deliver;
use super::to_device::send_to;
use crate::figure::Figure;
use crate::world::{Plan, World, other_registration};

/// The numbers of appservices with which the look-up is measured, one after the other.
const SERVICES: [usize; 3] = [1, 100, 1_000];

/// The numbers of users from which the looked-up users are drawn at random.
const USERS: [usize; 4] = [10, 1_000, 100_000, 1_000_000];

/// The number of users that are looked up in each measurement.
const ASKS: usize = 400_000;

/// Random numbers below `n`, the same in every run.
fn at_random(n: usize) -> impl Iterator<Item = usize> {
    let mut state = 1u64;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).expect("31 bits") % n
    })
}

/// Compiles the registrations of this number of appservices, each with a namespace that names the server, as most registrations
/// have. Returns also how long it took.
fn compiled(services: usize) -> (Interests, Duration) {
    let registration = |i| {
        let value = other_registration(i, "http://localhost:1");
        let registration: Registration = serde_json::from_value(value).expect("a registration");
        (registration, false)
    };
    let all: Vec<_> = (0..services).map(registration).collect();
    let begun = Instant::now();
    let interests = Interests::compile("bench", all, &Proposals::default()).expect("patterns");
    (interests, begun.elapsed())
}

/// The name of a user. One user in four belongs to no appservice; the others are distributed among the appservices.
fn name(user: usize, services: usize) -> String {
    match user % 4 {
        0 => format!("@person{user}:bench"),
        _ => format!("@svc{}_{user}:bench", user % services),
    }
}

/// Looks up the appservices that claim these users. Returns the CPU time of this thread for each, in nanoseconds.
fn each(interests: &Interests, names: &[String]) -> u64 {
    let begun = spent();
    for name in names {
        black_box(interests.in_user(black_box(name)));
    }
    (spent() - begun) / u64::try_from(names.len()).expect("not so many")
}

/// The CPU time of this thread as the kernel counts it, in nanoseconds.
fn spent() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("it runs");
    let first = text.split(' ').next();
    first
        .and_then(|nanos| nanos.parse().ok())
        .expect("a number")
}

/// Measures the look-up alone: for users drawn at random from a number of users, and for users that were not looked up before.
pub(crate) async fn questions() -> Vec<Figure> {
    let mut figures = Vec::new();
    for services in SERVICES {
        let mut said = Vec::new();
        let (interests, compiling) = compiled(services);
        for users in USERS {
            let names: Vec<_> = at_random(users).take(ASKS).collect();
            let names: Vec<_> = names.into_iter().map(|u| name(u, services)).collect();
            // By then the cache contains as many answers as it can.
            each(&interests, &names);
            said.push(each(&interests, &names).to_string());
        }
        let fresh: Vec<_> = (0..ASKS).map(|i| name(2_000_000 + i, services)).collect();
        let never = each(&interests, &fresh);
        let title = format!(
            "who claims a user, services: {services}, at random of 10 / 1,000 / 100,000 / 1,000,000 users"
        );
        figures.push(Figure::said(title, "", format!("{} ns", said.join(" / "))));
        figures.push(Figure::said(
            "… never asked about before",
            "≤ 2 µs",
            format!("{never} ns"),
        ));
        figures.push(Figure::said(
            "… compiled in",
            "",
            crate::figure::micros(compiling),
        ));
    }
    figures
}

/// Measures to-device messages to users drawn at random from ten and from a million, all with devices, with 1, 100 and 1,000
/// appservices.
pub(crate) async fn messages() -> Vec<Figure> {
    const SENDERS: usize = 32;
    let mut figures = Vec::new();
    for users in [10, 1_000_000] {
        let mut world = World::new(Plan {
            people: SENDERS,
            ghosts: users,
            ..Plan::default()
        })
        .await;
        for services in SERVICES {
            world.register_others(services - 1).await;
            // Waits until all registrations are in force.
            world.settled().await;
            let to: Vec<_> = at_random(users).take(16_384).collect();
            let make = |series: &'static str| {
                let to = &to;
                move |sender: usize, n: usize| {
                    send_to(
                        to[(sender * 509 + n) % to.len()],
                        sender,
                        n,
                        &format!("{series}{services}."),
                    )
                }
            };
            deliver(&world, SENDERS, 20, 1, make("warm")).await;
            let run = deliver(&world, SENDERS, 300, 1, make("m")).await;
            let title = format!(
                "to-device, 32 in flight, services: {services}, to {users} users at random"
            );
            figures.push(run.figure(title, "flat", 1));
        }
    }
    figures
}
