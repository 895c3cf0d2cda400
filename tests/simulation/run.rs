//! Running one schedule, making a failing one short, and telling it.

use std::time::{Duration, Instant};

use crate::bridging::OBSERVERS;
use crate::server::Server;
use crate::steps::{Step, schedule};
use crate::world::{Broken, World};

/// How long a failing schedule is made shorter.
const PATIENCE: Duration = Duration::from_secs(90);

/// What came of a schedule.
struct Outcome {
    broken: Option<Broken>,
    /// How many steps were played.
    played: usize,
    words: Vec<String>,
    story: String,
}

async fn play(steps: &[Step], recording: bool) -> Outcome {
    let server = Server::new(&OBSERVERS, &understudy::mscs::by_default());
    let mut world = World::new(server, recording).await;
    world.write_registrations();
    let mut played = 0;
    let mut result = world.start().await;
    if result.is_ok() {
        result = world.register_people().await;
    }
    if result.is_ok() {
        result = world.absorb().await;
    }
    if result.is_ok() {
        for step in steps {
            played += 1;
            result = world.play(*step).await;
            if result.is_err() {
                break;
            }
        }
    }
    if result.is_ok() {
        result = world.faults_end().await;
    }
    let story = if recording {
        world.log.text()
    } else {
        String::new()
    };
    world.server.trouble.arm(None);
    world.server.kill().await;
    Outcome {
        broken: result.err(),
        played,
        words: world.words,
        story,
    }
}

fn play_once(steps: &[Step], recording: bool) -> Outcome {
    let steps = steps.to_vec();
    actix_rt::System::new().block_on(async move { play(&steps, recording).await })
}

/// Whether the schedule of a seed breaks a promise.
pub(crate) fn fails(seed: u64) -> bool {
    let outcome = play_once(&schedule(seed), false);
    if let Some(broken) = &outcome.broken {
        println!("seed {seed}: {}: {}", broken.promise, broken.what);
    }
    outcome.broken.is_some()
}

/// The failure of a seed, told: the promise, the shortest schedule that breaks it, and its transcript.
pub(crate) fn failure(seed: u64) -> Option<String> {
    let mut steps = schedule(seed);
    let outcome = play_once(&steps, false);
    let promise = outcome.broken?.promise;
    let whole = steps.len();
    steps.truncate(outcome.played);
    shorten(&mut steps, promise);
    let told = play_once(&steps, true);
    let what = told.broken.map_or_else(
        || "(it did not fail again while it was told)".to_owned(),
        |b| b.what,
    );
    let words: Vec<String> = told
        .words
        .iter()
        .enumerate()
        .map(|(i, w)| format!("{:3}. {w}", i + 1))
        .collect();
    Some(format!(
        "\n=== the promise that does not hold ===\n{promise}\n{what}\n\n=== {} of {whole} steps are enough ===\n{}\n\n=== the transcript ===\n{}\n=== to play it again ===\nSEED={seed} cargo test -p understudy-tests --test simulation -- --nocapture\n",
        steps.len(),
        words.join("\n"),
        told.story,
    ))
}

/// Leave out steps, many at once and then fewer, as long as the same promise is broken.
fn shorten(steps: &mut Vec<Step>, promise: &str) {
    let begun = Instant::now();
    let mut size = (steps.len() / 2).max(1);
    loop {
        let mut at = 0;
        let mut shorter = false;
        while at < steps.len() && begun.elapsed() < PATIENCE {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + size).min(fewer.len()));
            if play_once(&fewer, false)
                .broken
                .is_some_and(|b| b.promise == promise)
            {
                *steps = fewer;
                shorter = true;
            } else {
                at += size;
            }
        }
        if begun.elapsed() >= PATIENCE || (size == 1 && !shorter) {
            return;
        }
        size = if size > 1 { size / 2 } else { 1 };
    }
}
