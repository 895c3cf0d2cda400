//! Plays scenarios.

use std::path::Path;
use std::time::Duration;

use crate::deeds;
use crate::expectations::{
    answer, asked, check, event, receives, request, sync_as, to_device, transaction,
};
use crate::format::{ServerDeed, Step};
use crate::homeserver::{Done, Halt, Homeservers, Passed};
use crate::listener::pause;
use crate::log::{Exchange, Log};
use crate::scenario::{PlacedStep, Problem, Scenario};
use crate::world::World;

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

/// Plays a scenario. `password` is that of its people.
pub async fn run(scenario: &Scenario, servers: &dyn Homeservers, password: &str) -> Outcome {
    let log = Log::default();
    let ended = match found(scenario, servers, password, &log).await {
        Ok(mut world) => {
            let ended = match world.begin().await {
                Ok(()) => play_all(scenario, &mut world).await,
                Err(why) => Err((None, why)),
            };
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
    let verdict = match ended {
        Ok(()) => Verdict::Passed,
        Err((step, Halt::Skipped(why))) => Verdict::Skipped(format!("  {}: {why}", place(step))),
        Err((step, Halt::Failed(why))) => Verdict::Failed(format!("{}\n{why}", place(step))),
    };
    let (transcript, exchanges) = log.shown();
    Outcome {
        verdict,
        transcript,
        exchanges,
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

async fn play_all<'a>(
    scenario: &'a Scenario,
    world: &mut World,
) -> Result<(), (Option<&'a PlacedStep>, Halt)> {
    for placed in &scenario.steps {
        world.log.step(&placed.text);
        let played = play(world, &placed.step).await;
        let settled = world.server.settle().await;
        played.map_err(|why| (Some(placed), why))?;
        settled.map_err(|why| (Some(placed), why))?;
    }
    Ok(())
}

async fn play(world: &mut World, step: &Step) -> Done {
    match step {
        Step::Deed(actor, sentence) => deeds::play(world, actor, sentence).await,
        Step::Request(step) => request(world, step).await,
        Step::ToDevice(step) => to_device(world, step).await,
        Step::Event(step) => event(world, step).await,
        Step::Sync(step) => sync_as(world, step).await,
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
