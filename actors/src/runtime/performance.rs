//! How the actors of a development server keep up: the requests that each answered, the slowest of them, and the last failure.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::runtime::clock::Stopwatch;
use crate::{Clock, Error};

/// What is known of one actor since the start.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ActorPerformance {
    /// The actor's name in the trace.
    pub name: &'static str,
    /// The requests in its mailbox and those that it works on.
    pub mailbox: u64,
    /// The number of requests that it answered.
    pub handled: u64,
    /// The longest time from sending a request until its answer, in microseconds. Most of it is usually the commit.
    pub slowest_micros: u64,
    /// The message of that request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slowest: Option<&'static str>,
    /// The last request that failed; requests that a rule refused do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<Failure>,
}

/// A request that failed.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// When, in milliseconds since the epoch.
    pub at: i64,
    /// The message.
    pub what: &'static str,
    /// The error.
    pub error: String,
}

type Actors = BTreeMap<&'static str, ActorPerformance>;

/// The performance of all actors; clones share it. The default measures nothing.
#[derive(Clone, Default)]
pub struct Performance(Option<Arc<Mutex<Actors>>>);

/// A request that is not answered yet. Dropped without an answer, it counts as given up by its sender.
pub(crate) struct Measured {
    actors: Performance,
    actor: &'static str,
    what: &'static str,
    since: Stopwatch,
}

impl Performance {
    /// Measure from now on.
    pub fn measured() -> Performance {
        Performance(Some(Arc::default()))
    }

    fn actors(&self) -> Option<MutexGuard<'_, Actors>> {
        let actors = self.0.as_ref()?;
        Some(actors.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Called when a request is sent to an actor.
    pub(crate) fn asked(&self, name: &'static str, what: &'static str) -> Option<Measured> {
        let mut actors = self.actors()?;
        let actor = actors.entry(name).or_default();
        actor.name = name;
        actor.mailbox += 1;
        Some(Measured {
            actors: self.clone(),
            actor: name,
            what,
            since: Stopwatch::start(),
        })
    }

    /// Every actor that was sent a request, in order of name.
    pub fn all(&self) -> Vec<ActorPerformance> {
        self.actors()
            .map_or_else(Vec::new, |actors| actors.values().cloned().collect())
    }
}

impl Measured {
    /// The request is answered.
    pub(crate) fn answered(self, error: Option<&Error>, clock: &Clock) {
        let micros = self.since.micros();
        let Some(mut actors) = self.actors.actors() else {
            return;
        };
        let Some(actor) = actors.get_mut(self.actor) else {
            return;
        };
        actor.handled += 1;
        if micros >= actor.slowest_micros {
            (actor.slowest_micros, actor.slowest) = (micros, Some(self.what));
        }
        if let Some(error) = error.filter(|error| !matches!(error, Error::Refused(_))) {
            actor.last_error = Some(Failure {
                at: clock.now(),
                what: self.what,
                error: error.to_string(),
            });
        }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if let Some(actor) = self
            .actors
            .actors()
            .as_mut()
            .and_then(|actors| actors.get_mut(self.actor))
        {
            actor.mailbox -= 1;
        }
    }
}
