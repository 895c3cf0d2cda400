//! Plays scenarios.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::deeds;
use crate::delivered::{receives, transaction};
use crate::expectations::{answer, asked, check, event, request, sync_as, sync_ends, to_device};
use crate::format::{ServerDeed, Step};
use crate::homeserver::{Done, Halt, Homeservers, Passed};
use crate::listener::{Attempt, pause};
use crate::log::{Exchange, Log, Raw};
use crate::names::Names;
use crate::scenario::{PlacedStep, Problem, Scenario};
use crate::world::World;
use crate::{olm, shared, transcript};

/// The longest time that a scenario waits for real.
const REAL: Duration = Duration::from_secs(10);

/// How a scenario ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything came as expected.
    Passed,
    /// The homeserver lacks something: the reason.
    Skipped(String),
    /// Something else came: the file and the line, the step, what was expected and what came.
    Failed(String),
}

/// What came of a scenario.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// What was sent and received.
    pub transcript: String,
    /// What the transcript shows, one by one.
    pub exchanges: Vec<Exchange>,
    /// How each step ended that was played.
    pub steps: Vec<Done>,
    /// The requests and answers as they were.
    pub raw: Vec<Raw>,
    /// The attempts to send each bridge a transaction, from the first step on.
    pub sent: BTreeMap<String, Vec<Attempt>>,
    /// What the short names stood for.
    pub names: Names,
}

/// The longest value that a reason shows whole, in characters.
const SHOWN: usize = 2_000;

/// A reason in which a whole value is not too long.
fn cut(why: &str) -> String {
    let lines = why
        .lines()
        .map(|line| match line.char_indices().nth(SHOWN) {
            Some((end, _)) if line.starts_with("  whole: ") => {
                format!("{}… ({} bytes)", &line[..end], line.len())
            }
            _ => line.to_owned(),
        });
    lines.collect::<Vec<_>>().join("\n")
}

/// What to do after a step that was not as expected. A step that cannot be played always ends the scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// End the scenario.
    End,
    /// Play the remaining steps too.
    GoOn,
}

impl Outcome {
    /// A line about the scenario, and the failure.
    #[must_use]
    pub fn shown(&self, scenario: &Scenario) -> String {
        let name = format!("{}  {}", scenario.file.display(), scenario.head.title);
        match &self.verdict {
            Verdict::Passed => format!("passed   {name}"),
            Verdict::Skipped(why) => format!("skipped  {name}\n{why}"),
            Verdict::Failed(why) => format!("FAILED   {name}\n\n{why}\n"),
        }
    }
}

/// Reads and plays a file.
///
/// # Errors
/// If it is no scenario.
pub async fn run_file(
    file: &Path,
    servers: &dyn Homeservers,
    password: &str,
) -> Result<(Scenario, Outcome), Problem> {
    let scenario = Scenario::read(file)?;
    let outcome = run(&scenario, servers, password).await;
    Ok((scenario, outcome))
}

/// Plays a scenario to its end, or to the first step that is not as expected. `password` is that of its people.
pub async fn run(scenario: &Scenario, servers: &dyn Homeservers, password: &str) -> Outcome {
    run_and(scenario, servers, password, After::End).await
}

/// Plays a scenario like [`run`], and does this after a step that is not as expected.
pub async fn run_and(
    scenario: &Scenario,
    servers: &dyn Homeservers,
    password: &str,
    after: After,
) -> Outcome {
    let log = Log::default();
    let mut outcome = Outcome {
        verdict: Verdict::Passed,
        transcript: String::new(),
        exchanges: Vec::new(),
        steps: Vec::new(),
        raw: Vec::new(),
        sent: BTreeMap::new(),
        names: Names::default(),
    };
    // The reason has the same short names as the transcript, so it is the same in each run.
    let mut short = transcript::names::Names::default();
    let ended = match found(scenario, servers, password, &log).await {
        Ok(mut world) => {
            let ended = match begin(&mut world).await {
                Ok(()) => play_all(scenario, &mut world, after, &mut outcome.steps).await,
                Err(why) => Err((None, why)),
            };
            // What was sent is compared, and the last of it may be under way.
            if after == After::GoOn && !world.server.is_fresh() {
                shared::quiet(&world).await;
            }
            for (id, bridge) in &world.bridges {
                let sent = bridge.listener.attempts().split_off(bridge.before);
                outcome.sent.insert(id.clone(), sent);
            }
            outcome.raw = log.raw();
            (outcome.transcript, outcome.exchanges, short) = log.shown();
            outcome.names = world.names.clone();
            if !world.server.is_fresh() {
                shared::leave(&mut world).await;
            }
            world.end().await;
            ended
        }
        Err(why) => Err((None, why)),
    };
    let file = scenario.file.display();
    let place = |step: Option<&PlacedStep>| match step {
        Some(step) => format!("{file}:{}: {}", step.line, step.text),
        None => format!("{file}: before the first step"),
    };
    // A server that does not start, for example because it does not know a proposal.
    let is_alone = |step: Option<_>, why: &str| step.is_none() && !why.contains('\n');
    let mut named = |why: &str| cut(&short.shorten(&log.named(why)));
    outcome.verdict = match ended {
        Ok(()) => Verdict::Passed,
        Err((step, Halt::Skipped(why))) => {
            Verdict::Skipped(format!("  {}: {}", place(step), named(&why)))
        }
        Err((step, Halt::Failed(why))) if is_alone(step, &why) => {
            Verdict::Failed(format!("{file}: {}", named(&why)))
        }
        Err((step, Halt::Failed(why))) => {
            Verdict::Failed(format!("{}\n{}", place(step), named(&why)))
        }
    };
    for step in &mut outcome.steps {
        if let Err(Halt::Failed(why) | Halt::Skipped(why)) = step {
            *why = cut(&log.named(why));
        }
    }
    outcome
}

async fn begin(world: &mut World) -> Done {
    world.begin().await?;
    match world.server.settle().await? {
        true => Ok(()),
        false => shared::arrive(world).await,
    }
}

async fn found(
    scenario: &Scenario,
    servers: &dyn Homeservers,
    password: &str,
    log: &Log,
) -> Done<World> {
    let server = servers.start(&scenario.head.mscs).await?;
    Ok(World::new(
        server,
        scenario.head.clone(),
        password,
        log.clone(),
    )?)
}

/// Plays the steps. Returns the first that was not as expected.
async fn play_all<'a>(
    scenario: &'a Scenario,
    world: &mut World,
    after: After,
    steps: &mut Vec<Done>,
) -> Result<(), (Option<&'a PlacedStep>, Halt)> {
    let mut first = Ok(());
    for placed in &scenario.steps {
        world.log.step(&placed.text);
        let played = play(world, &placed.step).await;
        let settled = world.server.settle().await;
        let ended = played.and(settled.map(|_| ()));
        steps.push(ended.clone());
        if let Err(why) = ended {
            let is_last = after == After::End || matches!(why, Halt::Skipped(_));
            first = first.and(Err((Some(placed), why)));
            if is_last {
                break;
            }
        }
    }
    first
}

async fn play(world: &mut World, step: &Step) -> Done {
    match step {
        Step::Deed(actor, sentence) => deeds::play(world, actor, sentence).await,
        Step::Request(step) => request(world, step).await,
        Step::ToDevice(step) => to_device(world, step).await,
        Step::Olm(step) => olm::send(world, step).await,
        Step::Decrypted(step) => olm::decrypted(world, step).await,
        Step::Event(step) => event(world, step).await,
        Step::Sync(step) => sync_as(world, step).await,
        Step::SyncEnds(step) => sync_ends(world, step).await,
        Step::Registration(step) => world.change(&step.bridge, &step.members).await,
        Step::Transaction(step) => transaction(world, step).await,
        Step::Receives(step) => receives(world, step).await,
        Step::Answer(step) => answer(world, step),
        Step::Asked(step) => asked(world, step).await,
        Step::Check(step) => check(world, step),
        Step::Wait(time) => wait(world, *time).await,
        Step::Server(ServerDeed::IsKilled) => world.restart(true).await,
        Step::Server(ServerDeed::IsRestarted) => world.restart(false).await,
    }
}

async fn wait(world: &World, time: Duration) -> Done {
    match world.server.advance(time).await? {
        Passed::Advanced => {}
        Passed::Real if time <= REAL => pause(time).await,
        Passed::Real => {
            let why = format!(
                "it waits {} s, and the server has no clock that can be advanced",
                time.as_secs()
            );
            return Err(Halt::Skipped(why));
        }
    }
    Ok(())
}
