//! A simulation of the whole server: random schedules of everything that people, bridges and machines do, checked against a model
//! that is written from the specification's words.
//!
//! - `SEED=7 cargo test -p understudy-tests --test simulation -- --nocapture` plays one schedule, and tells it.
//! - `SCHEDULES=10000 cargo test …` plays so many, from `FIRST` (0) on; `THREADS` (2) at once.
//! - `SURVEY=1` names every schedule that fails, and stops at none.
//! - `UNDERSTUDY_TEST_ENGINE=postgres` chooses the engine.

#![expect(
    clippy::manual_is_multiple_of,
    reason = "the numbers of a step are read modulo: one form for each remainder"
)]

mod absorb;
mod bridges;
mod bridging;
mod chance;
mod clients;
mod end;
mod idle;
mod journal;
mod keys;
mod model;
mod people;
mod pings;
mod play;
mod reading;
mod run;
mod server;
mod steps;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

fn number(name: &str, otherwise: u64) -> u64 {
    let said = std::env::var(name).ok();
    said.map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number"))
    })
}

/// The schedules that once failed, one seed in a line; the rest of the line says why.
const SEEDS: &str = include_str!("seeds.txt");

#[test]
fn random_schedules_keep_every_promise() {
    if let Ok(seed) = std::env::var("SEED") {
        let seed = seed.parse().expect("SEED is a number");
        let failed = run::failure(seed);
        println!(
            "seed {seed}: {}",
            if failed.is_some() {
                "fails"
            } else {
                "keeps every promise"
            }
        );
        assert!(failed.is_none(), "{}", failed.unwrap_or_default());
        return;
    }
    let first = number("FIRST", 0);
    play_all((first..first + number("SCHEDULES", 300)).collect());
}

#[test]
fn schedules_that_failed_once_keep_every_promise() {
    let seeds = SEEDS
        .lines()
        .filter_map(|line| line.split(' ').next()?.parse().ok());
    if std::env::var("SEED").is_err() && std::env::var("SCHEDULES").is_err() {
        play_all(seeds.collect());
    }
}

/// Play them all, several at once; stop at the first that fails, shrink it and tell it.
fn play_all(seeds: Vec<u64>) {
    let (next, failed) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(Mutex::new(None::<(u64, usize)>)),
    );
    let seeds = Arc::new(seeds);
    let survey = std::env::var("SURVEY").is_ok();
    let workers: Vec<_> = (0..number("THREADS", 2))
        .map(|_| {
            let (next, failed, seeds) =
                (Arc::clone(&next), Arc::clone(&failed), Arc::clone(&seeds));
            std::thread::spawn(move || {
                loop {
                    let at =
                        usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap_or(usize::MAX);
                    if at >= seeds.len() || failed.lock().expect("not poisoned").is_some() {
                        return;
                    }
                    if run::fails(seeds[at]) && !survey {
                        failed
                            .lock()
                            .expect("not poisoned")
                            .get_or_insert((seeds[at], at + 1));
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("a worker ends");
    }
    let failed = failed.lock().expect("not poisoned").take();
    if let Some((seed, after)) = failed {
        println!("found after {after} schedules, seed {seed}");
        assert!(number("SHRINK", 1) > 0, "seed {seed} fails");
        let story = run::failure(seed)
            .unwrap_or_else(|| format!("seed {seed} failed once, and does not fail again"));
        panic!("{story}");
    }
}
