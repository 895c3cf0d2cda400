//! The data sheet of an experiment.

use actors::services::Proposals;
use actors::wire::{TransactionBody, TransactionContent};

/// Everything that an experiment may change.
pub struct Experiment {
    /// The name by which the operator switches the experiment on.
    pub name: &'static str,
    /// A short description of the experiment.
    pub title: &'static str,
    /// Sets the switches of the actors: which kinds of data appservices are owed.
    pub switches: fn(&mut Proposals),
    /// The registration keys with which an appservice asks for the experiment.
    pub registration: &'static [&'static str],
    /// All names that the experiment adds to the wire.
    pub names: &'static [&'static str],
    /// Extra keys in transactions to application services.
    pub transaction: fn(&TransactionContent, &mut TransactionBody),
}
