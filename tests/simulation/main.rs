//! A simulation of the whole server: random schedules of everything that people, bridges and machines do, checked against a model
//! that is written from the specification's words.
//!
//! - `SEED=7 cargo test -p understudy-tests --test simulation -- --nocapture` plays one schedule, and tells it.
//! - `SCHEDULES=10000 cargo test …` plays so many, from `FIRST` (0) on; `THREADS` (4) at once.
//! - `SURVEY=1` names every schedule that fails, and stops at none. `TELL=1`, with `SEED`, tells also one that keeps every promise.
//! - `KEPT=name cargo test …` plays one of the schedules that failed once, from `kept/name.txt`, and tells it if it fails.
//! - `UNDERSTUDY_TEST_ENGINE=postgres` chooses the engine.

#![expect(
    clippy::manual_is_multiple_of,
    reason = "the numbers of a step are read modulo: one form for each remainder"
)]

mod absorb;
mod backups;
mod bridges;
mod bridging;
mod chance;
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
mod run;
mod seams;
mod server;
mod steps;
mod world;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use steps::{Step, schedule};

fn number(name: &str, otherwise: u64) -> u64 {
    let said = std::env::var(name).ok();
    said.map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number"))
    })
}

fn is_said(name: &str) -> bool {
    std::env::var(name).is_ok()
}

#[test]
fn random_schedules_keep_every_promise() {
    if is_said("KEPT") {
        return;
    }
    if is_said("SEED") {
        let seed = number("SEED", 0);
        return play_one(&Named::of_seed(seed));
    }
    let first = number("FIRST", 0);
    play_all(number("SCHEDULES", 300), move |n| Named::of_seed(first + n));
}

/// The schedules in `kept/` are played as they stand there: a seed means another schedule as soon as there is another kind of step.
#[test]
fn schedules_that_failed_once_keep_every_promise() {
    let all = kept::all();
    if let Ok(name) = std::env::var("KEPT") {
        let one = all.iter().find(|kept| kept.name == name);
        return play_one(one.unwrap_or_else(|| panic!("kept/{name}.txt is not there")));
    }
    if !is_said("SEED") && !is_said("SCHEDULES") {
        play_all(all.len() as u64, move |n| {
            all[usize::try_from(n).unwrap_or(0)].clone()
        });
    }
}

/// A schedule, and how it is named.
#[derive(Debug, Clone)]
struct Named {
    name: String,
    steps: Vec<Step>,
    /// What has to be typed to play it again.
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
    if is_said("TELL") {
        println!("{}", run::told(&one.steps));
    }
}

/// Play so many schedules, several at once; stop at the first that fails, shrink it and tell it.
fn play_all(many: u64, schedule: impl Fn(u64) -> Named + Send + Sync + 'static) {
    let next = Arc::new(AtomicUsize::new(0));
    let failed = Arc::new(Mutex::new(None::<(Named, usize)>));
    let (schedule, survey) = (Arc::new(schedule), is_said("SURVEY"));
    let workers: Vec<_> = (0..number("THREADS", 4))
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
        worker.join().expect("a worker ends");
    }
    let failed = failed.lock().expect("not poisoned").take();
    if let Some((named, after)) = failed {
        let name = named.name;
        println!("found after {after} schedules, {name}");
        assert!(number("SHRINK", 1) > 0, "{name} fails");
        let story = run::failure(named.steps, &named.again)
            .unwrap_or_else(|| format!("{name} failed once, and does not fail again"));
        panic!("{story}");
    }
}
