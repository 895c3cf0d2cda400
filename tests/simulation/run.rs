//! Runs one schedule, shrinks a failing one, and prints it.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::registering::OBSERVERS;
use crate::server::{Server, suppress_injected_panics};
use crate::steps::Step;
use crate::world::{Broken, World};

/// The time limit for shrinking a failing schedule.
const SHRINK_LIMIT: Duration = Duration::from_secs(90);

/// How long a schedule may take, with a margin for a busy machine.
const SCHEDULE_LIMIT: Duration = Duration::from_secs(300);

/// The result of a schedule.
struct Outcome {
    broken: Option<Broken>,
    /// How many steps were played.
    played: usize,
    /// What each step tried.
    narration: Vec<String>,
    transcript: String,
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
    let transcript = if recording {
        world.log.text()
    } else {
        String::new()
    };
    world.server.faults.arm(None);
    world.server.kill().await;
    Outcome {
        broken: result.err(),
        played,
        narration: world.narration,
        transcript,
    }
}

fn play_once(steps: &[Step], recording: bool) -> Outcome {
    suppress_injected_panics();
    let steps = steps.to_vec();
    let _watchdog = Watchdog::new(&steps);
    actix_rt::System::new().block_on(async move { play(&steps, recording).await })
}

/// Watches a schedule that is being played. If it does not end, prints its steps and aborts the process.
struct Watchdog {
    /// Dropped when the schedule ends.
    _ends: Sender<()>,
}

impl Watchdog {
    fn new(steps: &[Step]) -> Watchdog {
        let (ends, ended) = channel();
        let steps = text(steps);
        std::thread::spawn(move || {
            if ended.recv_timeout(SCHEDULE_LIMIT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("a schedule does not end:\n{steps}");
                std::process::abort();
            }
        });
        Watchdog { _ends: ends }
    }
}

/// Whether a schedule breaks a promise.
pub(crate) fn fails(name: &str, steps: &[Step]) -> bool {
    let outcome = play_once(steps, false);
    if let Some(broken) = &outcome.broken {
        println!("{name}: {}: {}", broken.promise, broken.what);
    }
    outcome.broken.is_some()
}

/// The report of a failing schedule: the promise, the fewest steps found that break it, and their transcript.
pub(crate) fn failure(mut steps: Vec<Step>, to_play_it: &str) -> Option<String> {
    let outcome = play_once(&steps, false);
    let promise = outcome.broken?.promise;
    let whole = steps.len();
    steps.truncate(outcome.played);
    shorten(&mut steps, promise);
    let outcome = play_once(&steps, true);
    let story = story(&outcome);
    let what = outcome.broken.map_or_else(
        || "(it did not fail again while its transcript was recorded)".to_owned(),
        |b| b.what,
    );
    Some(format!(
        "\n=== the promise that does not hold ===\n{promise}\n{what}\n\n=== {} of {whole} steps are enough ===\n{story}\n=== to play it again ===\n{to_play_it}\n\n=== to keep it, in tests/simulation/kept/ ===\n{promise}: (the reason in a sentence)\n{}",
        steps.len(),
        text(&steps),
    ))
}

/// The report of a schedule, whether it breaks a promise or not.
pub(crate) fn report(steps: &[Step]) -> String {
    let outcome = play_once(steps, true);
    format!("{}\n=== the steps ===\n{}", story(&outcome), text(steps))
}

fn text(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

fn story(outcome: &Outcome) -> String {
    let lines: Vec<String> = outcome
        .narration
        .iter()
        .enumerate()
        .map(|(i, line)| format!("{:3}. {line}", i + 1))
        .collect();
    let (lines, transcript) = (lines.join("\n"), &outcome.transcript);
    format!("{lines}\n\n=== the transcript ===\n{transcript}")
}

/// Leave out steps, many at a time and then fewer, while the same promise is still broken.
fn shorten(steps: &mut Vec<Step>, promise: &str) {
    let begun = Instant::now();
    let mut size = (steps.len() / 2).max(1);
    loop {
        let mut at = 0;
        let mut shorter = false;
        while at < steps.len() && begun.elapsed() < SHRINK_LIMIT {
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
        if begun.elapsed() >= SHRINK_LIMIT || (size == 1 && !shorter) {
            return;
        }
        size = if size > 1 { size / 2 } else { 1 };
    }
}
