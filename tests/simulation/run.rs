//! Running one schedule, making a failing one short, and telling it.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::registering::OBSERVERS;
use crate::server::{Server, print_no_injected_panic};
use crate::steps::Step;
use crate::world::{Broken, World};

/// How long a failing schedule is made shorter.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long a schedule may take, on a machine that is busy with other things.
const LONGEST: Duration = Duration::from_secs(300);

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
    print_no_injected_panic();
    let steps = steps.to_vec();
    let _watched = Watched::new(&steps);
    actix_rt::System::new().block_on(async move { play(&steps, recording).await })
}

/// A schedule that is being played. One that does not end is named by its steps, and ends the process.
struct Watched {
    /// Dropped when the schedule ends.
    _ends: Sender<()>,
}

impl Watched {
    fn new(steps: &[Step]) -> Watched {
        let (ends, ended) = channel();
        let steps = text(steps);
        std::thread::spawn(move || {
            if ended.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
                eprintln!("a schedule does not end:\n{steps}");
                std::process::abort();
            }
        });
        Watched { _ends: ends }
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

/// The failure of a schedule, told: the promise, the fewest steps that break it, and their transcript.
pub(crate) fn failure(mut steps: Vec<Step>, to_play_it: &str) -> Option<String> {
    let outcome = play_once(&steps, false);
    let promise = outcome.broken?.promise;
    let whole = steps.len();
    steps.truncate(outcome.played);
    shorten(&mut steps, promise);
    let told = play_once(&steps, true);
    let story = story(&told);
    let what = told.broken.map_or_else(
        || "(it did not fail again while it was told)".to_owned(),
        |b| b.what,
    );
    Some(format!(
        "\n=== the promise that does not hold ===\n{promise}\n{what}\n\n=== {} of {whole} steps are enough ===\n{story}\n=== to play it again ===\n{to_play_it}\n\n=== to keep it, in tests/simulation/kept/ ===\n{promise}: (the reason in a sentence)\n{}",
        steps.len(),
        text(&steps),
    ))
}

/// What happens in a schedule, whether it breaks a promise or not.
pub(crate) fn told(steps: &[Step]) -> String {
    let told = play_once(steps, true);
    format!("{}\n=== the steps ===\n{}", story(&told), text(steps))
}

fn text(steps: &[Step]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

fn story(outcome: &Outcome) -> String {
    let words: Vec<String> = outcome
        .words
        .iter()
        .enumerate()
        .map(|(i, w)| format!("{:3}. {w}", i + 1))
        .collect();
    let (words, transcript) = (words.join("\n"), &outcome.story);
    format!("{words}\n\n=== the transcript ===\n{transcript}")
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
