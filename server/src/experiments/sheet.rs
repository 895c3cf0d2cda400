//! The data sheet of an experiment.

use actors::services::Proposals;
use actors::wire::{Body, Pending};

/// Everything an experiment may touch.
pub struct Experiment {
    /// What the operator calls it.
    pub name: &'static str,
    /// What it is.
    pub title: &'static str,
    /// What it switches on below the server: what services are owed.
    pub switches: fn(&mut Proposals),
    /// The keys of a registration that ask for it.
    pub registration: &'static [&'static str],
    /// Every name that it puts on the wire.
    pub names: &'static [&'static str],
    /// Extra keys in transactions to application services.
    pub transaction: fn(&Pending, &mut Body),
}
