//! A simulation of the whole server: random schedules of everything that users, bridges and machines do, checked against a model
//! that is written from the text of the specification.
//!
//! - `SEED=7 cargo test -p understudy-tests --test simulation -- --nocapture` plays one schedule, and prints it if it fails.
//! - `SCHEDULES=10000 cargo test …` plays that many, from seed `FIRST` (0) on, `THREADS` (4) at a time.
//! - `SURVEY=1` lists all schedules that fail and does not stop at the first. `TELL=1`, with `SEED` or `KEPT`, prints the schedule
//!   even if it keeps every promise.
//! - `KEPT=name cargo test …` plays a schedule that failed before, from `kept/name.txt`, and prints it if it fails.
//! - `UNDERSTUDY_TEST_ENGINE=postgres` chooses the engine.

#![expect(
    clippy::manual_is_multiple_of,
    reason = "the numbers of a step are used modulo small constants, all in the same form"
)]

mod absorb;
mod backups;
mod bridges;
mod bridging;
mod clients;
mod end;
mod idle;
mod journal;
mod kept;
mod keys;
mod model;
mod names;
mod people;
mod pings;
mod play;
mod reading;
mod registering;
mod rng;
mod run;
mod seams;
mod server;
mod steps;
mod world;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use steps::{Step, schedule};

fn env_number(name: &str, otherwise: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number"))
    })
}

fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok()
}

#[test]
fn random_schedules_keep_every_promise() {
    if is_set("KEPT") {
        return;
    }
    if is_set("SEED") {
        let seed = env_number("SEED", 0);
        return play_one(&Named::of_seed(seed));
    }
    let first = env_number("FIRST", 0);
    play_all(env_number("SCHEDULES", 300), move |n| {
        Named::of_seed(first + n)
    });
}

/// The schedules in `kept/` are stored as steps, not as seeds, because adding a kind of step changes the schedule of every seed.
#[test]
fn schedules_that_failed_once_keep_every_promise() {
    let all = kept::all();
    if let Ok(name) = std::env::var("KEPT") {
        let one = all.iter().find(|kept| kept.name == name);
        return play_one(one.unwrap_or_else(|| panic!("there is no file kept/{name}.txt")));
    }
    if !is_set("SEED") && !is_set("SCHEDULES") {
        play_all(all.len() as u64, move |n| {
            all[usize::try_from(n).unwrap_or(0)].clone()
        });
    }
}

/// A schedule and its name.
#[derive(Debug, Clone)]
struct Named {
    name: String,
    steps: Vec<Step>,
    /// The command that plays it again.
    again: String,
}

impl Named {
    fn of_seed(seed: u64) -> Named {
        Named {
            name: format!("seed {seed}"),
            steps: schedule(seed),
            again: format!(
                "SEED={seed} cargo test -p understudy-tests --test simulation -- --nocapture"
            ),
        }
    }
}

fn play_one(one: &Named) {
    if let Some(story) = run::failure(one.steps.clone(), &one.again) {
        println!("{} fails", one.name);
        panic!("{story}");
    }
    println!("{} keeps every promise", one.name);
    if is_set("TELL") {
        println!("{}", run::report(&one.steps));
    }
}

/// Play `many` schedules, several at once. Stop at the first that fails, shrink it and print it.
fn play_all(many: u64, schedule: impl Fn(u64) -> Named + Send + Sync + 'static) {
    let next = Arc::new(AtomicUsize::new(0));
    let failed = Arc::new(Mutex::new(None::<(Named, usize)>));
    let (schedule, survey) = (Arc::new(schedule), is_set("SURVEY"));
    let workers: Vec<_> = (0..env_number("THREADS", 4))
        .map(|_| {
            let (next, failed) = (Arc::clone(&next), Arc::clone(&failed));
            let schedule = Arc::clone(&schedule);
            std::thread::spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at as u64 >= many || failed.lock().expect("not poisoned").is_some() {
                        return;
                    }
                    let named = schedule(at as u64);
                    if run::fails(&named.name, &named.steps) && !survey {
                        failed
                            .lock()
                            .expect("not poisoned")
                            .get_or_insert((named, at + 1));
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("a worker does not panic");
    }
    let failed = failed.lock().expect("not poisoned").take();
    if let Some((named, after)) = failed {
        let name = named.name;
        println!("found after {after} schedules, {name}");
        assert!(env_number("SHRINK", 1) > 0, "{name} fails");
        let story = run::failure(named.steps, &named.again)
            .unwrap_or_else(|| format!("{name} failed once, and does not fail again"));
        panic!("{story}");
    }
}
